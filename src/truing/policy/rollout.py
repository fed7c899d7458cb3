"""A rollout: answers drawn from the policy, with everything that stays constant while it is learned from.

Shapes: B responses in the batch (groups of siblings stand together), T response tokens, right-padded, H hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from truing.models.generate import Response, generate
from truing.models.logprobs import response_logprobs
from truing.models.trunk import Lower, Rows, Trunk
from truing.policy.constraint import Constraint
from truing.policy.kl import k1, token_rewards
from truing.policy.rewards import ReadsHidden, Score, Scored, final_scores, in_a_row, reader_of, scores_of
from truing.policy.settings import OnlineSettings, TuneSettings
from truing.policy.team import team

ROLE = "policy"
ANSWERS_AT_ONCE = 256  # that are drawn: the keys and values of all of them are in memory


class Forward(NamedTuple):
    """One pass of the policy over some answers. All (B, T); values is None without a value head."""

    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None


@dataclass(frozen=True)
class Rollout:
    """Attributes:
    prompts, responses: token ids.
    parts: indices of the answers that go through the model together, in the process whose part it is (team.py); the same in every pass, so that the
    first-epoch ratio is exactly 1. minibatches: numbers of the parts that make up each optimiser step of an epoch. mask: (B, T) bool, True on generated tokens.
    logprobs, ref_logprobs, entropy: (B, T) nats at the sampling temperature, when the answers were drawn. values: (B, T) or None. raw_scores: (B,) of the
    reward model. doubts: (B,) its standard deviation over the ensemble, or None where the reward knows none. scores: (B,) after the rule for cut-off answers,
    the clip and the constraint. rewards: (B, T) the score on the last token, and the price of KL on every token. kl: (B, T) k1 estimates, nats. lower: for
    each part, the states after the layers that no adapter touches, or None where every layer is adapted, or another process has the part. objectives:
    name → (B,) scores, of a reward that is made of several.
    """

    prompts: list[list[int]]
    responses: list[Response]
    parts: list[list[int]]
    minibatches: list[list[int]]
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    values: Tensor | None
    raw_scores: Tensor
    doubts: Tensor | None
    scores: Tensor
    rewards: Tensor
    kl: Tensor
    lower: list[Lower | None]
    objectives: dict[str, Tensor] = field(default_factory=dict)

    def part(self, number: int, trunk: Trunk) -> Rows:
        """A part's answers as the model runs them."""
        chosen = self.parts[number]
        return rows_of(trunk, [self.prompts[index] for index in chosen], [self.responses[index].token_ids for index in chosen])


def draw_rollout(
    trunk: Trunk,
    head: nn.Linear | None,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    score: Score,
    settings: OnlineSettings,
    *,
    beta: float,
    temperature: float,
    max_new_tokens: int,
    constraint: Constraint | None = None,
) -> Rollout:
    """Draw an answer to each prompt and work out what its tokens earned.

    Args:
        head: value head on the policy's hidden states, or None.
        prompts: token ids; each as often as it has answers.
        seeds: one for each answer.
        score: the reward, normalised to standard deviation 1 on reference samples.
        beta: price of a nat.
        constraint: on objectives that the reward is made of.
    """
    own = team()
    mine = [place for place in range(len(prompts)) if own.owns(place // settings.group_size)]
    with trunk.merged(ROLE):
        drawn = generate(
            trunk, [prompts[place] for place in mine], [seeds[place] for place in mine], max_new_tokens=max_new_tokens, temperature=temperature,
            batch_size=ANSWERS_AT_ONCE,
        )  # fmt: skip
    responses = own.together(dict(zip(mine, drawn, strict=True)))
    tokens = [response.token_ids for response in responses]
    rows = [list(prompt) for prompt in prompts]
    parts, minibatches = deal([len(prompt) + len(response) for prompt, response in zip(rows, tokens, strict=True)], settings)
    batches = {
        number: rows_of(trunk, [rows[index] for index in part], [tokens[index] for index in part]) for number, part in enumerate(parts) if own.owns(number)
    }
    with torch.no_grad():
        with trunk.using(None):
            reader = reader_of(score, rows, tokens)
            read = {number: _reference(trunk, batch, reader, settings, temperature) for number, batch in batches.items()}
        with trunk.using(ROLE):
            passed = {number: forward(trunk, head, batch, temperature, lower=read[number].lower) for number, batch in batches.items()}
    lower = [read[number].lower if number in read else None for number in range(len(parts))]
    references = own.together({number: one._replace(lower=None) for number, one in read.items()})
    order = torch.tensor([index for part in parts for index in part]).argsort()
    policy, reference = _together(own.together(passed), order), _together([one.passed for one in references], order)
    scored = scores_of(score, prompts, tokens) if reader is None else in_a_row([one.scored for one in references if one.scored is not None]).at(order)
    scores = final_scores(scored.scores, torch.tensor([response.finished for response in responses]), settings)
    if constraint is not None:
        scores, beta = constraint.blended(scores, scored.objectives), beta * constraint.share
    longest = policy.logprobs.shape[1]
    mask = torch.arange(longest) < torch.tensor([len(response) for response in tokens])[:, None]
    kl = k1(policy.logprobs, reference.logprobs)
    rewards = token_rewards(scores, kl, mask, beta=beta)
    return Rollout(
        rows, responses, parts, minibatches, mask, policy.logprobs, reference.logprobs, policy.entropy, policy.values, scored.scores, scored.doubts, scores,
        rewards, kl, lower, scored.objectives,
    )  # fmt: skip


def forward(trunk: Trunk, head: nn.Linear | None, rows: Rows, temperature: float, *, lower: Lower | None = None, entropy_gradient: bool = False) -> Forward:
    """The policy's view of some answers under the adapter that is on; carries gradients when they are enabled.

    Args:
        lower: states below the adapted layers to go on from, or None to begin with the tokens.
        entropy_gradient: whether the entropy carries a gradient, too.
    """
    hidden = trunk.hidden(rows, lower)
    found = response_logprobs(trunk, rows, temperature, hidden=hidden, entropy_gradient=entropy_gradient)
    values = None if head is None else rows.rectangle(head(rows.predicting(hidden).to(head.weight.dtype))[:, 0])
    return Forward(found.logprobs, found.entropy, values)


def rows_of(trunk: Trunk, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Rows:
    """Answers as the model runs them, with the same arithmetic whether something is learned or not: the first-epoch ratio is exactly 1."""
    return trunk.rows(prompts, responses, whole=True)


def deal(lengths: Sequence[int], settings: OnlineSettings) -> tuple[list[list[int]], list[list[int]]]:
    """Parts (indices of answers) and minibatches (numbers of parts). Siblings stay together where there are enough groups, so that their prompt is read
    once. Who is in a minibatch doesn't depend on the size of a part.

    Args:
        lengths: (B,) tokens of each prompt and answer; siblings stand together.
    """
    each = settings.group_size if len(lengths) >= settings.group_size * settings.minibatches else 1
    groups = [list(range(start, start + each)) for start in range(0, len(lengths), each)]
    groups.sort(key=lambda group: (-sum(lengths[index] for index in group), group))
    parts: list[list[int]] = []
    minibatches: list[list[int]] = []
    for start in range(settings.minibatches):
        chosen = [index for group in groups[start :: settings.minibatches] for index in group]  # short and long ones in each
        pieces = [chosen[at : at + settings.microbatch] for at in range(0, len(chosen), settings.microbatch)]
        minibatches.append(list(range(len(parts), len(parts) + len(pieces))))
        parts += pieces
    return parts, minibatches


def add_role(trunk: Trunk, name: str, settings: TuneSettings, *, seed: int) -> None:
    """Something on the trunk that can learn, and is the base as yet.

    Args:
        seed: of the adapter's random half.
    """
    top = top_layers(trunk, settings)
    if settings.weights == "full":
        trunk.add_whole(name, top_layers=top)
    else:
        trunk.add_adapter(name, rank=settings.rank, alpha=2 * settings.rank, seed=seed, top_layers=top)


def top_layers(trunk: Trunk, settings: TuneSettings) -> int | None:
    """How many upper layers are adapted; None: all."""
    return None if settings.layers == "all" else trunk.layers // 2


def border(trunk: Trunk, settings: TuneSettings) -> int | None:
    """The layer up to which every role's states are the base's; None where all layers are adapted, or the model can't be split."""
    top = top_layers(trunk, settings)
    return trunk.layers - top if top is not None and trunk.splits else None


def lower_states(trunk: Trunk, rows: Rows, settings: TuneSettings) -> Lower | None:
    """What every role goes on from: the states at the border, if there is one."""
    layers = border(trunk, settings)
    return None if layers is None else Lower(layers, trunk.hidden_layers(rows, [layers])[layers])


def widen(values: Tensor, longest: int) -> Tensor:
    """(B, longest) from (B, T <= longest): zeros to the right."""
    return nn.functional.pad(values, (0, longest - values.shape[1]))


class _Read(NamedTuple):
    """What a pass of the base over a part gives.

    Attributes:
        passed: the reference's log-probabilities.
        lower: the states below the adapted layers, which the policy goes on from; None where all layers are adapted, or the model can't be split.
        scored: what the reward says, if it reads hidden states.
    """

    passed: Forward
    lower: Lower | None
    scored: Scored | None


def _reference(trunk: Trunk, batch: Rows, reader: ReadsHidden | None, settings: OnlineSettings, temperature: float) -> _Read:
    """One pass of the base over a part, for whoever needs it."""
    shared = border(trunk, settings)
    layers = {trunk.layers, *(reader.feature_layers if reader else ()), *([shared] if shared is not None else ())}
    states = trunk.hidden_layers(batch, sorted(layers))
    found = response_logprobs(trunk, batch, temperature, hidden=states[trunk.layers])
    scored = None
    if reader is not None:
        mean, spread = reader.score_hidden(states, batch)
        scored = Scored(torch.tensor(mean), torch.tensor(spread), {})
    return _Read(Forward(found.logprobs, found.entropy, None), None if shared is None else Lower(shared, states[shared]), scored)


def _together(passes: list[Forward], order: Tensor) -> Forward:
    """(B, T) from the parts, widened to the longest answer and put in the order of the answers."""
    longest = max(found.logprobs.shape[1] for found in passes)
    logprobs = torch.cat([widen(found.logprobs, longest) for found in passes])[order]
    entropy = torch.cat([widen(found.entropy, longest) for found in passes])[order]
    values = [widen(found.values, longest) for found in passes if found.values is not None]
    return Forward(logprobs, entropy, torch.cat(values)[order] if values else None)
