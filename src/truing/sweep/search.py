"""A sweep: tuning runs that differ in a few settings, one after the other, and which of them to take.

Optuna keeps the trials, in `sweeps.db` of the project. A trial is written there once it is whole, and what to try next follows from the whole ones and the
seed: so a sweep that was killed goes on as if it hadn't been.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection

from truing.console import say
from truing.evaluation.winrate import EvaluationSettings
from truing.rounds import BASE, Turn
from truing.samples import SampleSettings, count_samples, prompts_of
from truing.store.ids import content_id, seed_from
from truing.sweep.space import Choice, Space, in_words
from truing.sweep.trial import Measured, measure, run_trial

STORE = "sweeps.db"
STARTUP = 4  # trials drawn at random before TPE learns from them
DRAWS = 100  # of TPE, before an untried combination is taken in its place
GOALS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # score, KL


class Trial(NamedTuple):
    """A finished trial.

    Attributes:
        number: from 1, in the order tried.
        choice: what the swept keys were.
        measured: what came of it.
        front: whether no other trial without a finding has both a higher score and less KL.
    """

    number: int
    choice: Choice
    measured: Measured
    front: bool


class Sweep(NamedTuple):
    """A sweep as far as it went.

    Attributes:
        name: of the study in `sweeps.db`.
        base: what the base's answers to the same prompts are worth.
        best: the trial to take, or None where no trial without a finding can be told from the base.
    """

    name: str
    space: Space
    base: Measured
    trials: list[Trial]
    best: Trial | None

    def ranked(self) -> list[Trial]:
        """The trials, the highest score first."""
        return sorted(self.trials, key=lambda trial: -trial.measured.score["value"])


def run_sweep(turn: Turn, space: Space, wanted: int | None) -> Sweep:
    """Try combinations until so many were tried; those that an earlier call tried count.

    Args:
        wanted: how many; None, or as many as there are or more: all of them, in order. Fewer are chosen by TPE (Bergstra et al. 2011; for two goals Ozaki et
            al. 2022), which is drawn to combinations near the front of score against KL and away from those with a finding.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, storage = _name(turn, space), f"sqlite:///{turn.project.root.absolute() / STORE}"
    if turn.project.force and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, directions=GOALS, load_if_exists=True)
    wanted = min(wanted or len(space.settings), len(space.settings))
    distributions = {key: CategoricalDistribution(values) for key, values in space.values.items()}
    while len(done := study.get_trials(deepcopy=False)) < wanted:
        choice = next_choice(space, done, wanted=wanted, seed=turn.seed_of("sweep"))
        say(f"trial {len(done) + 1} of {wanted}: {in_words(choice)}")
        measured = run_trial(turn, next(settings for settings in space.settings if space.choice(settings) == choice))
        study.add_trial(
            optuna.create_trial(
                params=choice, distributions=dict(distributions), values=[measured.score["value"], measured.kl_nats["value"]],
                user_attrs=measured._asdict(), constraints={"findings": float(len(measured.findings))},
            )
        )  # fmt: skip
    if "base" not in study.user_attrs:
        study.set_user_attr("base", measure(turn, BASE, [])._asdict())
    front = {trial.number for trial in study.best_trials}
    trials = [Trial(one.number + 1, dict(one.params), Measured(**one.user_attrs), one.number in front) for one in study.get_trials(deepcopy=False)]
    base = Measured(**study.user_attrs["base"])
    return Sweep(name, space, base, trials, best_of(trials, base))


def next_choice(space: Space, done: Sequence[optuna.trial.FrozenTrial], *, wanted: int, seed: int) -> Choice:
    """The combination to try after these: the first untried one where all are wanted, else the first untried one that TPE draws.

    It follows from the arguments alone.
    """
    tried = {content_id(trial.params): trial for trial in done}
    left = {content_id(choice): choice for choice in space.choices() if content_id(choice) not in tried}
    if wanted < len(space.settings):
        sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed_from(seed, len(done)) % 2**32)
        study = optuna.create_study(directions=GOALS, sampler=sampler)
        study.add_trials(done)
        for _ in range(DRAWS):
            drawn = study.ask({key: CategoricalDistribution(values) for key, values in space.values.items()})
            place = content_id(drawn.params)
            if place in left:
                return left[place]
            for name, value in tried[place].constraints.items():
                drawn.set_constraint(name, value)
            study.tell(drawn, tried[place].values)  # it would give the same again
    return next(iter(left.values()))


def best_of(trials: Sequence[Trial], base: Measured) -> Trial | None:
    """Of the trials without a finding that lead the base, the one with the least KL among those whose score can't be told from the highest of them. What is
    told apart is more than one standard error apart, prompt by prompt (the rule of Breiman et al. 1984, section 3.4.3)."""
    ahead = [trial for trial in trials if not trial.measured.findings and not _as_good(base, trial.measured)]
    if not ahead:
        return None
    top = max((trial.measured for trial in ahead), key=lambda measured: measured.score["value"])
    return min((trial for trial in ahead if _as_good(trial.measured, top)), key=lambda trial: trial.measured.kl_nats["value"])


def _as_good(other: Measured, top: Measured) -> bool:
    differences = np.subtract(top.each, other.each)
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return bool(differences.mean() <= error)


def _name(turn: Turn, space: Space) -> str:
    """Of all that a trial depends on, but for how many are wanted."""
    project, sampling, per_prompt = turn.project, turn.project.settings(SampleSettings), turn.project.settings(EvaluationSettings).per_prompt
    return content_id(
        "sweep", turn.trunk.fingerprint, turn.needs("reward", "truing reward train"), turn.made.get("dataset"), turn.parent_policy, turn.seed,
        [prompt.id for prompt in prompts_of(project)], count_samples(project).get("people", 0), per_prompt, sampling.model_dump(),
        {key: list(values) for key, values in space.values.items()}, [settings.model_dump() for settings in space.settings], length=16,
    )  # fmt: skip


def as_json(sweep: Sweep) -> dict[str, Any]:
    """What `truing tune --sweep --json` prints."""

    def row(measured: Measured) -> dict[str, Any]:
        return {key: value for key, value in measured._asdict().items() if key != "each"}

    return {
        "sweep": sweep.name,
        "base": row(sweep.base),
        "trials": [
            {"number": trial.number, "settings": {f"tune.{key}": value for key, value in trial.choice.items()}, "front": trial.front, **row(trial.measured)}
            for trial in sweep.trials
        ],
        "best": None if sweep.best is None else sweep.best.number,
    }
