"""Trackers by the real libraries: what each was told, read back from its own files, is what the policy's artifact says, also of a run that was killed."""

import importlib
import json
import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from truing.artifacts import load_artifact
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.policy.trackers import TRACKERS, Table, Tracker, catch_up, told
from truing.store.project import Project
from tuning import settings_for, share_of_third_tokens, tune

UPDATES = 5
BLOCK, HEADER = 32 * 1024, 7  # of LevelDB's log format, in which wandb keeps what it was told

KILLED = """
    import os, signal, sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    torch.set_num_threads(1)  # a fork takes no threads along
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.store.project import create_project, open_project
    from tuning import settings_for, share_of_third_tokens, tune

    def run(root, tracker, most):
        calls = 0
        def score(prompts, responses):
            nonlocal calls
            calls += 1
            if calls > most:
                time.sleep(0.8)  # what waits to be sent goes, so that it would be there twice if it were told again
                os.kill(os.getpid(), signal.SIGKILL)
            return share_of_third_tokens(prompts, responses)
        child = os.fork()
        if child == 0:
            tune(open_project(root), trunk, settings_for("rloo", updates={updates}, tracker=tracker), score=score)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    trunk = open_trunk(ModelSettings(name={model!r}, dtype="fp32"))
    for tracker in {trackers!r}:
        root = create_project(Path({folder!r}) / tracker, settings="")
        assert [run(root, tracker, most) for most in (2, 99)] == [-signal.SIGKILL, 0]
"""


class Told(NamedTuple):
    """What a tracker's files hold: update → metrics in order of writing, the answers' texts of each update, and the learning rate of its settings."""

    rows: Sequence[tuple[int, Mapping[str, float]]]
    answers: dict[int, str]
    lr: float


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """For each tracker a project whose run was killed after two updates (kill -9) and taken up."""
    folder = tmp_path_factory.mktemp("killed")
    script = textwrap.dedent(KILLED).format(
        tests=str(Path(__file__).parents[1]), model=str(tiny_model), folder=str(folder), updates=UPDATES, trackers=list(TRACKERS)
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(folder / "cache"), "TRACKIO_DIR": str(folder / "trackio-store")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, check=True)
    return folder


def from_tensorboard(project: Path) -> Told:
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    (place,) = (project / "trackers/tensorboard").iterdir()
    found = accumulator.EventAccumulator(str(place))
    found.Reload()
    rows: dict[int, dict[str, float]] = {}
    for name in found.Tags()["scalars"]:
        steps = [event.step for event in found.Scalars(name)]
        assert len(set(steps)) == len(steps)
        for event in found.Scalars(name):
            rows.setdefault(event.step, {})[name] = event.value
    texts = {event.step: event.tensor_proto.string_val[0].decode() for event in found.Tensors("answers/text_summary")}
    (settings,) = found.Tensors("settings/text_summary")
    lines = dict(line.strip().split(" = ") for line in settings.tensor_proto.string_val[0].decode().splitlines())
    return Told(sorted(rows.items()), texts, float(lines["settings.lr"]))


def from_wandb(project: Path) -> Told:
    (place,) = (project / "trackers/wandb").glob("offline-run-*")
    (file,) = place.glob("*.wandb")
    rows, answers, lr = [], {}, 0.0
    for record in wandb_records(file.read_bytes()):
        if record.WhichOneof("record_type") == "run":
            lr = json.loads(next(item.value_json for item in record.run.config.update if item.key == "settings"))["lr"]
        if record.WhichOneof("record_type") == "history":
            step = record.history.step.num
            cells = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append((step, cells))
            answers[step] = (place / "files" / cells["answers/path"]).read_text(encoding="utf-8")
    return Told(rows, answers, lr)


def wandb_records(data: bytes) -> Iterator[Any]:
    """The protobuf records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    kind_of_record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    at, parts = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield kind_of_record.FromString(parts)
            parts = b""


def from_trackio(project: Path) -> Told:
    """Read by a process of its own: Trackio looks at TRACKIO_DIR when it is imported."""
    script = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as s; (run,) = s.get_runs('trackio'); "
        "print(json.dumps([s.get_logs('trackio', run), s.get_run_config('trackio', run)]))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(project.parent / "trackio-store")}
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True, check=True)
    logs, config = json.loads(ended.stdout.splitlines()[-1])
    return Told([(row["step"], row) for row in logs], {row["step"]: json.dumps(row["answers"]) for row in logs}, config["settings"]["lr"])


READ = {"tensorboard": from_tensorboard, "wandb": from_wandb, "trackio": from_trackio}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_killed_run_is_told_whole_and_once(killed: Path, tracker: str) -> None:
    (policy,) = (killed / tracker / "artifacts").glob("policy-*")
    rows = [json.loads(line) for line in (policy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    shown = [json.loads(line) for line in (policy / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    found = READ[tracker](killed / tracker)
    assert [update for update, _ in found.rows] == list(range(1, UPDATES + 1))
    for (_, cells), row in zip(found.rows, rows, strict=True):
        assert {name: cells[name] for name in row if name != "update"} == pytest.approx({name: value for name, value in row.items() if name != "update"})
    for update, text in found.answers.items():
        assert all(f"{one['score']}".rstrip("0") in text for one in shown if one["update"] == update)
        assert all(one["prompt_id"] in text for one in shown if one["update"] == update)
    assert found.lr == settings_for("rloo").lr


def unscored(prompts: object, responses: object) -> list[float]:
    raise AssertionError("nothing is drawn or scored again")


@pytest.mark.slow
def test_a_tracker_is_no_input_of_the_policy_and_may_be_chosen_later(project: Project, trunk: Trunk) -> None:
    first = tune(project, trunk, settings_for("rloo"))
    again = tune(project, trunk, settings_for("rloo", tracker="tensorboard"), score=unscored)
    assert again.id == first.id
    assert "tracker" not in load_artifact(project.artifacts, first.id).manifest["settings"]["settings"]
    assert [update for update, _ in from_tensorboard(project.root).rows] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_library_that_is_missing_is_named_before_anything_is_drawn(project: Project, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError) as caught:
        tune(project, trunk, settings_for("rloo", tracker="trackio"), score=unscored)
    assert "pip install trackio" in caught.value.fix
    assert tune(project, trunk, settings_for("rloo"), score=share_of_third_tokens).facts["updates"] == 4


class Notebook(Tracker):
    """A tracker that remembers."""

    def __init__(self, told: int = 0) -> None:
        self.told = told
        self.pages: dict[int, tuple[Table, Table]] = {}

    def tell(self, update: int, row: Mapping[str, float], answers: Table, findings: Table) -> None:
        assert row["update"] == update
        self.pages[update] = answers, findings

    def close(self, *, whole: bool) -> None:
        self.whole = whole


def test_a_finding_is_told_where_it_first_shows(project: Project) -> None:
    rows = [{"update": float(update), "policy/first_ratio_error": error} for update, error in ((1, 0.0), (2, 0.5), (3, 0.5))]
    shown = [{"update": 3, "prompt_id": "one", "text": "Yes.\nNo.", "finished": True, "score": 0.25}]
    book = Notebook()
    catch_up(project, book, rows[:2], [])
    catch_up(project, book, rows, shown)
    catch_up(project, book, rows, shown)
    assert [[finding[0] for finding in findings] for _, findings in book.pages.values()] == [[], ["stale ratios"], []]
    assert book.pages[3][0] == [["one", "Yes.\nNo.", True, 0.25]]
    late = Notebook(told=2)
    catch_up(project, late, rows, shown)
    assert list(late.pages) == [3]


def test_a_tracker_learns_whether_the_run_was_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Notebook()
    monkeypatch.setitem(TRACKERS, "trackio", lambda place: book)
    with pytest.raises(KeyboardInterrupt), told(project, settings_for("rloo", tracker="trackio"), "0" * 64, {}):
        raise KeyboardInterrupt
    assert not book.whole
    with told(project, settings_for("rloo", tracker="trackio"), "0" * 64, {}) as hear:
        hear([{"update": 1.0}], [])
    assert book.whole
    assert book.told == 1


@pytest.mark.slow
def test_a_service_that_does_not_know_the_user_says_how_to_sign_in(project: Project, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    with pytest.raises(UserError) as caught:
        tune(project, trunk, settings_for("rloo", tracker="wandb"), score=unscored)
    assert "wandb login" in caught.value.fix
