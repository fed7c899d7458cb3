"""A terminal chat with a policy."""

import sys
from typing import TYPE_CHECKING

from truing.artifacts import load_artifact
from truing.console import say
from truing.errors import UserError
from truing.rounds import BASE, Turn, policy_loaded
from truing.samples import SampleSettings
from truing.store.ids import seed_from
from truing.store.project import newest_artifact

if TYPE_CHECKING:
    from truing.models.trunk import Trunk

LONGEST = 160  # tokens of an answer


def talk(turn: Turn, policy: str | None) -> None:
    """Read a line, answer it, until an empty line or the end of input. The conversation so far goes with each line."""
    from truing.models.generate import generate

    chosen = policy or _newest(turn)
    if chosen != BASE:
        load_artifact(turn.project.artifacts, chosen, "policy")
    temperature = turn.project.settings(SampleSettings).temperature
    turns: list[dict[str, str]] = []
    with policy_loaded(turn, chosen), turn.trunk.merged(None if chosen == BASE else "policy"):
        say(f"{chosen} is listening; an empty line ends it")
        for number, line in enumerate(sys.stdin):
            if not line.strip():
                break
            turns.append({"role": "user", "content": line.strip()})
            if _forget(turn.trunk, turns):
                say("(the beginning of this conversation is more than the model reads; it is forgotten)")
            seeds = [seed_from(turn.seed, "chat", number)]
            (response,) = generate(turn.trunk, [turn.trunk.prompt_ids(turns)], seeds, max_new_tokens=LONGEST, temperature=temperature)
            text = turn.trunk.text(response.token_ids)
            turns.append({"role": "assistant", "content": text})
            say(text)


def _forget(trunk: "Trunk", turns: list[dict[str, str]]) -> bool:
    """Drop the oldest exchanges until the rest and an answer fit into what the model reads; whether any had to go."""
    before = len(turns)
    while trunk.longest is not None and len(turns) > 2 and len(trunk.prompt_ids(turns)) + LONGEST > trunk.longest:
        del turns[:2]
    return len(turns) < before


def _newest(turn: Turn) -> str:
    try:
        return newest_artifact(turn.project, "policy")
    except UserError:
        say("no policy has been tuned yet, so this is the base")
        return BASE
