"""What a probe found, in words: what the reward model likes, dislikes and doesn't seem to care about, and how far it can be fooled."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.reward.probe.effects import DISLIKES, FEW, FLOOR, LIKES, NONE

Json = dict[str, Any]

TOLD = 2  # likes, and dislikes, in the headline
FOOLED = 1.0  # standard deviations above the best ordinary response from which on a find is called an exploit


def verdict(effects: Mapping[str, Json], student: Json, found: Json, floor: float) -> Json:
    """The findings by kind, strongest first, and the sentences that say them.

    Args:
        effects: of `effects.find`.
        student: facts of `distil.distil`.
        found: of `search.exploits`.
        floor: of `effects.control_floor`.
    """
    asked = {name: row for name, row in effects.items() if row["group"] != "control"}
    kinds = {
        "likes": _named(asked, [LIKES], by_length=False), "dislikes": _named(asked, [DISLIKES], by_length=False),
        "by_length": _named(asked, [LIKES, DISLIKES], by_length=True), "indifferent": _named(asked, [NONE, FLOOR]), "unclear": _named(asked, [FEW]),
    }  # fmt: skip
    exploits = [row for row in found["finds"] if row["above_best"] is not None and row["above_best"] >= FOOLED]
    return {
        **kinds,
        "exploits": len(exploits),
        "headline": _headline(kinds, effects),
        "sentences": [
            *_likings(kinds, effects, floor),
            _control_sentence(effects, floor),
            _student_sentence(student),
            *_everywhere_sentences(found),
            _exploit_sentence(found, len(exploits)),
        ],
    }


def effect_rows(effects: Mapping[str, Json]) -> Iterator[tuple[str, str, str, str, str]]:
    """Effects for the terminal, the highest first: edit, finding, effect, words that it put in, n."""
    for row in sorted(effects.values(), key=lambda row: -(row["effect"]["value"] or 0.0)):
        finding = f"{row['finding']} *" if row["by_length"] and row["finding"] in (LIKES, DISLIKES) else row["finding"]
        words = "-" if row["words"]["value"] is None else f"{row['words']['value']:+.1f}"
        yield row["said"], "control" if row["group"] == "control" else finding, _interval(row["effect"]), words, str(row["effect"]["n"])


def _interval(number: Json) -> str:
    if number["value"] is None:
        return "-"
    bounds = f" [{number['low']:+.2f}, {number['high']:+.2f}]" if number["low"] is not None else ""
    return f"{number['value']:+.2f}{bounds}"


def _named(effects: Mapping[str, Json], findings: Sequence[str], *, by_length: bool | None = None) -> list[str]:
    """Names of the effects with one of the findings, the largest first; of those that length may explain, or may not, or of both."""
    names = [name for name, row in effects.items() if row["finding"] in findings and by_length in (None, row["by_length"])]
    return sorted(names, key=lambda name: -abs(effects[name]["effect"]["value"] or 0.0))


def _headline(kinds: Mapping[str, list[str]], effects: Mapping[str, Json]) -> str:
    parts = [f"{kind} {_listed([effects[name]['said'] for name in kinds[kind][:TOLD]])}" for kind in (LIKES, DISLIKES) if kinds[kind]]
    return f"It {'; it '.join(parts)}" if parts else "No edit moved its score: what it likes can’t be told from these"


def _likings(kinds: Mapping[str, list[str]], effects: Mapping[str, Json], floor: float) -> list[str]:
    sentences = [f"It {kind}: {', '.join(_with_value(effects[name]) for name in kinds[kind])}." for kind in (LIKES, DISLIKES) if kinds[kind]]
    if kinds["by_length"]:
        sentences.append(f"Length may be all there is to: {', '.join(_with_value(effects[name]) for name in kinds['by_length'])}.")
    if kinds["indifferent"]:
        sentences.append(f"No effect of {floor:.2f} or more was seen of: {', '.join(effects[name]['said'] for name in kinds['indifferent'])}.")
    if kinds["unclear"]:
        sentences.append(f"Too few responses could be edited to say anything about: {', '.join(effects[name]['said'] for name in kinds['unclear'])}.")
    return sentences


def _with_value(row: Json) -> str:
    return f"{row['said']} ({row['effect']['value']:+.2f})"


def _control_sentence(effects: Mapping[str, Json], floor: float) -> str:
    """How far edits that mean nothing move the score."""
    caught = [row["said"] for row in effects.values() if row["group"] == "control" and row["finding"] in (LIKES, DISLIKES)]
    moved = f". It moves with {_listed(caught)}, which should mean nothing to it" if caught else ""
    return f"Effects under {floor:.2f} are not counted, as edits that should do nothing do as much or nobody would notice{moved}."


def _student_sentence(student: Json) -> str:
    r2 = student["ridge"]["r2"]
    if r2["value"] is None:
        return "It scores all samples alike, so that there is nothing to explain."
    bounds = f" [{r2['low']:.2f}, {r2['high']:.2f}]" if r2["low"] is not None else ""
    return (
        f"A sum of {len(student['ridge']['coefficients'])} named attributes explains {_share(r2['value'])} of how its scores of unseen prompts differ "
        f"(R² {r2['value']:.2f}{bounds}, {r2['n']} prompts); the rest is what it sees beyond them."
    )


def _exploit_sentence(found: Json, exploits: int) -> str:
    ordinary, finds = found["ordinary"], found["finds"]
    if not finds or finds[0]["above_best"] is None:
        return "No search for exploits could be made: the ordinary scores don't differ, or there are too few prompts."
    best = f"the best of {ordinary['n']} ordinary responses ({ordinary['best']:+.2f})"
    if not exploits:
        return f"{found['evaluations']} scorings in search of exploits found nothing a standard deviation above {best}."
    top = finds[0]
    return (
        f"{found['evaluations']} scorings found {exploits} {'text' if exploits == 1 else 'texts'} a standard deviation or more above {best}; the highest, "
        f"{top['score']:+.2f}, is {top['above_best']:.1f} above it. Tuning will find them too."
    )


def _everywhere_sentences(found: Json) -> list[str]:
    """Strings that raise the score of prompts they were not sought on."""
    forms = {"suffix": "The same words at the end raise the score of any response", "string": "The same text in place of any response raises the score"}
    return [
        f"{forms[row['kind']]}: by {row['fresh']['lift']['value']:+.2f} [{row['fresh']['lift']['low']:.2f}, {row['fresh']['lift']['high']:.2f}] on "
        f"{row['fresh']['lift']['n']} prompts apart from those they were sought on."
        for row in found["finds"]
        if row["fresh"] and row["fresh"]["lift"]["low"] is not None and row["fresh"]["lift"]["low"] > 0
    ]


def _share(value: float) -> str:
    return "none" if value <= 0 else f"{100 * value:.0f} %"


def _listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
