"""Samples are drawn once, kept whole, and the same whatever was interrupted."""

import math
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

import truing.samples as samples_module
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.prompts import PromptSettings, import_prompts
from truing.samples import SampleSettings, draw_samples, prompts_of, read_under_base
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.runs import StageRun
from truing.store.tables import Sample

SETTINGS = SampleSettings(max_new_tokens=6, batch_size=3)


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def with_prompts(folder: Path) -> Project:
    project = open_project(create_project(folder, settings=""))
    file = folder / "prompts.txt"
    file.write_text("".join(f"Say {word}.\n" for word in ("hello", "goodbye to a friend", "thanks", "sorry", "welcome")))
    import_prompts(project, PromptSettings(), [file])
    return project


def draw(project: Project, trunk: Trunk, seed: int = 1) -> str:
    return draw_samples(project, SETTINGS, trunk, policy_id="base", prompt_ids=[prompt.id for prompt in prompts_of(project)], per_prompt=2, seed=seed)


def rows(project: Project) -> list[tuple[str, list[int], str]]:
    with project.database.read() as session:
        return [(row.id, row.token_ids or [], row.text) for row in session.scalars(select(Sample).order_by(Sample.id))]


def test_drawn_once_for_the_same_inputs(tmp_path: Path, trunk: Trunk) -> None:
    project = with_prompts(tmp_path)
    batch = draw(project, trunk)
    before = rows(project)
    assert len(before) == 10
    assert draw(project, trunk) == batch
    assert rows(project) == before
    assert draw(project, trunk, seed=2) != batch


def test_an_interrupted_run_goes_on_to_the_same_samples(tmp_path: Path, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_prompts(tmp_path / "whole")
    draw(whole, trunk)
    broken = with_prompts(tmp_path / "broken")
    kept = samples_module._row
    made = []

    def stop_in_the_fifth(*args: object) -> Sample:
        made.append(1)
        if len(made) == 5:
            raise KeyboardInterrupt
        return kept(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(samples_module, "_row", stop_in_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        draw(broken, trunk)
    assert len(rows(broken)) == 3  # one whole batch, nothing of the second
    monkeypatch.undo()
    draw(broken, trunk)
    assert rows(broken) == rows(whole)


def test_kl_of_the_base_from_itself_is_zero(tmp_path: Path, trunk: Trunk) -> None:
    project = with_prompts(tmp_path)
    draw(project, trunk)
    ids = [row[0] for row in rows(project)]
    kl = read_under_base(project, trunk, ids, temperature=SETTINGS.temperature)
    assert set(kl) == set(ids)
    assert max(abs(value) for value in kl.values()) < 1e-3


def test_fluency_is_the_mean_log_probability_at_temperature_one(tmp_path: Path, trunk: Trunk) -> None:
    """What sampling noted on the way equals what reading the finished answer gives, and is not the log-probability at 0.7."""
    project = with_prompts(tmp_path)
    draw(project, trunk)
    with project.database.write() as session:
        noted = {row.id: row.base_logprob for row in session.scalars(select(Sample))}
        for row in session.scalars(select(Sample)):
            row.base_logprob = None
    read_under_base(project, trunk, list(noted), temperature=SETTINGS.temperature)
    with project.database.read() as session:
        for row in session.scalars(select(Sample)):
            assert row.base_logprob == pytest.approx(noted[row.id], abs=1e-4)
            assert row.logprobs is not None
            assert not math.isclose(float(np.frombuffer(row.logprobs, np.float32).mean()), row.base_logprob or 0.0, abs_tol=1e-3)


def test_a_text_without_tokens_is_read_too(tmp_path: Path, trunk: Trunk) -> None:
    project = with_prompts(tmp_path)
    prompt = prompts_of(project)[0]
    with project.database.write() as session:
        session.add(
            Sample(
                id="s", prompt_id=prompt.id, policy_id=None, author="check", batch="b", position=0, text="Half an ans", token_ids=None, logprobs=None,
                finished=False, temperature=None, seed=None, base_logprob=None, created_at=now(),
            )
        )  # fmt: skip
    assert read_under_base(project, trunk, ["s"], temperature=0.7) == {}
    with project.database.read() as session:
        assert session.get_one(Sample, "s").base_logprob is not None
        assert session.scalar(select(func.count(Sample.id))) == 1


def test_a_run_tells_how_far_it_is(tmp_path: Path, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_prompts(tmp_path)
    told: list[dict[str, int]] = []
    monkeypatch.setattr(StageRun, "progress", lambda self, **facts: told.append(facts))
    draw(project, trunk)
    assert [facts["done"] for facts in told] == [3, 6, 9, 10]
    assert {facts["total"] for facts in told} == {10}


def test_without_prompts_it_says_what_to_do(project: Project, trunk: Trunk) -> None:
    with pytest.raises(UserError, match="truing prompts import"):
        draw_samples(project, SETTINGS, trunk, policy_id="base", prompt_ids=[], per_prompt=1, seed=1)
