"""Whole rounds on a tiny model: the same seed gives the same artifacts, a killed round goes on to the same ones, and a second round builds on the first."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import commands
from truing.artifacts import ancestors, artifact_ids, load_artifact
from truing.config import commented_toml
from truing.errors import SettingError, UserError
from truing.prompts import PromptSettings, import_prompts
from truing.rounds import Turn, honest_accuracy, report, run_round, weakest_first
from truing.store.project import Project, create_project, open_project

pytestmark = pytest.mark.slow

ONE_THREAD = {**os.environ, **commands.ENVIRONMENT}
STAGES = ("dataset", "reward", "policy", "evaluation", "round")


def make_project(folder: Path, model: Path) -> Project:
    """A project on which a round takes a few seconds."""
    settings: dict[str, dict[str, object]] = {
        "round": {"feedback": "simulated"},
        "model": {"name": str(model), "dtype": "fp32"},
        "samples": {"max_new_tokens": 8, "temperature": 1.0},
        "feedback": {"pairs": 70},
        "tune": {"updates": 3, "samples": 8, "unfit": True},
        "evaluation": {"resamples": 100, "per_prompt": 2},
    }
    project = open_project(create_project(folder, settings=commented_toml(settings)))
    file = folder / "prompts.txt"
    file.write_text("".join(f"Say something kind about number {number}.\n" for number in range(60)))
    import_prompts(project, PromptSettings(), [file])
    return project


def made(turn: Turn) -> dict[str, str]:
    return {stage: turn.made[stage] for stage in STAGES}


def test_two_rounds_in_a_row(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path / "one", tiny_model)
    first = Turn(project, seed=7)
    run_round(first)
    page = report(first).read_text()
    assert "Round 1" in page
    assert 0 <= honest_accuracy(first).value <= 1
    second = Turn(project, new=True)
    assert (second.number, second.parent_policy, second.seed) == (2, first.made["policy"], 7)
    run_round(second)
    evaluation = load_artifact(project.artifacts, second.made["evaluation"])
    facts = evaluation.facts
    assert len((evaluation.path / "pairs.jsonl").read_text().splitlines()) == 2 * 2 * facts["win_rate"]["n"]  # opponents x answers x prompts
    assert set(facts["against"]) == {"base", first.made["policy"]}
    assert "the base model" in facts["sentences"][0]
    assert "round 1's model" in facts["sentences"][1]
    page = report(second).read_text()
    assert "Round 2" in page
    lineage = {artifact.id for _, artifact in ancestors(project.artifacts, second.made["round"])}
    assert set(made(first).values()) | set(made(second).values()) <= lineage
    assert load_artifact(project.artifacts, second.made["policy"]).parents == sorted([first.made["policy"], second.made["reward"]])
    rows = [json.loads(line) for line in (load_artifact(project.artifacts, second.made["dataset"]).path / "pairs.jsonl").read_text().splitlines()]
    one_round = [json.loads(line) for line in (load_artifact(project.artifacts, first.made["dataset"]).path / "pairs.jsonl").read_text().splitlines()]
    assert {row["question_id"] for row in one_round} < {row["question_id"] for row in rows}, "the second dataset holds the judgements of both rounds"
    # A finished round answers from what it made.
    before = artifact_ids(project.artifacts)
    again = Turn(project, 1)
    run_round(again)
    assert made(again) == made(first)
    assert artifact_ids(project.artifacts) == before


def test_the_same_seed_gives_the_same_artifacts_and_another_seed_others(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        turn = Turn(make_project(tmp_path / place, tiny_model), seed=seed)
        run_round(turn)
        found.append(made(turn))
    assert found[0] == found[1]
    assert all(found[0][stage] != found[2][stage] for stage in STAGES)


def test_weakest_first_orders_every_training_prompt(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path / "one", tiny_model)
    first = Turn(project, seed=7)
    run_round(first)
    second = Turn(project, new=True)
    from truing.rounds import choose_prompts, sample

    choose_prompts(second)
    order = weakest_first(second, sample(second))
    assert len(order) == len(set(order)) == 60
    assert weakest_first(second, second.made["samples"]["batch"]) == order


def test_tuning_goes_by_the_ensembles_lower_bound_where_told_to(tmp_path: Path, tiny_model: Path) -> None:
    from truing.rounds import tune_policy

    run_round(Turn(make_project(tmp_path / "one", tiny_model), seed=7))
    first: dict[str, dict[str, float]] = {}
    for by in ("mean", "lower", "worst"):  # the first update draws the same answers
        policy = tune_policy(Turn(open_project(tmp_path / "one", [f"tune.score={by}"]), 1))
        first[by] = json.loads((policy.path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["lower"]["objective/scores"] == pytest.approx(first["mean"]["objective/scores_lower"], abs=1e-5)
    assert first["worst"]["objective/scores"] < first["lower"]["objective/scores"] < first["mean"]["objective/scores"]


def test_a_round_goes_by_a_reward_that_was_brought_in_and_so_does_the_next(tmp_path: Path, tiny_model: Path) -> None:
    from truing.reward.outside.classifier import Reading
    from truing.rounds import combine_reward_models, reward_of_round, train_reward_model, tune_policy, use_reward_model

    project = make_project(tmp_path / "one", tiny_model)
    (tmp_path / "rewards.py").write_text("def brief(prompt, responses): return [-float(len(r)) - len(prompt[-1]['content']) for r in responses]\n")
    first = Turn(project, seed=7)
    brief = use_reward_model(first, f"{tmp_path / 'rewards.py'}:brief", Reading())
    assert brief.facts["n_reference"] == 0  # nothing was sampled yet
    run_round(first)
    assert first.made["reward"] == brief.id
    assert load_artifact(project.artifacts, first.made["policy"]).parents == [brief.id]
    rows = [json.loads(line) for line in (load_artifact(project.artifacts, first.made["policy"]).path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["objective/scores"] < 0 for row in rows)
    assert "brought in from outside" in report(first).read_text()
    second = Turn(project, new=True)
    assert len(weakest_first(second, first.made["samples"]["batch"])) == 60
    assert reward_of_round(second).id == second.made["reward"] == brief.id
    kind = train_reward_model(second)
    again = use_reward_model(second, f"{tmp_path / 'rewards.py'}:brief", Reading())
    assert again.facts["n_reference"] > 50
    assert again.parents == [second.made["dataset"]]
    both = combine_reward_models(second, [f"kind={kind.id}", f"brief={again.id}:0.5"], ["kind:-1:2"])
    assert both.parents == sorted([kind.id, again.id, second.made["dataset"]])
    policy = tune_policy(second)
    row = json.loads((policy.path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"objective/scores/kind", "objective/scores/brief", "objective/scores_lower"} <= row.keys()
    assert row["objective/scores_lower"] < row["objective/scores"]


def test_stages_say_what_they_wait_for(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path / "one", tiny_model)
    turn = Turn(project)
    from truing.rounds import ask_for_feedback, evaluate, tune_policy

    with pytest.raises(UserError, match="truing sample"):
        ask_for_feedback(turn)
    with pytest.raises(UserError, match="truing reward train"):
        tune_policy(turn)
    with pytest.raises(UserError, match="truing tune"):
        evaluate(turn)
    turn.made["policy"] = "policy-0123456789abcdef"  # by dpo or sft, which need no reward model; comparing does, before it draws
    with pytest.raises(UserError, match="truing reward train"):
        evaluate(turn)


def test_a_round_is_finished_as_its_stages_were_typed(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`truing tune --set …` and then `truing round run` keeps the policy that was tuned; another policy after that is no longer what was evaluated."""
    from truing.rounds import tune_policy

    root = make_project(tmp_path / "one", tiny_model).root
    run_round(Turn(open_project(root), seed=7))
    sealed = Turn(open_project(root))
    assert sealed.sealed
    kept = dict(sealed.made)
    chosen = tune_policy(Turn(open_project(root, ["tune.algorithm=rloo", "tune.beta=0.2"])))
    assert chosen.id != kept["policy"]
    assert "what rested on that is no longer its own: evaluation, round" in capsys.readouterr().out
    again = Turn(open_project(root))
    assert not again.sealed
    assert not {"evaluation", "round"} & again.made.keys()
    run_round(again)
    assert "goes by what was typed for its stages: tune.algorithm=rloo, tune.beta=0.2" in capsys.readouterr().out
    assert again.made["policy"] == chosen.id
    assert load_artifact(again.project.artifacts, again.made["evaluation"]).facts["policy"] == chosen.id
    assert Turn(open_project(root)).sealed
    tune_policy(Turn(open_project(root)))  # as truing.toml has it
    plain = Turn(open_project(root))
    run_round(plain)
    assert made(plain) == {stage: kept[stage] for stage in STAGES}


def test_another_seed_than_the_rounds_is_refused_once_it_has_begun(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path / "one", tiny_model)
    assert Turn(project).seed == 1  # by a look, as `truing report` takes one
    turn = Turn(project, seed=5)
    assert turn.seed == 5
    turn.note(prompts={"n": 1})
    assert Turn(project, seed=5).seed == 5
    with pytest.raises(UserError, match="begun with seed 5, not 6"):
        Turn(project, seed=6)


def test_people_are_waited_for(tmp_path: Path, tiny_model: Path) -> None:
    make_project(tmp_path / "one", tiny_model)
    project = open_project(tmp_path / "one", ["round.feedback=people", "feedback.pairs=10"])
    with pytest.raises(UserError, match=r"waits for people: 0 answers are in, \d+ are still wanted"):
        run_round(Turn(project))


def test_a_slip_in_the_last_stage_is_told_before_the_first(tmp_path: Path, tiny_model: Path) -> None:
    make_project(tmp_path / "one", tiny_model)
    turn = Turn(open_project(tmp_path / "one", ["tune.epoch=3"]))
    with pytest.raises(SettingError, match=r"no setting tune\.epoch\n  fix: did you mean `epochs`"):
        run_round(turn)
    assert turn.made == {}


@pytest.mark.slow
def test_kill_at_random_moments_and_the_same_command_gives_the_unbroken_result(tmp_path: Path, tiny_model: Path) -> None:
    """kill -9 at ten random moments of `truing round run`: the final artifacts equal the unbroken run's (fp32).

    That one is run as a user runs it, in a Python of its own; so the forks, which spare the others seconds of loading, are held to its result too.
    """
    make_project(tmp_path / "whole", tiny_model).database.close()
    command = [sys.executable, "-m", "truing", *_round_run(tmp_path / "whole")]
    whole = _artifacts(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=ONE_THREAD).stdout)
    # The moments are parts of what this machine takes, so that a fast one is killed as often as a slow one.
    make_project(tmp_path / "timed", tiny_model).database.close()
    work, found = _finished(tmp_path / "timed")
    overhead, again = _finished(tmp_path / "timed")  # what it takes to start and to find all done
    assert found == again == whole
    work -= overhead
    draw = random.Random(11)
    kills = 0
    for attempt in range(20):
        folder = tmp_path / f"killed-{attempt}"
        make_project(folder, tiny_model).database.close()
        while kills < 10 and _killed(folder, overhead + draw.uniform(0.05, 0.6) * work):
            kills += 1
        assert _finished(folder)[1] == whole
        if kills == 10:
            return
    raise AssertionError(f"only {kills} kills hit a running round")


def _round_run(folder: Path) -> list[str]:
    return ["round", "run", "--seed", "5", "--project", str(folder), "--json"]


def _finished(folder: Path) -> tuple[float, dict[str, str]]:
    """Seconds of the processor, and the artifacts, of a round that is let run to its end."""
    ended = commands.run(*_round_run(folder))
    assert ended.returncode == 0, ended.stderr
    return ended.processor_s, _artifacts(ended.stdout)


def _artifacts(said: str) -> dict[str, str]:
    result = json.loads(said.splitlines()[-1])
    return {stage: result[stage] for stage in STAGES[:4]}


def _killed(folder: Path, seconds: float) -> bool:
    """Kill the command after so many seconds of the processor; False when it got to its end before."""
    ended = commands.run(*_round_run(folder), kill_after_s=seconds)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0
