"""The stage behind `truing reward use`: somebody's model or function → a reward model of the project, normalised and measured like one trained here."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from truing.artifacts import Artifact, load_artifact
from truing.console import say
from truing.models.trunk import Trunk
from truing.reward.outside.classifier import Reading, open_classifier
from truing.reward.outside.function import open_function
from truing.reward.outside.model import TEMPLATE
from truing.reward.outside.source import Folder, Function
from truing.reward.yardstick import Yardstick, book_of, mark, write_marked, yardstick
from truing.store.project import Project
from truing.store.runs import StageRun, stage_run


def use_reward_model(
    project: Project,
    source: Function | Folder,
    trunk: Trunk,
    *,
    reading: Reading | None = None,
    dataset_id: str | None = None,
    reference_samples: int = 256,
    seed: int,
    round_id: int | None = None,
) -> Artifact:
    """Bring a reward model in, or answer with what the same inputs gave before; when interrupted, it goes on from the scores that it has.

    Args:
        source: a model on this disk, or a Python function, which is run.
        trunk: the project's base model.
        reading: how the model is read.
        dataset_id: a dataset artifact whose held-out preferences it is measured on; None: nothing is measured.
        reference_samples: ordinary answers on which scores get mean 0 and standard deviation 1, at most.
        seed: of the intervals.
        round_id: the round that asks for it.

    Returns:
        an artifact of kind "reward": card.json and held_out.jsonl where there was something to measure on; of a function its source, of a model where it is and
        the hash of every file of it.

    Raises:
        UserError: it can't be opened, gives something else than scores, or the same score to all ordinary answers.
    """
    reading = reading or Reading()
    origin = _function(source) if isinstance(source, Function) else _folder(source, reading)
    with_ = yardstick(project, dataset_id, reference_samples)
    inputs = {"origin": origin, "template": reading.template, "with": with_.key, "model": trunk.fingerprint, "seed": seed}
    with stage_run(project, "reward", inputs, round_id=round_id) as run:
        if not run.answered:
            say(with_.words)
            work = (project, trunk, with_, seed, run)
            made = _from_function(source, *work) if isinstance(source, Function) else _from_folder(source, reading, *work)
            run.result = {"artifact": made.id}
    return load_artifact(project.artifacts, run.result["artifact"])


def _function(source: Function) -> dict[str, Any]:
    sha256 = hashlib.sha256(source.file.read_bytes()).hexdigest()
    return {"source": "function", "name": f"{source.file.name}:{source.name}", "file": source.file.name, "function": source.name, "sha256": sha256}


def _folder(source: Folder, reading: Reading) -> dict[str, Any]:
    return {
        "source": "hub", "name": source.name, "revision": source.revision, "files": source.hashes(), "label": reading.label, "max_tokens": reading.max_tokens,
        "dtype": reading.dtype,
    }  # fmt: skip


def _from_function(source: Function, project: Project, trunk: Trunk, with_: Yardstick, seed: int, run: StageRun) -> Artifact:
    """It is measured as a copy that stands alone, as it will in the artifact: what it would miss there it misses now."""
    with tempfile.TemporaryDirectory(prefix="truing-reward-") as folder:
        copy = Path(shutil.copy(source.file, folder))
        book = book_of(project, open_function(copy, source.name), run)
        marks = mark(project, book, trunk, with_, seed=seed)
        made = write_marked(project, lambda place: _keep(copy, place), _function(source), marks, with_, seed=seed)
    book.done()
    return made


def _keep(file: Path, folder: Path) -> None:
    shutil.copy(file, folder)


def _from_folder(source: Folder, reading: Reading, project: Project, trunk: Trunk, with_: Yardstick, seed: int, run: StageRun) -> Artifact:
    book = book_of(project, open_classifier(source.name, source.path, reading), run)
    marks = mark(project, book, trunk, with_, seed=seed)

    def fill(folder: Path) -> None:
        if reading.template is not None:
            (folder / TEMPLATE).write_text(reading.template, encoding="utf-8")

    made = write_marked(project, fill, _folder(source, reading), marks, with_, seed=seed)
    book.done()
    return made
