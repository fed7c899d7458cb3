"""Which combination comes next, which trial to take, and whole sweeps of the tiny model: killed or not, the same trials, none of them made twice."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from sqlalchemy import select

import commands
from truing.config import commented_toml
from truing.policy.settings import TuneSettings
from truing.prompts import PromptSettings, import_prompts
from truing.reward.outside.classifier import Reading
from truing.rounds import Turn, choose_prompts, use_reward_model
from truing.rounds import sample as draw
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Prompt, Run, RunState, Sample, Split
from truing.sweep import search
from truing.sweep.search import Sweep, Trial, best_of, next_choice, run_sweep
from truing.sweep.space import Choice, Space, parse_space
from truing.sweep.trial import Measured, run_trial

OPTIONS = ["tune.lr=1e-3,3e-3,1e-2"]
WORDS = ("tune", "--json", *(word for option in OPTIONS for word in ("--sweep", option)))


# What comes next ---------------------------------------------------------------------------------------------------


def finished(choice: Choice, space: Space, score: float, kl: float, findings: int = 0) -> optuna.trial.FrozenTrial:
    distributions: dict[str, Any] = {key: CategoricalDistribution(values) for key, values in space.values.items()}
    return optuna.create_trial(params=choice, distributions=distributions, values=[score, kl], constraints={"findings": float(findings)})


def chosen(space: Space, wanted: int, seed: int, score: Mapping[float, float]) -> list[Choice]:
    """The combinations that a sweep tries, if a trial's score follows from its lr."""
    done: list[optuna.trial.FrozenTrial] = []
    found = []
    for _ in range(wanted):
        choice = next_choice(space, done, wanted=wanted, seed=seed)
        found.append(choice)
        lr = choice["lr"]
        assert isinstance(lr, float)
        done.append(finished(choice, space, score[lr], 1.0))
    return found


def test_all_are_tried_in_order_and_fewer_by_seed_without_repeats(project: Project) -> None:
    space = parse_space(project, None, ["tune.lr=1e-5,1e-4,1e-3,1e-2", "tune.beta=0.01,0.02,0.05,0.1"])
    flat = dict.fromkeys((1e-5, 1e-4, 1e-3, 1e-2), 0.0)
    assert chosen(space, 16, 0, flat) == space.choices()
    some = chosen(space, 12, 0, flat)
    assert len({tuple(choice.values()) for choice in some}) == 12
    assert some == chosen(space, 12, 0, flat)
    assert some != chosen(space, 12, 1, flat)
    assert some != space.choices()[:12]


def test_fewer_than_all_are_drawn_to_what_scored_high(project: Project) -> None:
    """One of eight lr is good, with twelve ranks each. Of 20 trials chance would give it 2.5."""
    lrs = tuple(10.0**-power for power in range(2, 10))
    space = parse_space(project, None, [f"tune.lr={','.join(map(str, lrs))}", f"tune.rank={','.join(map(str, range(1, 13)))}"])
    score = {lr: float(lr == lrs[3]) for lr in lrs}
    good = [sum(choice["lr"] == lrs[3] for choice in chosen(space, 20, seed, score)) for seed in range(4)]
    assert sum(good) / len(good) > 4


# Which to take -----------------------------------------------------------------------------------------------------


def trial(number: int, each: Sequence[float], kl: float, findings: Sequence[str] = ()) -> Trial:
    score, nats = ({"value": value, "low": None, "high": None, "n": len(each)} for value in (sum(each) / len(each), kl))
    return Trial(number, {"lr": number / 10}, Measured(f"policy-{number}", score, score, nats, 5.0, 0.5, list(each), list(findings)), front=False)


def test_the_cheapest_within_a_standard_error_is_taken() -> None:
    """Against 2, 0, 2, 0 (mean 1): differences 1, 0, 0, 1 have mean 1/2 and standard error 1/sqrt(12) = 0.29; 1, -1, 1, -1 have mean 0; 1, 0, 0, 0 both 1/4."""
    top, behind, within = trial(1, [2, 0, 2, 0], 9.0), trial(2, [1, 0, 2, -1], 1.0), trial(3, [1, 0, 2, 0], 3.0)
    level, low = trial(4, [1, 1, 1, 1], 2.0), trial(0, [0, -1, 0, -1], 0.0).measured
    assert best_of([top, behind, within], low) == within
    assert best_of([top, behind], low) == top
    assert best_of([top, level, within], low) == level
    assert best_of([top, level, within], level.measured) is None, "none leads the base"
    noisy = trial(5, [-3, 2, 3, -1], 0.5)  # behind 5, -2, -1, 1: mean 3/4, standard error 1.55
    assert best_of([top, noisy, within], low) == within, "nothing tells it from the highest, nor from the base"


def test_a_trial_with_a_finding_is_not_taken() -> None:
    hacked, sound = trial(1, [5, 5], 9.0, ["reward hacking"]), trial(2, [1, 1], 1.0)
    base = trial(0, [0, 0], 0.0).measured
    assert best_of([hacked, sound], base) == sound
    assert best_of([hacked], base) is None


# Whole sweeps ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project that has a reward and is still to be tuned."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "rewards.py").write_text("def vowels(prompt, responses):\n    return [sum(text.count(one) for one in 'aeiou') / 8 for text in responses]\n")
    settings: dict[str, dict[str, object]] = {
        "model": {"name": str(tiny_model), "dtype": "fp32"},
        "samples": {"max_new_tokens": 8, "temperature": 1.0},
        "tune": {"algorithm": "rloo", "updates": 2, "samples": 8, "rank": 2, "truncation": "keep", "unfit": True},
        "evaluation": {"per_prompt": 2},
    }
    project = open_project(create_project(folder / "ready", settings=commented_toml(settings)))
    file = folder / "prompts.txt"
    file.write_text("".join(f"Say something kind about number {number}.\n" for number in range(40)))
    import_prompts(project, PromptSettings(), [file])
    turn = Turn(project, seed=3)
    choose_prompts(turn)
    draw(turn)
    use_reward_model(turn, f"{folder / 'rewards.py'}:vowels", Reading())
    project.database.close()
    return project.root


def copied(ready: Path, place: Path) -> Path:
    return Path(shutil.copytree(ready, place))


def swept(root: Path, options: Sequence[str] = OPTIONS, wanted: int | None = None) -> Sweep:
    project = open_project(root)
    return run_sweep(Turn(project), parse_space(project, None, options), wanted)


def last_line(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_an_unbroken_one(ready: Path, tmp_path: Path) -> None:
    """kill -9 at moments of no one's choosing, then the same command: the same trials, each tuned once, and its policy answers."""
    whole, killed = (copied(ready, tmp_path / name) for name in ("whole", "killed"))
    unbroken = commands.run(*WORDS, cwd=whole)
    assert unbroken.returncode == 0, unbroken.stderr
    moments = [random.SystemRandom().uniform(0.1, 0.9) * unbroken.processor_s for _ in range(2)]
    for moment in moments:
        commands.run(*WORDS, cwd=killed, kill_after_s=moment)
    ended = commands.run(*WORDS, cwd=killed)
    assert ended.returncode == 0, ended.stderr
    found = last_line(ended.stdout)
    assert found == last_line(unbroken.stdout), f"killed after {moments} s"
    assert [row["settings"] for row in found["trials"]] == [{"tune.lr": lr} for lr in (1e-3, 3e-3, 1e-2)]
    project = open_project(killed)
    with project.database.read() as session:
        runs = list(session.scalars(select(Run).where(Run.stage == "tune")))
    assert [run.state for run in runs] == [RunState.DONE] * 3
    assert {run.result["policy"] for run in runs} == {row["policy"] for row in found["trials"]}
    assert "policy" not in Turn(project).made, "the round takes no trial up by itself"
    page = (killed / found["report"]).read_text(encoding="utf-8")
    assert all(f"{row['score']['value']:+.2f}".replace("-", "−") in page for row in found["trials"])


@pytest.mark.slow
def test_trials_are_judged_on_held_out_prompts_and_answer_ever_after(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied(ready, tmp_path / "project")
    found = swept(root, wanted=2)
    assert len(found.trials) == 2
    project = open_project(root)
    with project.database.read() as session:
        policies = [trial.measured.policy for trial in found.trials]
        splits = set(session.scalars(select(Prompt.split).join(Sample, Sample.prompt_id == Prompt.id).where(Sample.policy_id.in_(policies))))
    assert splits == {Split.HELD_OUT}
    made: list[float] = []

    def noted(turn: Turn, settings: TuneSettings) -> Measured:
        made.append(settings.lr)
        return run_trial(turn, settings)

    monkeypatch.setattr(search, "run_trial", noted)
    assert swept(root, wanted=2).trials == found.trials
    assert made == []
    assert swept(root).trials[:2] == found.trials, "more of them go on from the ones there are"
    assert len(made) == 1


class Outside(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href") and value and not value.startswith(("data:", "#"))]
        self.found += [tag] if tag == "script" else []


@pytest.mark.slow
def test_the_page_stands_alone_and_a_beta_does_not_judge_itself(ready: Path, tmp_path: Path) -> None:
    root = copied(ready, tmp_path / "project")
    ended = commands.run("tune", "--json", "--sweep", "tune.beta=0,1000", "--set", "tune.lr=1e-9", cwd=root)
    found = last_line(ended.stdout)
    free, dear = (row["score"]["value"] for row in found["trials"])
    assert free == pytest.approx(dear, abs=1e-6), "neither has moved, so that neither scores higher whatever its beta"
    assert found["best"] is None
    assert "take none" in ended.stderr
    page = Outside()
    page.feed((root / found["report"]).read_text(encoding="utf-8"))
    assert page.found == []
