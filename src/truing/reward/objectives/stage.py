"""The stage behind `truing reward combine`: several reward models → one, normalised and measured like one that was trained here."""

from collections.abc import Mapping, Sequence
from typing import Any

from truing.artifacts import Artifact, load_artifact
from truing.console import say
from truing.models.trunk import Trunk
from truing.reward.objectives.model import CombinedModel, open_parts
from truing.reward.objectives.weighing import Floor, Objective, require_sound
from truing.reward.score import AnyRewardModel, RewardModel
from truing.reward.scoring import asks
from truing.reward.yardstick import book_of, mark, write_marked, yardstick
from truing.store.project import Project
from truing.store.runs import stage_run


def combine_reward_models(
    project: Project,
    objectives: Sequence[Objective],
    floors: Sequence[Floor],
    trunk: Trunk,
    *,
    dataset_id: str | None = None,
    reference_samples: int = 256,
    seed: int,
    round_id: int | None = None,
) -> Artifact:
    """Make one reward model of several, or answer with what the same inputs gave before; when interrupted, it goes on from the scores that it has.

    Args:
        objectives, floors: what is weighed, and what is held to a threshold.
        trunk: the project's base model.
        dataset_id: a dataset artifact whose held-out preferences it is measured on; None: nothing is measured.
        reference_samples: ordinary answers on which scores get mean 0 and standard deviation 1, at most.
        seed: of the intervals.
        round_id: the round that asks for it.

    Returns:
        an artifact of kind "reward" whose parents are the parts and the dataset; card.json and held_out.jsonl where there was something to measure on.

    Raises:
        UserError: objectives and floors don't make a score, a part can't be opened, or all ordinary answers get the same score.
    """
    require_sound(objectives, floors)
    with_ = yardstick(project, dataset_id, reference_samples)
    facts = {"source": "combined", "objectives": [one._asdict() for one in objectives], "at_least": [one._asdict() for one in floors]}
    with stage_run(project, "reward", {**facts, "with": with_.key, "model": trunk.fingerprint, "seed": seed}, round_id=round_id) as run:
        if not run.answered:
            say(with_.words)
            parts = open_parts(project, objectives, trunk)
            whole = CombinedModel("", parts, objectives, floors)
            try:
                members = max(members_of(project, objective.reward) for objective in objectives)
                book = book_of(project, asks(whole), run)
                marks = mark(project, book, trunk, with_, members=members, nats=nats_of(objectives, parts), seed=seed)
            finally:
                whole.close()
            ids = sorted({objective.reward for objective in objectives})
            run.result = {"artifact": write_marked(project, lambda folder: None, facts, marks, with_, seed=seed, parents=ids).id}
            book.done()
    return load_artifact(project.artifacts, run.result["artifact"])


def members_of(project: Project, reward_id: str) -> int:
    """How many members the ensemble behind a reward model has."""
    facts: dict[str, Any] = load_artifact(project.artifacts, reward_id).facts
    return int(facts["members"])


def nats_of(objectives: Sequence[Objective], parts: Mapping[str, AnyRewardModel]) -> float | None:
    """Log-odds that a difference of 1 in the weighted sum stands for; None where no part learned from the project's judgements: then it is fitted on them.

    As a logarithmic pool of the parts' chances with the weights' shares as exponents has it, if all parts had the same unit: the weights' mean of the units,
    over the sum of the weights. A unit fitted on judgements that a part learned from would be too sure of itself.
    """
    if not any(_learned_here(part) for part in parts.values()):
        return None
    known = [(objective.weight, unit) for objective in objectives if objective.weight and (unit := parts[objective.name].nats) is not None]
    if not known:
        return None
    return sum(weight * unit for weight, unit in known) / sum(weight for weight, _ in known) / sum(objective.weight for objective in objectives)


def _learned_here(part: AnyRewardModel) -> bool:
    return isinstance(part, RewardModel) or (isinstance(part, CombinedModel) and any(_learned_here(one) for one in part.parts.values()))
