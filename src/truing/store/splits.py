"""Which prompts are learned from and which are kept for honest evaluation: a hash of the text decides, for ever."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

from truing.config import section_class
from truing.store.project import Project
from truing.store.tables import Split

HELD_OUT_SHARE = 0.25  # the default of `prompts.held_out_share`


def normal_text(text: str) -> str:
    """The text as it counts for sameness: NFC, no case, every run of white space one space."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def split_of(text: str, share: float) -> Split:
    """Where a text belongs.

    The sha256 of its normal form gives a point in [0, 1); below `share` it is held out. The same text always gets the same point, so a held-out
    prompt stays held out when the share grows.

    Args:
        text: the prompt's text.
        share: of all texts, how many are held out, in [0, 1).
    """
    digest = hashlib.sha256(normal_text(text).encode("utf-8")).digest()
    return Split.HELD_OUT if int.from_bytes(digest[:8], "big") < share * 2**64 else Split.TRAIN


def split_of_turns(turns: Sequence[Mapping[str, str]], share: float) -> Split:
    """Where a conversation belongs: where its first user turn does.

    Two depths of one conversation, or one question under two system prompts, so never stand on both sides of the line.
    """
    return split_of(next(turn["content"] for turn in turns if turn["role"] == "user"), share)


def held_out_share(project: Project) -> float:
    """The project's `prompts.held_out_share`, for a stage that makes prompts without importing that stage.

    Raises:
        SettingError: the section [prompts] doesn't hold together.
    """
    return float(project.settings(section_class("prompts")).model_dump()["held_out_share"])
