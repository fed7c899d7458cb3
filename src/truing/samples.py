"""Samples: responses to prompts, drawn from a policy, kept with their token ids and log-probabilities."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.console import track
from truing.errors import UserError
from truing.store.clock import now
from truing.store.ids import content_id, seed_from
from truing.store.judgements import batches
from truing.store.project import Project
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Policy, Prompt, Sample, Split

if TYPE_CHECKING:
    from truing.models.generate import Response
    from truing.models.trunk import Trunk

TOKENS_READ = 2048  # of prompts and responses, at a time


class SampleSettings(Settings):
    """Drawing responses from a policy."""

    per_prompt: int = Field(2, ge=1, description="responses drawn for each prompt")
    temperature: float = Field(0.7, gt=0, le=2, description="of sampling; log-probabilities are taken at it everywhere")
    max_new_tokens: int = Field(56, ge=1, description="a response that has not ended by then is cut off")
    batch_size: int = Field(128, ge=1, description="responses drawn at a time; changes speed and memory")


def draw_samples(
    project: Project,
    settings: SampleSettings,
    trunk: "Trunk",
    *,
    policy_id: str,
    prompt_ids: Sequence[str],
    per_prompt: int,
    seed: int,
    round_id: int | None = None,
) -> str:
    """Draw responses and keep them; an interrupted run goes on at the batch it was in.

    Args:
        trunk: holds the adapter "policy" where `policy_id` isn't "base".
        prompt_ids: whom to ask; the order doesn't matter.
        per_prompt: responses for each.
        seed: every response's own seed follows from this, its prompt and its number.

    Returns:
        the name of the batch: the `batch` of every sample drawn.

    Raises:
        UserError: there are no prompts.
    """
    if not prompt_ids:
        raise UserError("there are no prompts to answer", fix="bring some with `truing prompts import FILE`")
    wanted = sorted(set(prompt_ids))
    inputs = {
        "model": trunk.fingerprint, "policy": policy_id, "prompts": wanted, "per_prompt": per_prompt, "seed": seed,
        "temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size,
    }  # fmt: skip
    batch = content_id("samples", inputs)
    with stage_run(project, "samples", inputs, round_id=round_id) as run:
        if not run.answered:
            know_policy(project, policy_id, trunk.name)
            _draw(project, settings, trunk, batch, policy_id, wanted, per_prompt, seed, run)
            run.result = {"batch": batch, "n": len(wanted) * per_prompt, "seconds": round(run.seconds, 1)}
    return batch


def _draw(
    project: Project, settings: SampleSettings, trunk: "Trunk", batch: str, policy_id: str, prompt_ids: Sequence[str], per_prompt: int, seed: int, run: StageRun
) -> None:
    from truing.models.generate import generate

    with project.database.read() as session:
        turns = turns_of(session, prompt_ids)
        there = set(session.scalars(select(Sample.id).where(Sample.batch == batch)))
    tokens = {prompt_id: trunk.prompt_ids(turns[prompt_id]) for prompt_id in prompt_ids}
    jobs = [(prompt_id, position) for prompt_id in prompt_ids for position in range(per_prompt)]
    # The same groups in every run: in bf16 a response may depend on its neighbours by a rounding, and a resumed run must not differ.
    jobs.sort(key=lambda job: (-len(tokens[job[0]]), job))
    groups = [jobs[start : start + settings.batch_size] for start in range(0, len(jobs), settings.batch_size)]
    left = [group for group in groups if any(_sample_id(batch, *job) not in there for job in group)]
    with trunk.merged(None if policy_id == "base" else "policy"):
        for group in track(left, "samples", len(groups), done=len(groups) - len(left)):
            seeds = [seed_from(seed, "sample", prompt_id, position) for prompt_id, position in group]
            responses = generate(
                trunk, [tokens[prompt_id] for prompt_id, _ in group], seeds,
                max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, batch_size=len(group),
            )  # fmt: skip
            rows = [_row(trunk, settings, batch, policy_id, job, response, s) for job, response, s in zip(group, responses, seeds, strict=True)]
            with project.database.write() as session:
                session.add_all(row for row in rows if row.id not in there)
            there.update(row.id for row in rows)
            run.progress(done=len(there), total=len(jobs))


def turns_of(session: Session, prompt_ids: Sequence[str]) -> dict[str, list[Any]]:
    """Prompt id → its turns."""
    return {row.id: row.turns for ids in batches(prompt_ids) for row in session.execute(select(Prompt.id, Prompt.turns).where(Prompt.id.in_(ids)))}


def read_under_base(project: Project, trunk: "Trunk", sample_ids: Sequence[str], *, temperature: float) -> dict[str, float]:
    """Run samples through the base: fills `base_logprob` where it is missing.

    Args:
        sample_ids: which ones; a text without token ids (a person's) is tokenised, with an end token if it is finished.
        temperature: the one they were drawn at.

    Returns:
        sample id → KL in nats of its whole response: log-probability under the policy that drew it, less that under the
        base, both at `temperature`; for those that carry log-probabilities.
    """
    import torch

    from truing.models.logprobs import response_logprobs
    from truing.models.packed import packs

    with project.database.read() as session:
        samples = [row for ids in batches(sorted(sample_ids)) for row in session.scalars(select(Sample).where(Sample.id.in_(ids)).order_by(Sample.id))]
        turns = turns_of(session, sorted({sample.prompt_id for sample in samples}))
    prompts = {prompt_id: trunk.prompt_ids(value) for prompt_id, value in turns.items()}
    tokens = {sample.id: token_ids(trunk, sample) for sample in samples}
    samples = [sample for sample in samples if tokens[sample.id]]
    kl: dict[str, float] = {}
    buckets = packs([len(prompts[sample.prompt_id]) + len(tokens[sample.id]) for sample in samples], TOKENS_READ)
    for bucket in track(buckets, "reading", len(buckets)):
        group = [samples[index] for index in bucket]
        rows = trunk.rows([prompts[sample.prompt_id] for sample in group], [tokens[sample.id] for sample in group])
        with torch.no_grad(), trunk.using(None):
            hidden = trunk.hidden(rows)
            plain = response_logprobs(trunk, rows, 1.0, hidden=hidden).logprobs
            cooled = response_logprobs(trunk, rows, temperature, hidden=hidden).logprobs
        means = (plain.double().sum(1) / rows.mask.sum(1)).tolist()
        with project.database.write() as session:
            for sample, mean, total in zip(group, means, cooled.double().sum(1).tolist(), strict=True):
                if sample.base_logprob is None:
                    session.get_one(Sample, sample.id).base_logprob = mean
                if sample.logprobs is not None:
                    kl[sample.id] = float(np.frombuffer(sample.logprobs, np.float32).astype(np.float64).sum()) - total
    return kl


def token_ids(trunk: "Trunk", sample: Sample) -> list[int]:
    """The response's tokens: as sampled where it was sampled, else its text tokenised."""
    if sample.token_ids is not None:
        return list(sample.token_ids)
    ids = trunk.response_ids(sample.text)
    return ids if sample.finished else ids[:-1]


def know_policy(project: Project, policy_id: str, model: str, parent_id: str | None = None) -> None:
    """Make the store know a policy; knowing it twice is no harm."""
    with project.database.write() as session:
        if session.get(Policy, policy_id) is None:
            session.add(Policy(id=policy_id, model=model, artifact_id=None if policy_id == "base" else policy_id, parent_id=parent_id, created_at=now()))


def count_samples(project: Project) -> Mapping[str, int]:
    """Policy id (or "people") → how many samples it has given."""
    with project.database.read() as session:
        rows = session.execute(select(Sample.policy_id, func.count()).group_by(Sample.policy_id).order_by(Sample.policy_id))
        return {policy or "people": n for policy, n in rows}


def prompts_of(project: Project, split: Split | None = None) -> list[Prompt]:
    """The project's prompts in the order of their ids, of one split or of both."""
    with project.database.read() as session:
        query = select(Prompt).order_by(Prompt.id)
        return list(session.scalars(query if split is None else query.where(Prompt.split == split)))


def _sample_id(batch: str, prompt_id: str, position: int) -> str:
    return content_id("sample", prompt_id, batch, position)


def _row(trunk: "Trunk", settings: SampleSettings, batch: str, policy_id: str, job: tuple[str, int], response: "Response", seed: int) -> Sample:
    prompt_id, position = job
    return Sample(
        id=_sample_id(batch, prompt_id, position),
        prompt_id=prompt_id,
        policy_id=policy_id,
        author=None,
        batch=batch,
        position=position,
        text=trunk.text(response.token_ids).replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL and every export refuse NUL
        token_ids=response.token_ids,
        logprobs=np.array(response.logprobs, np.float32).tobytes(),
        finished=response.finished,
        temperature=settings.temperature,
        seed=seed,
        base_logprob=float(np.mean(response.plain_logprobs)) if policy_id == "base" else None,
        created_at=now(),
    )
