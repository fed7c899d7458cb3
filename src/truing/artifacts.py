"""Artifacts: immutable folders named by the hash of their content.

An artifact is written into a temporary folder beside its place, synced, given its manifest last, and renamed: it is
there whole or not at all. Its id is `kind-` and the first 16 hex digits of the sha256 of the manifest, which holds the
sha256 of every file and the ids of its parents; so an id speaks for everything it came from. Times and speeds stay out
of artifacts: the same inputs and seed give the same id.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from truing.config import full_disk_said, plain_files
from truing.errors import DamagedArtifact, UserError

MANIFEST = "manifest.json"
MAKING = ".making-"  # how the name of a folder starts that is being filled
ABANDONED_SECONDS = 24 * 3600
ID = re.compile(r"[a-z][a-z-]*-[0-9a-f]{16}")


@dataclass(frozen=True)
class Artifact:
    """A folder that passed its check. `manifest` holds kind, files, parents, settings, seed, facts and code version."""

    id: str
    path: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is: dataset, reward, policy, evaluation, round."""
        return str(self.manifest["kind"])

    @property
    def parents(self) -> list[str]:
        """Ids of what it was made from."""
        return list(self.manifest["parents"])

    @property
    def facts(self) -> dict[str, Any]:
        """What its maker measured."""
        return dict(self.manifest["facts"])


def write_artifact(
    folder: Path,
    kind: str,
    fill: Callable[[Path], None],
    *,
    parents: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> Artifact:
    """Make an artifact.

    Args:
        folder: the project's artifacts/.
        kind: the first word of its id.
        fill: writes the files into the empty folder it is given.
        parents: ids of what it was made from.
        settings: all settings that shaped it.
        seed: the seed that shaped it.
        facts: small results worth reading without opening a file; finite JSON values.

    Raises:
        UserError: the disk is full. Nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=MAKING))
    try:
        with full_disk_said(f"the disk is full: the {kind} was not written", fix=f"free some space on the disk of {folder} and type the same command again"):
            with plain_files(temporary):
                fill(temporary)
            manifest = {
                "kind": kind,
                "files": _hashes(temporary),
                "parents": sorted(parents),
                "settings": dict(settings or {}),
                "seed": seed,
                "facts": dict(facts or {}),
                "truing": version("truing"),
            }
            text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            _sync(temporary)
            return _put_in_place(temporary, folder, f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}", json.loads(text))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(made: Path, folder: Path, artifact_id: str, manifest: dict[str, Any]) -> Artifact:
    """What was made, under its name. Where the same content was made before the first is kept if it proves whole, and gives way if it is damaged."""
    place = folder / artifact_id
    try:
        os.rename(made, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        try:
            return load_artifact(folder, artifact_id)
        except DamagedArtifact:
            aside = Path(tempfile.mkdtemp(dir=folder, prefix=MAKING))
            os.rename(place, aside / artifact_id)
            os.rename(made, place)
            shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(folder)
    return Artifact(artifact_id, place, manifest)


def load_artifact(folder: Path, artifact_id: str, kind: str | None = None) -> Artifact:
    """Open an artifact and check every byte of it.

    Args:
        kind: that it must be of.

    Raises:
        UserError: there is no such artifact, or it is of another kind.
        DamagedArtifact: a file is missing, added or changed.
    """
    place = folder / artifact_id
    if not ID.fullmatch(artifact_id) or not place.is_dir():
        raise UserError(
            f"there is no artifact {artifact_id} in {folder}", fix="`truing lineage` lists the ones there are; one that is gone is made again with --force"
        )
    if kind is not None and artifact_id.rpartition("-")[0] != kind:
        raise UserError(f"{artifact_id} is no {kind}", fix=f"name one that starts with {kind}-; `truing lineage` lists them")
    text = (place / MANIFEST).read_bytes() if (place / MANIFEST).is_file() else b""
    if not hashlib.sha256(text).hexdigest().startswith(artifact_id.rpartition("-")[2]):
        raise DamagedArtifact(f"{place / MANIFEST} is not what it was", fix="restore the folder from a copy, or make it again with --force")
    manifest = json.loads(text)
    found = _hashes(place)
    if found != manifest["files"]:
        wrong = sorted(name for name in found.keys() | manifest["files"].keys() if found.get(name) != manifest["files"].get(name))
        raise DamagedArtifact(
            f"{artifact_id}: {', '.join(wrong)} changed since it was made", fix="restore the folder from a copy, or make it again with --force"
        )
    return Artifact(artifact_id, place, manifest)


def artifact_ids(folder: Path, kind: str | None = None) -> list[str]:
    """Ids of the finished artifacts in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and (entry / MANIFEST).exists()]
    found.sort(key=lambda entry: ((entry / MANIFEST).stat().st_mtime_ns, entry.name))
    return [entry.name for entry in found if kind is None or entry.name.rpartition("-")[0] == kind]


def ancestors(folder: Path, artifact_id: str) -> Iterator[tuple[int, Artifact]]:
    """An artifact and all it came from, depth first, each with its depth; one met twice is walked once."""
    seen: set[str] = set()

    def walk(current: str, depth: int) -> Iterator[tuple[int, Artifact]]:
        artifact = load_artifact(folder, current)
        yield depth, artifact
        if current in seen:
            return
        seen.add(current)
        for parent in artifact.parents:
            yield from walk(parent, depth + 1)

    yield from walk(artifact_id, 0)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what makers that were killed left behind; a folder younger than a day may still be somebody's work."""
    for entry in folder.glob(f"{MAKING}*"):
        with suppress(FileNotFoundError):  # its maker has just finished
            if time.time() - entry.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
