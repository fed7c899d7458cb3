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


def write_dataset(project: Project, rows: list[dict[str, Any]]) -> Artifact:
    """A dataset artifact of these rows."""

    def fill(folder: Path) -> None:
        lines = [json.dumps(one, sort_keys=True) for one in sorted(rows, key=lambda one: str(one["question_id"]))]
        (folder / "pairs.jsonl").write_text("".join(line + "\n" for line in lines))

    return write_artifact(project.artifacts, "dataset", fill)
