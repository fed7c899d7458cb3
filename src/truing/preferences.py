"""Judgements → preferences: graded, weighted, frozen in a dataset artifact.

A dataset is two files: said.jsonl has what people said, as they said it, with the trust in each; pairs.jsonl what it comes to for each two responses.

A dataset is a pure function of the log, the settings and the trust of the annotators. In what order judgements came
plays no part; one that was superseded, or sent twice, counts once; skips and "both bad" never become a preference;
check questions and questions asked again never enter.

One judgement of strength s says that A is preferred with probability 1 / (1 + exp(-k s)): the Bradley-Terry probability
of a lead of k s nats. With k = ln 3, each step of strength triples the odds: 3 : 1, 9 : 1, 27 : 1, a tie 1 : 1. The
target of two responses is the trust-weighted mean of what their judgements say and of a pseudo-vote for "even": disagreement
softens the target, and so does having only distrusted people. Their weight is the sum of the judgements' trust times share:

    pair      strength as given, share 1
    ranking   each two of its n responses: one step, or a tie; share 2 / n, so that a ranking weighs n - 1 comparisons, as many as its choices
    rating    each two responses of a prompt that one person rated: a step for each point between them, up to three, by the aspect "overall", or the mean
              of the aspects both have; share 2 / m of m rated, as for a ranking
    edit      the person's own version over the original: one step, share 1
    thumbs    each two responses of a prompt whose trust-weighted shares of thumbs up differ: of the shares with the pseudo-vote, u_A - u_B steps, so that an
              up against a down is one; weight 2 W_A W_B / (W_A + W_B) of the trust behind each, times 2 / m of m responses

The target is the mean of the votes and not the joint model's posterior, though that is the better forecast of one more vote (0.52
against 0.58 nats on 1,673 of a real crowd's: benchmarks/studio/trust_crowds.py): it knows a pair by all pairs that share a response with it.
A reward model pools over responses by itself: fitted to the posterior it was no better on simulated crowds with careless people, and 1.2 points
worse without (trust_simulated.py). And a target should say what people said of these two responses, not what a model made of others.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.console import say
from truing.errors import UserError
from truing.store.clock import now
from truing.store.ids import canonical, content_id
from truing.store.judgements import batches, current_judgements
from truing.store.project import Project, record_artifact
from truing.store.runs import stage_run
from truing.store.tables import Dataset, Judgement, Kind, Prompt, Question, QuestionSample, Sample, Split

PAIRS, SAID, QUALITY = "pairs.jsonl", "said.jsonl", "quality.json"
STRONGEST = 3.0
OVERALL = "overall"  # the aspect that speaks for a rating


class PreferenceSettings(Settings):
    """How judgements become training targets."""

    nats_a_step: float = Field(1.0986, gt=0, description="log-odds that one step of strength stands for; ln 3 triples the odds")
    smoothing: float = Field(0.1, ge=0, description="weight of a pseudo-vote for even, in units of a fully trusted judgement")


@dataclass
class Asked:
    """A question with what stands of its judgements."""

    id: str
    prompt: Prompt
    samples: list[Sample]  # A, B, ...
    judgements: list[Judgement] = field(default_factory=list)  # neither skips nor "both bad"
    kind: str = Kind.PAIR
    edits: dict[str, Sample] = field(default_factory=dict)  # judgement → the version it made


class Vote(NamedTuple):
    """What one judgement says of two responses."""

    annotator_id: str
    judgement: str
    strength: float  # -3..3, > 0: A
    share: float = 1.0  # of the annotator's trust


class Compared(NamedTuple):
    """Two responses of a prompt with all that was said of them."""

    question_id: str
    prompt: Prompt
    a: Sample
    b: Sample
    votes: list[Vote]


def build_preferences(
    project: Project, settings: PreferenceSettings, quality: Mapping[str, Any], *, round_ids: Sequence[int] | None, seed: int, round_id: int | None = None
) -> Artifact:
    """Freeze what the judgements of some rounds say, and record it as the next version of the dataset.

    Args:
        quality:   plain data with "annotators": a list of {"id", "trust", ...}, trust in (0, 1]; kept in the artifact.
        round_ids: of these rounds; None: of all, imported judgements included.
        seed:      goes into the manifest; nothing here is drawn.
        round_id:  the round that asks for it.

    Raises:
        UserError: nothing was judged, or `quality` says nothing of someone who judged.
    """
    with project.database.read() as session:
        asked, passed_over = _read(session, round_ids)
    trust = {one["id"]: float(one["trust"]) for one in quality["annotators"]}
    rows, said = to_rows(asked, trust, settings), said_rows(asked, trust)
    if not said:
        raise UserError("no judgement says what is better yet", fix="collect some with `truing annotate --simulated`, or bring some with `truing import FILE`")
    if not rows:
        say("no two responses to one prompt were judged against each other: only reward.learn_from=judgements can learn from this")
    facts = _facts(rows) | {"said": sum(len(row["said"]) for row in said)} | passed_over
    inputs = {
        "rounds": None if round_ids is None else list(round_ids),
        "seed": seed,
        "settings": settings.model_dump(),
        "quality": dict(quality),
        "rows": content_id(rows),
        "said": content_id(said),
        "facts": facts,
    }
    with stage_run(project, "preferences", inputs, round_id=round_id) as run:
        if not run.answered:
            shaped_by = {"preferences": settings.model_dump()}
            fill = partial(_fill, rows=rows, said=said, quality=quality)
            artifact = write_artifact(project.artifacts, "dataset", fill, settings=shaped_by, seed=seed, facts=facts)
            record_artifact(project, artifact.id, artifact.manifest)
            _number(project, artifact.id, max(round_ids) if round_id is None and round_ids else round_id)
            run.result = {"dataset": artifact.id} | facts
    return load_artifact(project.artifacts, run.result["dataset"])


def to_rows(asked: Sequence[Asked], trust: Mapping[str, float], settings: PreferenceSettings) -> list[dict[str, Any]]:
    """One preference for each two responses that have one, sorted by question id; `weight` has mean 1."""
    unknown = sorted({row.annotator_id for question in asked for row in question.judgements} - trust.keys())
    if unknown:
        raise UserError(f"quality control says nothing of annotator {unknown[0]}, who judged", fix="measure again with `truing quality`")
    answered = sorted((question for question in asked if question.judgements), key=lambda question: question.id)
    by_kind: dict[str, list[Asked]] = defaultdict(list)
    for question in answered:
        by_kind[question.kind].append(question)
    parts = ((Kind.PAIR, _pairs), (Kind.RANKING, _rankings), (Kind.EDIT, _edits), (Kind.RATING, _ratings))
    rows = [_row(compared, trust, settings) for kind, split in parts for compared in split(by_kind[kind])]
    rows += _thumbs(by_kind[Kind.THUMBS], trust, settings)
    mean = math.fsum(row["weight"] for row in rows) / len(rows) if rows else 1.0
    return sorted((row | {"weight": row["weight"] / mean} for row in rows), key=lambda row: str(row["question_id"]))


def said_rows(asked: Sequence[Asked], trust: Mapping[str, float]) -> list[dict[str, Any]]:
    """A line of said.jsonl for each question with judgements, sorted by its id: its responses, and what each person said, as they said it.

    An edit that made a version is a line of its own, about the person's version and the original; one that left the text as it was says nothing.
    Flags and comments stay behind.
    """
    rows = []
    for question in asked:
        if question.kind == Kind.EDIT:
            for row in question.judgements:
                if row.id in question.edits:
                    rows.append(_told(f"{question.id}/{row.id}", question, [question.edits[row.id], question.samples[0]], [row], trust))
        elif question.judgements:
            rows.append(_told(question.id, question, question.samples, sorted(question.judgements, key=lambda row: row.id), trust))
    return sorted(rows, key=lambda row: str(row["question_id"]))


def _told(name: str, question: Asked, samples: Sequence[Sample], judgements: Sequence[Judgement], trust: Mapping[str, float]) -> dict[str, Any]:
    said = [
        {
            "id": row.id,
            "annotator_id": row.annotator_id,
            "trust": trust[row.annotator_id],
            "answer": {key: value for key, value in row.answer.items() if key not in ("flags", "comment")},
        }
        for row in judgements
    ]
    return {
        "question_id": name,
        "kind": question.kind,
        "prompt_id": question.prompt.id,
        "split": question.prompt.split,
        "turns": question.prompt.turns,
        "responses": [_response(sample) for sample in samples],
        "said": said,
    }


def soft_vote(strength: float, settings: PreferenceSettings) -> float:
    """Probability that A is preferred, by one judgement of this strength, in (0, 1); a tie is 1/2."""
    return 1 / (1 + math.exp(-settings.nats_a_step * strength))


# ---- what each kind of question says of two responses ----


def _pairs(asked: Iterable[Asked]) -> Iterator[Compared]:
    for question in asked:
        votes = [Vote(row.annotator_id, row.id, row.answer["strength"]) for row in question.judgements]
        yield Compared(question.id, question.prompt, question.samples[0], question.samples[1], votes)


def _rankings(asked: Iterable[Asked]) -> Iterator[Compared]:
    for question in asked:
        share = 2 / len(question.samples)
        for i, j in _different(question.samples):
            ranks = [(row, row.answer["ranks"]) for row in question.judgements]
            votes = [Vote(row.annotator_id, row.id, _sign(found[j] - found[i]), share) for row, found in ranks]
            yield Compared(f"{question.id}/{i}/{j}", question.prompt, question.samples[i], question.samples[j], votes)


def _edits(asked: Iterable[Asked]) -> Iterator[Compared]:
    for question in asked:
        for row in question.judgements:
            if row.id in question.edits:
                yield Compared(f"{question.id}/{row.id}", question.prompt, question.edits[row.id], question.samples[0], [Vote(row.annotator_id, row.id, 1)])


def _ratings(asked: Iterable[Asked]) -> Iterator[Compared]:
    for questions in _by_prompt(asked):
        rated = Counter(row.annotator_id for question in questions for row in question.judgements)
        given = [{row.annotator_id: row for row in question.judgements} for question in questions]
        for i, j in _different([question.samples[0] for question in questions]):
            both = [(who, given[i][who], given[j][who]) for who in sorted(given[i].keys() & given[j].keys())]
            steps = [(who, one, other, _points_between(one.answer["aspects"], other.answer["aspects"])) for who, one, other in both]
            votes = [Vote(who, f"{one.id}+{other.id}", step, 2 / rated[who]) for who, one, other, step in steps if step is not None]
            if votes:
                one, other = questions[i], questions[j]
                yield Compared(f"{one.id}+{other.id}", one.prompt, one.samples[0], other.samples[0], votes)


def _points_between(one: Mapping[str, int], other: Mapping[str, int]) -> float | None:
    """By how many points a rating is above another, at most three; None where they share no aspect."""
    shared = sorted(one.keys() & other.keys())
    aspects = [OVERALL] if OVERALL in shared else shared
    if not aspects:
        return None
    return _within(sum(one[aspect] - other[aspect] for aspect in aspects) / len(aspects))


def _thumbs(asked: Iterable[Asked], trust: Mapping[str, float], settings: PreferenceSettings) -> list[dict[str, Any]]:
    rows = []
    for questions in _by_prompt(asked):
        mass = [math.fsum(trust[row.annotator_id] for row in question.judgements) for question in questions]
        ups = [math.fsum(trust[row.annotator_id] for row in question.judgements if row.answer["up"]) for question in questions]
        said = [up / total for up, total in zip(ups, mass, strict=True)]
        shares = [(up + settings.smoothing / 2) / (total + settings.smoothing) for up, total in zip(ups, mass, strict=True)]
        for i, j in _different([question.samples[0] for question in questions]):
            if not math.isclose(said[i], said[j], abs_tol=1e-9):  # where people said the same, only how much they are trusted would differ: no preference
                one, other = questions[i], questions[j]
                votes = _thumb_votes(one, 1) + _thumb_votes(other, -1)
                lead, weight = shares[i] - shares[j], 2 * mass[i] * mass[j] / (mass[i] + mass[j]) * 2 / len(questions)
                compared = Compared(f"{one.id}+{other.id}", one.prompt, one.samples[0], other.samples[0], votes)
                rows.append(_described(compared, target=soft_vote(lead, settings), weight=weight, strength=lead))
    return rows


def _thumb_votes(question: Asked, sign: int) -> list[Vote]:
    return [Vote(row.annotator_id, row.id, sign if row.answer["up"] else -sign) for row in question.judgements]


def _by_prompt(asked: Iterable[Asked]) -> Iterator[list[Asked]]:
    """Questions about one response each, by their prompt."""
    groups: dict[str, list[Asked]] = defaultdict(list)
    for question in asked:
        groups[question.prompt.id].append(question)
    return iter(groups.values())


def _different(samples: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Places of each two samples that read differently."""
    return ((i, j) for i, j in combinations(range(len(samples)), 2) if samples[i].text.strip() != samples[j].text.strip())


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _within(strength: float) -> float:
    return max(-STRONGEST, min(STRONGEST, strength))


# ---- a row of the dataset ----


def _row(compared: Compared, trust: Mapping[str, float], settings: PreferenceSettings) -> dict[str, Any]:
    said = sorted(compared.votes)
    total = math.fsum(trust[vote.annotator_id] for vote in said)
    for_a = math.fsum(trust[vote.annotator_id] * soft_vote(vote.strength, settings) for vote in said)
    mean_strength = math.fsum(trust[vote.annotator_id] * vote.strength for vote in said) / total
    weight = math.fsum(trust[vote.annotator_id] * vote.share for vote in said)
    target = (for_a + settings.smoothing / 2) / (total + settings.smoothing)
    return _described(compared, target=target, weight=weight, strength=_within(mean_strength))  # a rounding may overshoot


def _described(compared: Compared, *, target: float, weight: float, strength: float) -> dict[str, Any]:
    """A line of pairs.jsonl. A rating's vote goes by two judgements, whose ids are joined by a plus."""
    said = sorted(compared.votes)
    signs = [_sign(vote.strength) for vote in said]
    return {
        "question_id": compared.question_id,
        "prompt_id": compared.prompt.id,
        "split": compared.prompt.split,
        "turns": compared.prompt.turns,
        "a": _response(compared.a),
        "b": _response(compared.b),
        "target": target,
        "weight": weight,
        "strength": strength,
        "agreement": max(signs.count(sign) for sign in (-1, 0, 1)) / len(signs),
        "n_annotators": len({vote.annotator_id for vote in said}),
        "judgements": [{"id": vote.judgement, "annotator_id": vote.annotator_id, "strength": vote.strength} for vote in said],
    }


def _response(sample: Sample) -> dict[str, Any]:
    return {"sample_id": sample.id, "text": sample.text, "token_ids": sample.token_ids, "finished": sample.finished}


def _facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(rows),
        "train": sum(row["split"] == Split.TRAIN for row in rows),
        "held_out": sum(row["split"] == Split.HELD_OUT for row in rows),
        "ties": sum(all(said["strength"] == 0 for said in row["judgements"]) for row in rows),
        "judgements": len({one for row in rows for said in row["judgements"] for one in said["id"].split("+")}),
        "annotators": len({said["annotator_id"] for row in rows for said in row["judgements"]}),
    }


def _fill(folder: Path, rows: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]) -> None:
    for name, lines in ((PAIRS, rows), (SAID, said)):
        (folder / name).write_bytes(b"".join(canonical(line) + b"\n" for line in lines))
    text = json.dumps(quality, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / QUALITY).write_text(text, encoding="utf-8")


def _number(project: Project, artifact_id: str, round_id: int | None) -> None:
    """Record the dataset as the next version, unless it is one already."""
    with project.database.write() as session:
        if session.get(Dataset, artifact_id) is None:
            newest = session.scalar(select(func.max(Dataset.version))) or 0
            session.add(Dataset(artifact_id=artifact_id, round_id=round_id, version=newest + 1, created_at=now()))


def _read(session: Session, round_ids: Sequence[int] | None) -> tuple[list[Asked], dict[str, int]]:
    """The questions that are neither checks nor repeats, each with the judgements that stand; and how many of them prefer nothing."""
    query = select(Question, Prompt).join(Prompt).where(Question.repeat_of.is_(None)).order_by(Question.id)
    found = session.execute(query if round_ids is None else query.where(Question.round_id.in_(round_ids))).all()
    plain = {question.id: (question, prompt) for question, prompt in found if question.gold is None}
    samples: dict[str, dict[int, Sample]] = defaultdict(dict)
    for ids in batches(list(plain)):
        members = select(QuestionSample.question_id, QuestionSample.position, Sample).join(Sample).where(QuestionSample.question_id.in_(ids))
        for question, position, sample in session.execute(members):
            samples[question][position] = sample
    asked = {
        name: Asked(name, prompt, [sample for _, sample in sorted(samples[name].items())], kind=question.kind) for name, (question, prompt) in plain.items()
    }
    passed_over = {"skipped": 0, "both_bad": 0}
    for row in current_judgements(session, asked):
        if "skip" in row.answer or "both_bad" in row.answer:
            passed_over["skipped" if "skip" in row.answer else "both_bad"] += 1
        else:
            asked[row.question_id].judgements.append(row)
    _find_edits(session, [question for question in asked.values() if question.kind == Kind.EDIT])
    return list(asked.values()), passed_over


def _find_edits(session: Session, asked: Sequence[Asked]) -> None:
    """Add the versions that edits made. Their samples are named after the judgements (feedback/assignment.py: edit_sample_id)."""
    made = {content_id("edit", row.id): (question, row.id) for question in asked for row in question.judgements if "text" in row.answer}
    for ids in batches(sorted(made)):
        for sample in session.scalars(select(Sample).where(Sample.id.in_(ids))):
            question, judgement = made[sample.id]
            question.edits[judgement] = sample
