"""A made-up dataset whose taste a linear head can read: the better answer holds more of one letter."""

import json
import random
from pathlib import Path
from typing import Any

from truing.artifacts import Artifact, write_artifact
from truing.store.ids import content_id
from truing.store.project import Project

WORDS = ["sun", "moon", "tree", "hill", "lake", "bird", "song", "wind", "door", "lamp"]


def row(prompt: str, a: str, b: str, target: float, *, split: str = "train", weight: float = 1.0, strengths: dict[str, int] | None = None) -> dict[str, Any]:
    """A line of pairs.jsonl; `strengths` is what each annotator said, default one who says what the target says."""
    said = strengths if strengths is not None else {"ann": 0 if target == 0.5 else 1 if target > 0.5 else -1}
    question = content_id(prompt, a, b)
    return {
        "question_id": question,
        "prompt_id": content_id(prompt),
        "split": split,
        "turns": [{"role": "user", "content": prompt}],
        "a": {"sample_id": content_id(prompt, a), "text": a, "token_ids": None, "finished": True},
        "b": {"sample_id": content_id(prompt, b), "text": b, "token_ids": None, "finished": True},
        "target": target,
        "weight": weight,
        "strength": 3 * (2 * target - 1),
        "agreement": 1.0,
        "n_annotators": len(said),
        "judgements": [{"id": f"{question}-{name}", "annotator_id": name, "strength": strength} for name, strength in said.items()],
    }


def letter_rows(pairs: int, *, letter: str = "z", seed: int = 0, held_out: float = 0.3) -> list[dict[str, Any]]:
    """Rows whose preferred answer is the one that ends with `letter`."""
    rng = random.Random(seed)
    rows = []
    for number in range(pairs):
        texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4))) for _ in range(2)]
        good = rng.randrange(2)
        texts[good] += f" {letter * 3}"
        texts[1 - good] += " www"
        split = "held-out" if number < held_out * pairs else "train"
        rows.append(row(f"{rng.choice(WORDS)} {number}?", texts[0], texts[1], float(good == 0), split=split))
    return rows


def said_of(rows: list[dict[str, Any]], kind: str = "pair") -> list[dict[str, Any]]:
    """Lines of said.jsonl with what somebody of the rows' taste says in answers of another kind; of a single response, both are asked about."""
    found = []
    for one in rows:
        first = one["target"] > 0.5
        both = {"pair": {"strength": 2 if first else -2}, "ranking": {"ranks": [1, 2] if first else [2, 1]}}
        each = {"rating": [{"aspects": {"overall": 5 if good else 2}} for good in (first, not first)], "thumbs": [{"up": first}, {"up": not first}]}
        asked = [([one["a"], one["b"]], both[kind])] if kind in both else [([one[side]], answer) for side, answer in zip("ab", each[kind], strict=True)]
        for place, (responses, answer) in enumerate(asked):
            said = [{"id": f"{one['question_id']}-{place}", "annotator_id": "ann", "trust": 1.0, "answer": answer}]
            kept = {name: one[name] for name in ("prompt_id", "split", "turns")}
            found.append(kept | {"question_id": f"{one['question_id']}-{place}", "kind": kind, "responses": responses, "said": said})
    return found


def write_dataset(project: Project, rows: list[dict[str, Any]], said: list[dict[str, Any]] | None = None) -> Artifact:
    """A dataset artifact of these rows; without `said`, what the rows' taste says of each pair."""

    def fill(folder: Path) -> None:
        for name, lines in (("pairs.jsonl", rows), ("said.jsonl", said_of(rows) if said is None else said)):
            ordered = [json.dumps(one, sort_keys=True) for one in sorted(lines, key=lambda one: str(one["question_id"]))]
            (folder / name).write_text("".join(line + "\n" for line in ordered))

    return write_artifact(project.artifacts, "dataset", fill, settings={"preferences": {"nats_a_step": 1.0986}})
