"""The commands as a user types them: help at once, mistakes told with what and fix, results as one JSON object."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import commands
from truing.config import commented_toml
from truing.store.project import create_project

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, **commands.ENVIRONMENT}


def truing(*words: str, cwd: Path | None = None, check: bool = True, fresh: bool = False) -> commands.Ended:
    """A command in a process of its own; `fresh`: in a Python of its own too, as a user starts it."""
    if fresh:
        ended = subprocess.run([sys.executable, "-m", "truing", *words], cwd=cwd, capture_output=True, text=True, env=ENVIRONMENT)
        finished = commands.Ended(ended.returncode, ended.stdout, ended.stderr)
    else:
        finished = commands.run(*words, cwd=cwd)
    if check:
        assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def last(finished: commands.Ended) -> dict[str, object]:
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def refused(finished: commands.Ended, *needles: str) -> None:
    """Exit code 2, what and fix, no traceback."""
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    for needle in ("error:", "fix:", *needles):
        assert needle in finished.stderr.replace("\n", " "), finished.stderr


def test_help_lists_the_stages_in_the_order_of_the_data() -> None:
    text = truing("--help", fresh=True).stdout
    order = [
        text.index(f" {name} ")
        for name in ("init", "sample", "annotate", "quality", "preferences", "import", "export", "tune", "evaluate", "report", "lineage", "chat", "demo")
    ]
    assert order == sorted(order)


def test_votes_of_a_crowd_come_in_by_a_guess_and_are_weighed(tmp_path: Path) -> None:
    """Ann and Bob see the truth, Cy says the opposite: nobody need be told who is whom."""
    rows = ["worker,prompt,left,right,label"]
    for i in range(12):
        better, worse = f"good {i}", f"bad {i}"
        left, right = (better, worse) if i % 2 else (worse, better)
        rows += [f"{who},Which {i}?,{left},{right},{worse if who == 'cy' else better}" for who in ("ann", "bob", "cy")]
    (tmp_path / "votes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    truing("init", "p", cwd=tmp_path)
    came = truing("import", str(tmp_path / "votes.csv"), "--project", "p", cwd=tmp_path)
    assert "added 36" in came.stdout
    assert "format crowd-kit" in came.stdout
    told = truing("quality", "--second-opinion", "--project", "p", cwd=tmp_path)
    assert "crowd-kit: alpha" in told.stdout
    found = last(truing("quality", "--second-opinion", "--json", "--project", "p", cwd=tmp_path))
    annotators, second = found["annotators"], found["second_opinion"]
    assert isinstance(annotators, list)
    assert isinstance(second, dict)
    liar = min(annotators, key=lambda row: row["trust"])
    assert [liar["agreement"], liar["n"]] == [0, 12]
    assert min(second["annotators"], key=lambda row: row["dawid_skene"])["id"] == liar["id"]


def test_help_needs_no_torch_and_little_beside() -> None:
    """Under half a second on an idle laptop. A clock in a test lies, so this counts what is loaded instead."""
    code = "import sys, truing.cli.app; print(len(sys.modules)); assert not {'torch','sqlalchemy','numpy','transformers','pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def small(tmp_path: Path, tiny_model: Path) -> Path:
    folder = tmp_path / "small"
    settings: dict[str, dict[str, object]] = {
        "model": {"name": str(tiny_model), "dtype": "fp32"},
        "samples": {"max_new_tokens": 8, "temperature": 1.0},
        "feedback": {"pairs": 70},
        "tune": {"updates": 2, "samples": 8, "unfit": True},
        "evaluation": {"resamples": 100},
        "round": {"feedback": "simulated"},
    }
    create_project(folder, settings=commented_toml(settings))
    (folder / "prompts.txt").write_text("".join(f"Say something kind about number {number}.\n" for number in range(60)))
    return folder


def test_every_stage_alone(small: Path) -> None:
    """The loop by hand, one command a stage, each with its JSON."""
    assert last(truing("prompts", "import", "prompts.txt", "--json", cwd=small))["added"] == 60
    assert last(truing("sample", "--json", cwd=small))["n"] == 120
    assert last(truing("annotate", "--simulated", "--json", cwd=small))["judgements"]
    assert "alpha" in last(truing("quality", "--json", cwd=small))
    assert last(truing("preferences", "--json", cwd=small))["dataset"]
    reward = last(truing("reward", "train", "--json", cwd=small))
    assert {"accuracy", "accuracy_low", "accuracy_high", "n_test"} <= reward.keys()
    card = last(truing("reward", "card", "--json", cwd=small))
    assert card["accuracy"]
    assert "Not fit to tune against" in Path(small, str(card["report"])).read_text(encoding="utf-8")
    refused(truing("tune", "--set", "tune.unfit=false", cwd=small, check=False), "not fit to tune against", "tune.unfit=true")
    tuned = truing("tune", "--algorithm", "rloo", "--view", "--json", cwd=small)
    assert "the view needs a terminal" in tuned.stderr
    policy = last(tuned)["policy"]
    assert last(truing("evaluate", "--json", cwd=small))["win_rate"]
    assert Path(small, str(last(truing("report", "--json", cwd=small))["report"])).exists()
    assert last(truing("lineage", str(policy), "--json", cwd=small))["ancestors"]
    rounds = last(truing("round", "status", "--json", cwd=small))["rounds"]
    assert isinstance(rounds, list)
    assert [row["number"] for row in rounds] == [1]
    # Each says what to type next, and a second call answers from what the first made.
    again = truing("reward", "train", cwd=small, fresh=True)
    assert "next: truing reward card" in again.stdout
    assert str(reward["reward"]) in again.stdout


def test_rewards_of_ones_own_and_several_in_one(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "p"
    create_project(folder, settings=commented_toml({"model": {"name": str(tiny_model), "dtype": "fp32"}, "samples": {"max_new_tokens": 8}}))
    (folder / "prompts.txt").write_text("".join(f"Say something kind about number {number}.\n" for number in range(12)))
    (folder / "rewards.py").write_text(
        "def brief(prompt, responses): return [-float(len(r)) for r in responses]\n"
        "def vowels(prompt, responses): return [float(sum(r.count(v) for v in 'aeiou')) for r in responses]\n"
        "def broken(prompt, responses): return responses[0][1000]\n"
    )  # fmt: skip
    truing("prompts", "import", "prompts.txt", cwd=folder)
    truing("sample", cwd=folder)
    told = truing("reward", "use", "rewards.py:brief", cwd=folder).stdout.replace("\n", " ")
    assert "rewards.py:brief; not measured, for want of held-out judgements" in told
    assert "next: truing tune --set tune.unfit=true" in told
    ids = [last(truing("reward", "use", f"rewards.py:{name}", "--json", cwd=folder))["reward"] for name in ("brief", "vowels")]
    whole = last(truing("reward", "combine", f"brief={ids[0]}:0.5", f"rich={ids[1]}", "--at-least", "rich:-0.5:3", "--json", cwd=folder))
    assert whole["verdict"] == "not fit"
    ancestors = last(truing("lineage", str(whole["reward"]), "--json", cwd=folder))["ancestors"]
    assert isinstance(ancestors, list)
    assert {row["id"] for row in ancestors} == {whole["reward"], *ids}
    refused(truing("tune", cwd=folder, check=False), "not fit to tune against", "tune.unfit=true")
    refused(truing("reward", "card", cwd=folder, check=False), "was measured on none")
    refused(truing("reward", "export", "out", cwd=folder, check=False), "was not trained here")
    refused(truing("reward", "use", "rewards.py:kind", cwd=folder, check=False), "has no function 'kind'", "brief, vowels, broken")
    refused(truing("reward", "use", "hub:nobody", cwd=folder, check=False), "names no reward model", "FILE.py:FUNCTION")
    refused(truing("reward", "use", f"hub:{tiny_model}", cwd=folder, check=False), "never trained to classify")
    refused(truing("reward", "combine", f"brief={ids[0]}", cwd=folder, check=False), "a single objective")
    crashed = truing("reward", "use", "rewards.py:broken", cwd=folder, check=False)
    assert crashed.returncode == 1
    assert "IndexError" in crashed.stderr
    assert "raised by the reward function rewards.py:broken" in crashed.stderr
    help_text = truing("reward", "use", "--help", cwd=folder).stdout.replace("\n", " ")
    assert "A Python function is your code: it runs here" in " ".join(help_text.split())


def test_chat_answers_line_after_line_and_says_what_it_forgets(small: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "truing", "chat", "base"],
        cwd=small,
        input=3 * ("Hello. " * 25 + "\n") + "\n",  # three times 175 tokens, where the model reads 512, 160 of them an answer's
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("is forgotten") >= 1


def test_the_demo_tells_what_it_did_and_answers_again(tiny_model: Path, tmp_path: Path) -> None:
    """The whole of `truing demo` on a tiny model; a second call answers from the first, memory included."""
    quick = {"model.name": tiny_model, "model.dtype": "fp32", "samples.max_new_tokens": 8, "feedback.pairs": 150, "tune.updates": 2, "tune.samples": 16}
    quick["tune.unfit"] = "true"
    command = ["demo", str(tmp_path / "demo"), "--json", *(part for name, value in quick.items() for part in ("--set", f"{name}={value}"))]
    told = last(truing(*command))
    wanted = {
        "seconds", "peak_gb", "reward_accuracy", "reward_accuracy_low", "win_rate", "win_low", "win_high", "n_prompts", "kl_nats", "distinct2_ratio", "alpha",
        "least_trusted", "spoilers", "report",
    }  # fmt: skip
    assert wanted <= told.keys()
    assert told["n_prompts"] == 100
    assert Path(str(told["report"])).exists()
    assert float(str(told["peak_gb"])) > 0.1
    assert last(truing(*command)) == told


def test_export_and_import_round_trip(small: Path, tmp_path: Path) -> None:
    truing("prompts", "import", "prompts.txt", cwd=small)
    written = last(truing("export", "native", str(tmp_path / "log.jsonl"), "--json", cwd=small))
    truing("init", str(tmp_path / "other"))
    back = last(truing("import", str(tmp_path / "log.jsonl"), "--format", "native", "--json", "--project", str(tmp_path / "other")))
    assert back
    assert written["written"] is not None


def wait_for_run(database: Path, stage: str) -> None:
    """Until a run of the stage is under way."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            if connection.execute("select 1 from run where stage = ? and state = 'running'", (stage,)).fetchone():
                return
        time.sleep(0.1)
    raise AssertionError(f"no run of {stage} began")


# A user's mistakes ---------------------------------------------------------------------------------------------------


def test_not_a_project(tmp_path: Path) -> None:
    refused(truing("sample", cwd=tmp_path, check=False, fresh=True), "truing init")
    assert list(tmp_path.iterdir()) == []


def test_a_project_twice(tmp_path: Path) -> None:
    truing("init", str(tmp_path / "p"))
    refused(truing("init", str(tmp_path / "p"), check=False), "is a project already")
    (tmp_path / "file").touch()
    refused(truing("init", str(tmp_path / "file"), check=False), "is a file")


def test_an_empty_project(tmp_path: Path) -> None:
    truing("init", str(tmp_path / "p"))
    for words in (("sample",), ("round", "run")):
        refused(truing(*words, "--project", str(tmp_path / "p"), check=False), "truing prompts import")
    refused(truing("quality", "--project", str(tmp_path / "p"), check=False))
    refused(truing("reward", "card", "--project", str(tmp_path / "p"), check=False), "truing reward train")


def test_a_wrong_file(tmp_path: Path) -> None:
    truing("init", str(tmp_path / "p"))
    refused(truing("prompts", "import", "nowhere.jsonl", "--project", str(tmp_path / "p"), check=False), "nowhere.jsonl")
    (tmp_path / "bad.jsonl").write_text("not json\n")
    refused(truing("import", str(tmp_path / "bad.jsonl"), "--format", "trl", "--project", str(tmp_path / "p"), check=False))
    refused(truing("import", str(tmp_path / "bad.jsonl"), "--format", "nonsense", "--project", str(tmp_path / "p"), check=False), "hh-rlhf")


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    truing("init", str(tmp_path / "p"), "--everyday")
    refused(truing("sample", "--set", "samples.temprature=1", "--project", str(tmp_path / "p"), check=False), "did you mean `temperature`")
    refused(truing("sample", "--set", "sample.temperature=1", "--project", str(tmp_path / "p"), check=False), "did you mean `samples`")
    refused(truing("sample", "--set", "samples.temperature=9", "--project", str(tmp_path / "p"), check=False), "samples.temperature")
    refused(truing("tune", "--algorithm", "pppo", "--project", str(tmp_path / "p"), check=False))


def test_a_missing_model(tmp_path: Path) -> None:
    truing("init", str(tmp_path / "p"), "--everyday")
    for name in ("/nowhere/model", "nobody/no-such-model", "nonsense"):
        refused(truing("sample", "--set", f"model.name={name}", "--project", str(tmp_path / "p"), check=False), name)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        truing("init", str(disk / "p"))
        with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"0" * 4096):
                pass
        refused(truing("prompts", "import", "--everyday", "--project", str(disk / "p"), check=False), "disk is full")
        (disk / "filler").unlink()
        assert last(truing("prompts", "import", "--everyday", "--json", "--project", str(disk / "p")))["added"] == 480
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_leaves_the_work_resumable(small: Path) -> None:
    """SIGINT ends a stage with 130 and a word about going on."""
    import signal

    truing("prompts", "import", "prompts.txt", cwd=small)
    process = subprocess.Popen(
        [sys.executable, "-m", "truing", "sample", "--seed", "99", "--set", "samples.max_new_tokens=300", "--set", "samples.per_prompt=50"], cwd=small,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job is started deaf to Ctrl-C
    )  # fmt: skip
    wait_for_run(small / "truing.db", "samples")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on from here" in errors
