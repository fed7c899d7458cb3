"""Two policies' responses to the same prompts, measured: who won, by how much, and what each is like by itself.

Works on rows already read and judged; every interval is drawn over prompts. A measure that lacks its data is None.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from truing.evaluation import metrics
from truing.evaluation.verdict import DIGITS, FEW_PROMPTS, decide, number, sentence
from truing.stats import Interval, bootstrap_mean, wilson
from truing.store.ids import seed_from
from truing.store.tables import Prompt, Sample

Json = dict[str, Any]


class Answer(NamedTuple):
    """A response with what the judges gave it."""

    sample: Sample
    gold: float | None
    score: float | None
    points: float  # what decides a match: gold, or the score where there is no gold

    def as_json(self) -> Json:
        """The response for reading."""
        return {
            "sample_id": self.sample.id,
            "text": self.sample.text,
            "gold": None if self.gold is None else round(self.gold, DIGITS),
            "score": None if self.score is None else round(self.score, DIGITS),
            "words": len(metrics.words(self.sample.text)),
            "finished": self.sample.finished,
        }


Answers = dict[tuple[str, int], Answer]  # by (prompt id, position among the prompt's samples)


class Match(NamedTuple):
    """Two responses to one prompt, and how it ended: 1 ours won, 0 theirs did, 1/2 a tie."""

    prompt: Prompt
    ours: Answer
    theirs: Answer
    outcome: float

    def as_json(self) -> Json:
        """The pair for reading."""
        return {
            "prompt_id": self.prompt.id,
            "topic": self.prompt.facts.get("topic"),
            "prompt": self.prompt.text,
            "ours": self.ours.as_json(),
            "theirs": self.theirs.as_json(),
            "outcome": self.outcome,
        }


class Spread(NamedTuple):
    """Means and shares with their intervals over prompts, all from one seed."""

    confidence: float
    resamples: int
    seed: int

    def mean(self, values: Sequence[float], prompts: Sequence[str]) -> Json:
        """The mean over rows with a percentile bootstrap over prompts."""
        return number(bootstrap_mean(values, groups=prompts, seed=self.seed, resamples=self.resamples, confidence=self.confidence))

    def mean_if_known(self, values: Sequence[float | None], prompts: Sequence[str]) -> Json | None:
        """The mean, or None where any row has no value: a mean over some would be of other prompts than its neighbours'."""
        known = [value for value in values if value is not None]
        return self.mean(known, prompts) if known and len(known) == len(values) else None

    def share(self, values: Sequence[float], prompts: Sequence[str]) -> Json:
        """The share of ones, prompt by prompt, with Wilson's interval."""
        return number(metrics.share_of_groups(values, prompts, self.confidence))


def pair_up(prompts: Mapping[str, Prompt], ours: Answers, theirs: Answers, margin: float) -> list[Match]:
    """The matches of two policies, ordered by prompt id and position; responses that only one of them gave stay out.

    Args:
        margin: points within which two responses tie; the same text always does.
    """
    matches = []
    for key in sorted(ours.keys() & theirs.keys()):
        a, b = ours[key], theirs[key]
        end = metrics.outcome(a.points, b.points, same_text=a.sample.text == b.sample.text, margin=margin)
        matches.append(Match(prompts[key[0]], a, b, end))
    return matches


def describe(spread: Spread, found: Answers, base: Answers | None, kl_nats: Mapping[str, float]) -> Json:
    """One policy's own measures, each a number with bounds and n, or None."""
    prompts = [prompt for prompt, _ in found]
    answers = list(found.values())
    samples = [answer.sample for answer in answers]
    variety = metrics.distinct2(metrics.word_pairs(sample.text for sample in samples))
    return {
        "samples": len(samples),
        "gold": spread.mean_if_known([answer.gold for answer in answers], prompts),
        "score": spread.mean_if_known([answer.score for answer in answers], prompts),
        "tokens": spread.mean_if_known([None if sample.token_ids is None else len(sample.token_ids) for sample in samples], prompts),
        "words": spread.mean([len(metrics.words(sample.text)) for sample in samples], prompts),
        "eos_rate": spread.share([float(sample.finished) for sample in samples], prompts),
        "distinct2": number(Interval(variety, math.nan, math.nan, len(set(prompts)))),
        "distinct2_ratio": None if base is None else _diversity(spread, found, base),
        "base_logprob": spread.mean_if_known([sample.base_logprob for sample in samples], prompts),
        "logprob_gap": None if base is None else _gain(spread, found, base, lambda answer: answer.sample.base_logprob),
        "kl_nats": spread.mean_if_known([kl_nats.get(sample.id) for sample in samples], prompts),
    }


def compare(spread: Spread, other: str, name: str, matches: Sequence[Match], *, independent: bool, shown: int) -> Json:
    """The contest against one opponent: win rate, verdict, second opinions, and pairs drawn by lot for reading.

    Args:
        other:       the opponent's policy id.
        name:        what to call it in a sentence.
        independent: whether the judge is another than the reward model that the policy was tuned to please.
        shown:       how many pairs to draw.
    """
    prompts = [match.prompt.id for match in matches]
    ends = [match.outcome for match in matches]
    # Two wins of two would have a bootstrap interval from 100 % to 100 %.
    win_rate = spread.mean(ends, prompts) if len(set(prompts)) >= FEW_PROMPTS else spread.share(ends, prompts)
    ours = {(match.prompt.id, match.ours.sample.position): match.ours for match in matches}
    theirs = {(match.prompt.id, match.theirs.sample.position): match.theirs for match in matches}
    drawn = random.Random(seed_from("side by side", spread.seed, other)).sample(matches, min(shown, len(matches)))
    return {
        "policy": other,
        "verdict": decide(win_rate, independent=independent),
        "sentence": sentence(win_rate, "the tuned model", name, confidence=spread.confidence, independent=independent),
        "win_rate": win_rate,
        "tally": metrics.tally(ends)._asdict(),
        "gold_gain": _gain(spread, ours, theirs, lambda answer: answer.gold),
        "score_gain": _gain(spread, ours, theirs, lambda answer: answer.score),
        "eos_gain": _gain(spread, ours, theirs, lambda answer: float(answer.sample.finished)),
        **_length(spread, matches),
        "by_topic": _by_topic(spread, matches),
        "side_by_side": [match.as_json() for match in drawn],
    }


def _diversity(spread: Spread, found: Answers, base: Answers) -> Json:
    return number(metrics.diversity_ratio(_texts(found), _texts(base), seed=spread.seed, confidence=spread.confidence))


def _texts(found: Answers) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for (prompt, _), answer in found.items():
        texts.setdefault(prompt, []).append(answer.sample.text)
    return texts


def _gain(spread: Spread, ours: Answers, theirs: Answers, value: Callable[[Answer], float | None]) -> Json | None:
    """The mean difference of a value, ours minus theirs, response by response."""
    keys = [key for key in ours if key in theirs]
    pairs = [(value(ours[key]), value(theirs[key])) for key in keys]
    return spread.mean_if_known([None if a is None or b is None else a - b for a, b in pairs], [prompt for prompt, _ in keys])


def _length(spread: Spread, matches: Sequence[Match]) -> Json:
    """How much longer ours are, in words, and who would win at equal length."""
    lengths = [(len(metrics.words(match.ours.sample.text)), len(metrics.words(match.theirs.sample.text))) for match in matches]
    ours, theirs = (sum(side) for side in zip(*lengths, strict=True))
    equal = metrics.equal_length_win_rate(
        [match.outcome for match in matches],
        [a - b for a, b in lengths],
        groups=[match.prompt.id for match in matches],
        seed=spread.seed,
        resamples=spread.resamples,
        confidence=spread.confidence,
    )
    return {"length_ratio": round(ours / theirs, DIGITS) if theirs else None, "equal_length": number(equal)}


def _by_topic(spread: Spread, matches: Sequence[Match]) -> list[Json]:
    """The win rate on each topic, with Wilson's interval over its prompts: they are few."""
    topics: dict[str, list[Match]] = {}
    for match in matches:
        topic = match.prompt.facts.get("topic")
        if topic is not None:
            topics.setdefault(str(topic), []).append(match)
    rows = []
    for topic, members in sorted(topics.items()):
        means = metrics.group_means([match.outcome for match in members], [match.prompt.id for match in members])
        rows.append({"topic": topic, **number(wilson(sum(means.values()), len(means), spread.confidence))})
    return rows
