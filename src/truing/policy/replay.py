"""The loop of Q-learning: draw answers, keep them, learn from those that are kept towards a goal that a slower copy sets.

Shapes: B answers in a minibatch, T response tokens, right-padded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from truing.models.trunk import Trunk
from truing.policy.advantages import soft_q_targets
from truing.policy.algorithms import q_learning
from truing.policy.kl import token_rewards
from truing.policy.losses import denominators
from truing.policy.online import SEEN, OnlineLearner
from truing.policy.rewards import Score
from truing.policy.rollout import ROLE, Rollout, add_role, deal, forward, lower_states, rows_of
from truing.policy.targets import Targets
from truing.store.ids import seed_from

COPY = "policy-copy"
Kept = dict[str, Any]  # an answer: prompt and response (token ids), ref_logprobs (nats, of the base), score


class ReplayLearner(OnlineLearner):
    """A policy that is its own Q, and learns from answers that earlier policies gave."""

    def __init__(
        self, trunk: Trunk, settings: q_learning.QLearningSettings, prompts: Mapping[str, Sequence[int]], score: Score, *, temperature: float,
        max_new_tokens: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        self.settings: q_learning.QLearningSettings = settings
        self.kept: list[Kept] = []
        self.copied_head = nn.Linear(trunk.hidden_size, 1, device=trunk.device)

    def start(self, artifacts: Path, parent: str) -> None:
        """As every learner; the copy begins as the policy."""
        super().start(artifacts, parent)
        add_role(self.trunk, COPY, self.settings, seed=0)
        self._copy()

    def close(self) -> None:
        """As every learner; the copy, too."""
        super().close()
        if self.trunk.has_adapter(COPY):
            self.trunk.drop_adapter(COPY)

    def targets(self, rollout: Rollout) -> Targets:
        """Keep the answers; what they are worth is worked out whenever they are learned from."""
        for prompt, response, row, score in zip(rollout.prompts, rollout.responses, rollout.ref_logprobs.tolist(), rollout.scores.tolist(), strict=True):
            own = list(response.token_ids)
            self.kept.append({"prompt": prompt, "response": own, "ref_logprobs": row[: len(own)], "score": score})
        del self.kept[: -self.settings.replay]
        if self.done % self.settings.copy_every == 0:
            self._copy()
        return Targets(torch.zeros_like(rollout.rewards))

    def learn(self, rollout: Rollout, targets: Targets) -> list[dict[str, float]]:
        """`epochs` times `minibatches` steps, each over `samples / minibatches` answers of all that are kept."""
        each = self.settings.samples // self.settings.minibatches
        steps = []
        for number in range(self.settings.epochs * self.settings.minibatches):
            generator = torch.Generator().manual_seed(seed_from(self.seed, "replay", self.done, number))
            chosen = torch.randperm(len(self.kept), generator=generator)[:each].tolist()
            steps.append(self._step_over([self.kept[place] for place in chosen]))
        return steps

    def _step_over(self, answers: list[Kept]) -> dict[str, float]:
        """One optimiser step."""
        settings, trunk = self.settings, self.trunk
        lengths = torch.tensor([len(one["response"]) for one in answers])
        divisor = denominators(lengths, settings.average, limit=self.max_new_tokens)
        parts, _ = deal([len(one["prompt"]) + len(one["response"]) for one in answers], settings.model_copy(update={"minibatches": 1, "group_size": 1}))
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for number, part in enumerate(parts):
            if not self.team.owns(number):
                continue
            own = [answers[index] for index in part]
            batch = rows_of(trunk, [one["prompt"] for one in own], [one["response"] for one in own])
            ref_logprobs = batch.rectangle(torch.tensor([value for one in own for value in one["ref_logprobs"]]))
            with torch.no_grad(), trunk.using(COPY):
                lower = lower_states(trunk, batch, settings)
                copy = forward(trunk, self.copied_head, batch, self.temperature, lower=lower)
            rewards = token_rewards(torch.tensor([one["score"] for one in own]), torch.zeros_like(ref_logprobs), batch.mask, beta=0.0)
            assert copy.values is not None
            goal = soft_q_targets(
                rewards, settings.beta * (copy.logprobs - ref_logprobs), copy.values, mask=batch.mask, gamma=settings.gamma, lam=settings.trace
            )  # fmt: skip
            with trunk.using(ROLE):
                new = forward(trunk, self.head, batch, self.temperature, lower=lower)
                found = q_learning.loss(new, ref_logprobs, goal, batch.mask, settings, divisor[part])
                found.backward()
            loss += found.item()
        self.team.add_gradients(self.optimizer.param_groups[0]["params"])
        loss = self.team.added({"loss": loss})["loss"]
        norm = self.take_step()
        return dict.fromkeys(SEEN, 0.0) | {"loss": loss, "grad_norm": norm, "max_ratio": 1.0}

    @torch.no_grad()
    def _copy(self) -> None:
        assert self.head is not None
        for name, value in self.trunk.adapter_state(COPY).items():
            value.copy_(self.trunk.adapter_state(ROLE)[name.replace(f".{COPY}.", f".{ROLE}.")])
        self.copied_head.load_state_dict(self.head.state_dict())

    # On disk ---------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The answers that are kept."""
        return super().state() | {"kept": self.kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        super().load_state(state)
        self.kept = state["kept"]

    def tensors(self) -> dict[str, Tensor]:
        """The copy."""
        copied = {f"copy.{name}": value for name, value in self.trunk.adapter_state(COPY).items()}
        return copied | {f"copied_head.{name}": value for name, value in self.copied_head.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take it up."""
        for name, value in self.trunk.adapter_state(COPY).items():
            value.copy_(tensors[f"copy.{name}"])
        self.copied_head.load_state_dict({name: tensors[f"copied_head.{name}"] for name in ("weight", "bias")})
