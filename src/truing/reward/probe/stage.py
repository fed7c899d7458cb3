"""The probe: what has a reward model learned to like? Edits of real samples, a student that foresees its scores, a search for what fools it.

samples of the base → scores → student → edits by rule and by the base → effects → exploits → a verdict in words → artifact
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import ColumnElement, select, true

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.console import say
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.probe.attributes import Case, measured
from truing.reward.probe.distil import Student, distil
from truing.reward.probe.edits import Edit
from truing.reward.probe.effects import WordsWorth, changes_of, control_floor, effect_of, find, words_worth
from truing.reward.probe.findings import verdict
from truing.reward.probe.interventions import EDITS, Tried, apply_edits
from truing.reward.probe.search import best_of_n, exploits
from truing.reward.probe.steering import INSTRUCTIONS, rewrite
from truing.reward.score import load_reward_model
from truing.reward.scoring import ScoreBook, asks
from truing.store.ids import content_id, seed_from
from truing.store.project import Project, record_artifact
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Prompt, Sample, Split

Json = dict[str, Any]
Rewrite = Callable[[Sequence[Case]], Mapping[str, Tried]]

BASE = "base"
FEWEST_SAMPLES, FEWEST_PROMPTS = 20, 5
TOKENS_TRIED = 400  # of the tokenizer's, to build exploits from beside the words of the samples


class ProbeSettings(Settings):
    """Asking a reward model what it likes."""

    samples: int = Field(400, ge=FEWEST_SAMPLES, description="samples of the base that are scored: what is ordinary, and what the student learns from")
    edited: int = Field(48, ge=8, description="of these, how many are edited by rule, of as many prompts as there are")
    rewritten: int = Field(24, ge=0, description="of these, how many the base model rewrites under each instruction; 0 = none")
    evaluations: int = Field(600, ge=30, description="scorings that the search for exploits may take")


class Probed(NamedTuple):
    """facts: what was found, as JSON values. samples, edits: the lines of samples.jsonl and edits.jsonl."""

    facts: Json
    samples: list[Json]
    edits: list[Json]


def probe(
    book: ScoreBook,
    cases: Sequence[Case],
    settings: ProbeSettings,
    *,
    seed: int,
    rewrite: Rewrite | None = None,
    vocabulary: Sequence[str] = (),
    beat: Callable[..., None] = lambda **facts: None,
) -> Probed:
    """Ask a scorer what it likes; nothing here knows of projects or models.

    Args:
        book: scores of the scorer that is asked.
        cases: ordinary responses; the first of each prompt are edited first.
        seed: of every random choice.
        rewrite: how a model rewrites cases under `INSTRUCTIONS`; None leaves that out.
        vocabulary: pieces of text to build exploits from, beside the words of the cases.
        beat: called often with how far the probe is.
    """
    scores = _scored(book, cases, "probe: scores")
    prompts = [case.prompt_id for case in cases]
    student = distil(*measured(cases), scores, prompts, seed=seed_from(seed, "student"))
    chosen = _one_of_each_prompt_first(cases)[: settings.edited]
    tried: dict[str, Tried] = apply_edits(chosen, cases, seed=seed)
    if rewrite is not None and settings.rewritten:
        tried |= rewrite(chosen[: settings.rewritten])
    effects, worth, edits = _effects(book, tried, student.slope_per_word, seed)
    found = exploits(cases, scores, partial(_scored, book), vocabulary, evaluations=settings.evaluations, seed=seed_from(seed, "exploits"), beat=beat)
    floor = control_floor(effects)
    facts = {
        "effects": effects, "floor": floor, "words_worth": worth._asdict(), "student": student.facts, "exploits": found,
        "best_of_n": best_of_n(scores, prompts, seed=seed), "verdict": verdict(effects, student.facts, found, floor),
        "n_samples": len(cases), "n_prompts": len(set(prompts)), "n_edited": len(chosen),
    }  # fmt: skip
    return Probed(facts, _sample_lines(cases, scores, student), edits)


def probe_reward_model(project: Project, settings: ProbeSettings, reward_id: str, trunk: Trunk, *, seed: int) -> Artifact:
    """Probe a reward model of the project, or answer with what the same inputs gave before; an interrupted probe goes on from the scores it has.

    Returns:
        an artifact of kind "probe": probe.json, samples.jsonl and edits.jsonl, every text with its score.

    Raises:
        UserError: there is no such reward model, it belongs to other weights, or there are too few samples.
    """
    cases = probe_cases(project, settings.samples)
    inputs = {
        "reward": reward_id, "settings": settings.model_dump(mode="json"), "seed": seed, "model": trunk.fingerprint,
        "cases": content_id([[case.prompt_id, case.text, case.finished, case.base_logprob] for case in cases]),
    }  # fmt: skip
    with stage_run(project, "probe", inputs) as run:
        if not run.answered:
            run.result = {"artifact": _make(project, settings, reward_id, trunk, cases, seed, run).id}
    return load_artifact(project.artifacts, run.result["artifact"])


def probe_cases(project: Project, most: int) -> list[Case]:
    """Samples of the base in the store, those of held-out prompts first, and of these the first of every prompt before the second of any; everybody's where
    the base has too few.

    Raises:
        UserError: fewer than 20 samples, or samples of fewer than 5 prompts.
    """
    cases = _stored(project, Sample.policy_id == BASE)
    if not _enough(cases):
        cases = _stored(project, true())
        if _enough(cases):
            say("the base has too few samples: the probe asks about everybody's (draw some with `truing sample`)")
    if not _enough(cases):
        raise UserError(
            f"the probe needs {FEWEST_SAMPLES} samples of {FEWEST_PROMPTS} prompts, found {len(cases)} of {len({case.prompt_id for case in cases})}",
            fix="bring prompts with `truing prompts import FILE` and draw samples with `truing sample`",
        )
    return cases[:most]


def _enough(cases: Sequence[Case]) -> bool:
    return len(cases) >= FEWEST_SAMPLES and len({case.prompt_id for case in cases}) >= FEWEST_PROMPTS


def _stored(project: Project, whose: ColumnElement[bool]) -> list[Case]:
    """Samples with words, each text of a prompt once."""
    columns = (Sample.prompt_id, Prompt.turns, Sample.text, Sample.finished, Sample.base_logprob)
    found: list[Case] = []
    with project.database.read() as session:
        for split in (Prompt.split == Split.HELD_OUT, Prompt.split != Split.HELD_OUT):
            query = select(*columns).join(Prompt, Prompt.id == Sample.prompt_id).where(whose, split).order_by(Prompt.id, Sample.id)
            once = {(row.prompt_id, row.text, row.finished): Case(*row) for row in session.execute(query) if row.text.strip()}
            found += _one_of_each_prompt_first(list(once.values()))
    return found


def _make(project: Project, settings: ProbeSettings, reward_id: str, trunk: Trunk, cases: Sequence[Case], seed: int, run: StageRun) -> Artifact:
    kept = project.root / "cache" / "probe" / f"{run.key[:32]}.json"
    model = load_reward_model(project, reward_id, trunk)
    book = ScoreBook(asks(model), kept, run.progress)
    try:
        probed = probe(
            book, cases, settings, seed=seed, rewrite=lambda chosen: rewrite(trunk, chosen, seed=seed, beat=run.progress),
            vocabulary=some_tokens(trunk, seed=seed), beat=run.progress,
        )  # fmt: skip
    finally:
        book.save()
        model.close()

    def fill(folder: Path) -> None:
        facts = {"reward": reward_id, "model": trunk.name, **probed.facts}
        (folder / "probe.json").write_text(json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        for name, lines in (("samples.jsonl", probed.samples), ("edits.jsonl", probed.edits)):
            (folder / name).write_text("".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    facts = {name: probed.facts["verdict"][name] for name in ("likes", "dislikes", "exploits")} | {"r2": probed.facts["student"]["ridge"]["r2"]}
    artifact = write_artifact(project.artifacts, "probe", fill, parents=[reward_id], settings=settings.model_dump(mode="json"), seed=seed, facts=facts)
    record_artifact(project, artifact.id, artifact.manifest)
    book.done()
    return artifact


def read_probe(artifact: Artifact) -> tuple[Json, list[Json]]:
    """probe.json of a probe, and its samples."""
    facts: Json = json.loads((artifact.path / "probe.json").read_text(encoding="utf-8"))
    return facts, [json.loads(line) for line in (artifact.path / "samples.jsonl").read_text(encoding="utf-8").split("\n") if line]


def some_tokens(trunk: Trunk, *, seed: int) -> list[str]:
    """Some of the tokenizer's own tokens that can be seen: what tuning could say and no sample does."""
    drawn = random.Random(seed_from(seed, "tokens")).sample(range(len(trunk.tokenizer)), min(len(trunk.tokenizer), 2 * TOKENS_TRIED))
    texts = {trunk.text([token]) for token in drawn}
    return sorted(text for text in texts if text.isprintable() and text.strip() and "\ufffd" not in text)[:TOKENS_TRIED]


def _one_of_each_prompt_first(cases: Sequence[Case]) -> list[Case]:
    """The first response of every prompt, then the second, and so on."""
    seen: dict[str, int] = {}
    ranked = []
    for place, case in enumerate(cases):
        seen[case.prompt_id] = seen.get(case.prompt_id, -1) + 1
        ranked.append((seen[case.prompt_id], place))
    return [cases[place] for _, place in sorted(ranked)]


def _scored(book: ScoreBook, cases: Sequence[Case], label: str | None = None) -> list[float]:
    return book([case.answer for case in cases], label)


def _effects(book: ScoreBook, tried: Mapping[str, Tried], slope: float, seed: int) -> tuple[dict[str, Json], WordsWorth, list[Json]]:
    """The effect of every edit with an example of it, what words are worth, and a line for every edited text."""
    _scored(book, [case for found in tried.values() for pair in found.pairs for case in pair], "probe: edits")
    lines = {name: _edit_lines(name, found, book) for name, found in tried.items()}
    scores = {name: ([line["score_before"] for line in rows], [line["score_after"] for line in rows]) for name, rows in lines.items()}
    changes = {name: changes_of(tried[name], *scores[name]) for name in tried}
    worth = words_worth(changes, slope)
    effects = {
        name: effect_of(_edit(name), tried[name], *changes[name], worth=worth, seed=seed_from(seed, "effect", name)) | {"example": _typical(lines[name])}
        for name in tried
    }
    return find(effects), worth, [line for rows in lines.values() for line in rows]


def _edit_lines(name: str, found: Tried, book: ScoreBook) -> list[Json]:
    before, after = (_scored(book, [pair[side] for pair in found.pairs]) for side in (0, 1))
    return [
        {"edit": name, "prompt_id": pair.before.prompt_id, "prompt": pair.before.prompt, "before": pair.before.text, "after": pair.after.text,
         "score_before": one, "score_after": other}
        for pair, one, other in zip(found.pairs, before, after, strict=True)
    ]  # fmt: skip


def _edit(name: str) -> Edit:
    return EDITS[name] if name in EDITS else INSTRUCTIONS[name].edit


def _typical(rows: Sequence[Json]) -> Json | None:
    """The edited text whose score changed by the median."""
    ordered = sorted(rows, key=lambda row: (row["score_after"] - row["score_before"], row["prompt_id"]))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _sample_lines(cases: Sequence[Case], scores: Sequence[float], student: Student) -> list[Json]:
    return [
        {"prompt_id": case.prompt_id, "prompt": case.prompt, "text": case.text, "finished": case.finished, "score": score, "expected": expected}
        for case, score, expected in zip(cases, scores, student.expected, strict=True)
    ]
