"""The responses on which a reward model that is trained here is normalised."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from truing.console import say
from truing.models.trunk import Trunk
from truing.reward.features import Item
from truing.reward.train_pairs import Row, response_of
from truing.store.project import Project
from truing.store.tables import Sample, Split

BASE = "base"


class Candidate(NamedTuple):
    """A response that somebody judged: its prompt, and itself as in pairs.jsonl and said.jsonl."""

    prompt_id: str
    turns: Sequence[Mapping[str, str]]
    response: Row


def responses_of(pairs: Sequence[Row], said: Sequence[Row]) -> list[Candidate]:
    """Both responses of every pair, and all that the train lines of said.jsonl are about."""
    found = [Candidate(row["prompt_id"], row["turns"], row[side]) for row in pairs for side in ("a", "b")]
    return found + [Candidate(row["prompt_id"], row["turns"], response) for row in said if row["split"] == Split.TRAIN for response in row["responses"]]


def reference_responses(project: Project, most: int, judged: Sequence[Candidate], trunk: Trunk) -> list[Item]:
    """Samples of the base for the prompts of judged responses, those first whose features the fit needs anyway; where the base has no two, the judged responses
    themselves.

    Args:
        most: how many.
    """
    turns = {one.prompt_id: one.turns for one in judged}
    known = {one.response["sample_id"] for one in judged}
    with project.database.read() as session:
        drawn = select(Sample.id, Sample.prompt_id, Sample.token_ids).where(Sample.policy_id == BASE, Sample.token_ids.is_not(None))
        found: list[Any] = [row for row in session.execute(drawn) if row.prompt_id in turns and row.token_ids]
    found.sort(key=lambda row: (row.id not in known, row.id))
    items = [(tuple(trunk.prompt_ids(turns[row.prompt_id])), tuple(row.token_ids)) for row in found[:most]]
    if len(items) >= 2:
        if len(items) < most:
            say(f"scores are normalised on {len(items)} samples of the base; {most} were wanted (reward.reference_samples)")
        return items
    say("the base has no samples of the train prompts: scores are normalised on the judged responses themselves")
    own = {one.response["sample_id"]: one for one in judged}
    chosen = [own[sample] for sample in sorted(own)[:most]]
    return [(tuple(trunk.prompt_ids(one.turns)), response_of(one.response, trunk)) for one in chosen]
