"""One trial: a policy tuned as ever, and what its answers to held-out prompts are worth.

What is compared is no part of what is swept. The training objective, score less beta times KL, can't be: a smaller beta would win by being smaller. So a trial
is two numbers: the score of its answers to prompts that it wasn't tuned on, by the reward ensemble's lower bound (the mean less a standard deviation over the
members, whatever `tune.score` says), and its KL from the base. Cut-off answers count with the score they have (`tune.truncation` may be swept too); how many
there were stands beside.
"""

from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from truing.errors import UserError
from truing.evaluation.winrate import EvaluationSettings
from truing.policy.settings import TuneSettings
from truing.rounds import BASE, Turn, policy_loaded, reward_model, tuned_by
from truing.samples import SampleSettings, draw_samples, prompts_of, read_under_base, token_ids
from truing.stats import bootstrap_mean, plain
from truing.store.tables import Sample, Split

Number = dict[str, Any]  # value, low, high, n prompts


class Measured(NamedTuple):
    """What a policy's answers to the held-out prompts are worth; every number with its interval over prompts.

    Attributes:
        policy: its id, or "base".
        score: lower bound of the reward ensemble, in standard deviations of the reward on reference samples.
        mean_score: the same without the ensemble's doubt.
        kl_nats: per response, from the base.
        length: tokens of a response.
        eos_rate: share of responses that ended by themselves.
        each: (P,) score of each prompt, in the order of their ids.
        findings: names of the failures that the tuning run's diagnosis found.
    """

    policy: str
    score: Number
    mean_score: Number
    kl_nats: Number
    length: float
    eos_rate: float
    each: list[float]
    findings: list[str]


def run_trial(turn: Turn, settings: TuneSettings) -> Measured:
    """Tune the policy by these settings, or take up or answer from an earlier run, and measure it."""
    policy = tuned_by(turn, settings)
    return measure(turn, policy.id, [finding["failure"] for finding in policy.facts["diagnosis"]])


def measure(turn: Turn, policy_id: str, findings: list[str]) -> Measured:
    """Draw a policy's answers to the held-out prompts and score them; an interrupted one goes on.

    Raises:
        UserError: no prompt is held out, or the round has no reward model.
    """
    project, sampling = turn.project, turn.project.settings(SampleSettings)
    prompts = prompts_of(project, Split.HELD_OUT)
    if not prompts:
        raise UserError("no prompt is held out, and trials are compared on those alone", fix="import more prompts, or raise prompts.held_out_share")
    reward_id, each = turn.needs("reward", "truing reward train"), project.settings(EvaluationSettings).per_prompt
    with policy_loaded(turn, policy_id):
        batch = draw_samples(
            project, sampling, turn.trunk, policy_id=policy_id, prompt_ids=[prompt.id for prompt in prompts], per_prompt=each, seed=turn.seed_of("sweep"),
            round_id=turn.id,
        )  # fmt: skip
    with project.database.read() as session:
        samples = list(session.scalars(select(Sample).where(Sample.batch == batch).order_by(Sample.prompt_id, Sample.position)))
    kl = {} if policy_id == BASE else read_under_base(project, turn.trunk, [sample.id for sample in samples], temperature=sampling.temperature)
    tokens = {prompt.id: turn.trunk.prompt_ids(prompt.turns) for prompt in prompts}
    responses = [token_ids(turn.trunk, sample) for sample in samples]
    means, doubts = reward_model(turn, reward_id).score_with_std([tokens[sample.prompt_id] for sample in samples], responses)
    lower = np.subtract(means, doubts)
    groups = [sample.prompt_id for sample in samples]

    def mean(values: Any) -> Number:
        return plain(bootstrap_mean(values, groups=groups, seed=turn.seed_of("sweep")))

    return Measured(
        policy_id, mean(lower), mean(means), mean([kl.get(sample.id, 0.0) for sample in samples]), float(np.mean([len(one) for one in responses])),
        sum(sample.finished for sample in samples) / len(samples), lower.reshape(len(prompts), each).mean(1).tolist(), findings,
    )  # fmt: skip
