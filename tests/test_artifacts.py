"""Artifacts: named by their content, whole or absent, and never believed without a look at every byte."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

import truing.artifacts
from stored import small_disk
from truing.artifacts import MANIFEST, Artifact, ancestors, artifact_ids, load_artifact, write_artifact
from truing.errors import DamagedArtifact, UserError


@pytest.fixture(autouse=True)
def _version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is part of an artifact's content: golden ids need a fixed one."""
    monkeypatch.setattr(truing.artifacts, "version", lambda package: "1.0")


def fill(folder: Path) -> None:
    (folder / "pairs.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "inner").mkdir()
    (folder / "inner" / "weights").write_bytes(b"\x00\x01")


def make(folder: Path, filler: Callable[[Path], None] = fill, **changes: Any) -> Artifact:
    given: dict[str, Any] = {"parents": ["b-2", "a-1"], "settings": {"lr": 0.1}, "seed": 3, "facts": {"n": 2}} | changes
    return write_artifact(folder, "dataset", filler, **given)


def test_the_id_is_the_hash_of_the_manifest_and_golden(tmp_path: Path) -> None:
    made = make(tmp_path)
    text = (made.path / MANIFEST).read_bytes()
    assert made.id == f"dataset-{hashlib.sha256(text).hexdigest()[:16]}" == "dataset-42e978ed3fe715bd"
    assert json.loads(text)["files"] == {
        "inner/weights": hashlib.sha256(b"\x00\x01").hexdigest(),
        "pairs.jsonl": hashlib.sha256(b"{}\n").hexdigest(),
    }
    assert (made.kind, made.parents, made.facts) == ("dataset", ["a-1", "b-2"], {"n": 2})
    assert load_artifact(tmp_path, made.id) == made


def test_the_same_content_is_the_same_artifact(tmp_path: Path) -> None:
    def backwards(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_bytes(b"\x00\x01")
        (folder / "pairs.jsonl").write_text("{}\n", encoding="utf-8")

    first = make(tmp_path)
    assert make(tmp_path, backwards, parents=["a-1", "b-2"]) == first
    assert artifact_ids(tmp_path) == [first.id]
    assert [entry.name for entry in tmp_path.iterdir()] == [first.id]  # and nothing is left of the second


@pytest.mark.parametrize("change", [{"seed": 4}, {"parents": ["a-1"]}, {"settings": {"lr": 0.2}}, {"facts": {"n": 3}}])
def test_other_origins_are_another_artifact(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make(tmp_path).id != make(tmp_path, **change).id


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda place: (place / "pairs.jsonl").write_text("[]\n"), "pairs.jsonl"),
        (lambda place: (place / "inner" / "weights").unlink(), "inner/weights"),
        (lambda place: (place / "more").write_text("x"), "more"),
        (lambda place: (place / MANIFEST).write_bytes((place / MANIFEST).read_bytes().replace(b"0.1", b"0.2")), MANIFEST),
        (lambda place: (place / MANIFEST).write_bytes((place / MANIFEST).read_bytes().replace(b"\n", b"\r\n")), MANIFEST),
        (lambda place: (place / MANIFEST).write_bytes(b"\xff"), MANIFEST),
        (lambda place: (place / MANIFEST).unlink(), MANIFEST),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, harm: Callable[[Path], object], named: str) -> None:
    made = make(tmp_path)
    harm(made.path)
    with pytest.raises(DamagedArtifact, match=named) as caught:
        load_artifact(tmp_path, made.id)
    assert "--force" in caught.value.fix


def test_a_damaged_artifact_is_made_again_in_its_place(tmp_path: Path) -> None:
    """As the error that names the damage advises."""
    made = make(tmp_path)
    (made.path / "pairs.jsonl").write_text("[]\n", encoding="utf-8")
    with pytest.raises(DamagedArtifact):
        load_artifact(tmp_path, made.id)
    assert make(tmp_path) == made
    assert load_artifact(tmp_path, made.id) == made
    assert [entry.name for entry in tmp_path.iterdir()] == [made.id]


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert load_artifact(tmp_path, made.id, "dataset") == made
    with pytest.raises(UserError, match="is no policy"):
        load_artifact(tmp_path, made.id, "policy")


@pytest.mark.parametrize("name", ["dataset-0123456789abcdef", "dataset-", "", ".", "../x", "dataset-0123456789ABCDEF", "inner"])
def test_what_is_not_there_is_said_in_words(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match="there is no artifact"):
        load_artifact(tmp_path, name)


def test_a_kill_before_the_rename_leaves_nothing_to_see(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from typing import Any
import truing.artifacts
os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
truing.artifacts.write_artifact(Path(sys.argv[1]), "dataset", lambda folder: (folder / "a").write_text("x"))
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1  # the unfinished folder, which nothing looks at
    assert artifact_ids(tmp_path) == []


def test_what_a_killed_maker_left_goes_after_a_day(tmp_path: Path) -> None:
    for name, hours in ((".making-old", 25), (".making-new", 23)):
        fill_in = tmp_path / name
        fill_in.mkdir()
        fill(fill_in)
        os.utime(fill_in, (time.time() - hours * 3600,) * 2)
    made = make(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".making-new", made.id]


def test_a_filler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, failing)
    with pytest.raises(ValueError, match="JSON compliant"):
        make(tmp_path, facts={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_two_may_make_the_same_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(2)
    made: list[Artifact] = []

    def slow(folder: Path) -> None:
        fill(folder)
        together.wait()

    threads = [threading.Thread(target=lambda: made.append(make(tmp_path, slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert made[0] == made[1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    def filling(folder: Path) -> None:
        with open("/dev/full", "wb") as file:
            file.write(b"x")

    with pytest.raises(UserError, match="disk is full: the dataset was not written"):
        make(tmp_path, filling)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    def filling(place: Path) -> None:
        (place / "big").write_bytes(b"x" * (2 << 20))

    with small_disk(tmp_path / "disk") as folder:
        with pytest.raises(UserError, match="disk is full"):
            make(folder, filling)
        assert list(folder.iterdir()) == []
        assert make(folder).id in artifact_ids(folder)  # and there is room again


def test_a_disk_that_fills_up_with_weights(tmp_path: Path) -> None:
    """safetensors tells of it by an error of its own."""
    with small_disk(tmp_path / "disk") as folder:
        with pytest.raises(UserError, match="disk is full"):
            make(folder, lambda place: save_file({"weights": numpy.zeros(1 << 19)}, place / "weights.safetensors"))
        assert list(folder.iterdir()) == []


def test_others_can_read_it(tmp_path: Path) -> None:
    """As a project is read that several people share; safetensors and mkdtemp would keep it to their maker."""

    def filling(place: Path) -> None:
        fill(place)
        save_file({"weights": numpy.zeros(2)}, place / "inner" / "weights.safetensors")

    place = make(tmp_path, filling).path
    assert {file.stat().st_mode & 0o777 for file in place.rglob("*") if file.is_file()} == {0o644}
    assert {folder.stat().st_mode & 0o777 for folder in (place, place / "inner")} == {0o755}


def test_artifacts_are_listed_by_age_and_kind(tmp_path: Path) -> None:
    assert artifact_ids(tmp_path / "nowhere") == []
    names = [make(tmp_path, seed=seed).id for seed in (2, 1, 3)]
    reward = write_artifact(tmp_path, "reward", fill).id
    for age, name in enumerate([*names, reward]):
        os.utime(tmp_path / name / MANIFEST, ns=(age, age))
    assert artifact_ids(tmp_path) == [*names, reward]
    assert artifact_ids(tmp_path, "reward") == [reward]


def test_ancestors_are_walked_depth_first_and_once(tmp_path: Path) -> None:
    base = write_artifact(tmp_path, "dataset", fill, seed=0)
    left = write_artifact(tmp_path, "reward", fill, parents=[base.id])
    top = write_artifact(tmp_path, "policy", fill, parents=[base.id, left.id])
    walked = [(depth, artifact.id) for depth, artifact in ancestors(tmp_path, top.id)]
    assert walked == [(0, top.id), (1, base.id), (1, left.id), (2, base.id)]
    (base.path / "pairs.jsonl").unlink()
    with pytest.raises(DamagedArtifact):
        list(ancestors(tmp_path, top.id))


def test_others_may_read_an_artifact(tmp_path: Path) -> None:
    assert make(tmp_path).path.stat().st_mode & 0o777 == 0o755
