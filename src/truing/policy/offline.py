"""The loop of offline tuning: a fixed set of examples, a step at a time.

What differs between algorithms is in `policy/algorithms/`, a small module each. A prompt is read once for all its responses, without padding.
"""

from collections.abc import Iterator, Sequence
from types import ModuleType

import torch
from torch import Tensor

from truing.models.logprobs import response_logprobs
from truing.models.packed import Tree, packs
from truing.models.trunk import Lower, Rows, Trunk
from truing.policy.algorithms import OFFLINE
from truing.policy.examples import Example
from truing.policy.learner import Learner
from truing.policy.rollout import ROLE, lower_states
from truing.policy.settings import OfflineSettings
from truing.store.ids import seed_from


class OfflineLearner(Learner):
    """A policy that learns from what others said and wrote. An update is one optimiser step."""

    TOLD = ("policy/loss", "policy/accuracy", "policy/margin")
    DRAWN = ("policy/loss",)

    def __init__(self, trunk: Trunk, settings: OfflineSettings, examples: Sequence[Example], *, seed: int) -> None:
        self.algorithm: ModuleType = OFFLINE[settings.algorithm]
        self.by_prompt: dict[str, list[Example]] = {}
        for example in examples:
            self.by_prompt.setdefault(example.prompt_id, []).append(example)
        self.plan = plan({prompt: len(own) for prompt, own in self.by_prompt.items()}, settings, seed)
        super().__init__(trunk, settings, updates=len(self.plan), head=None, seed=seed)
        self.settings: OfflineSettings = settings

    def update(self) -> None:
        """One step over the next prompts of the plan."""
        rate = self.slow_down()
        examples = [example for prompt in self.plan[self.done] for example in self.by_prompt[prompt]]
        self.optimizer.zero_grad(set_to_none=True)
        seen = self.through(examples, learn=True)
        norm = self.take_step()
        self.done += 1
        self.rows.append({"update": float(self.done), **seen, "policy/grad_norm": norm, "policy/lr": rate, "data/examples": float(len(examples))})

    def through(self, examples: Sequence[Example], *, learn: bool) -> dict[str, float]:
        """The mean loss of some examples and what else is logged of them; where there is something to learn, its gradient."""
        seen: dict[str, float] = {}
        denominator = self.algorithm.mass(examples)
        for number, part in enumerate(in_memory(examples, self.settings.row_tokens)):
            if not self.team.owns(number):
                continue
            rows = rows_of(self.trunk, part)
            reference: list[list[Tensor]] = []
            lower: Lower | None = None
            if self.algorithm.NEEDS_REFERENCE:
                with torch.no_grad(), self.trunk.using(None):
                    lower = lower_states(self.trunk, rows, self.settings)
                    reference = logprobs_of(self.trunk, part, rows, lower)
            with torch.set_grad_enabled(learn), self.trunk.using(ROLE):
                loss, means = self.algorithm.loss(logprobs_of(self.trunk, part, rows, lower), reference, part, self.settings, denominator)
                if learn:
                    loss.backward()
            for name, value in {"policy/loss": loss.item(), **means}.items():
                seen[name] = seen.get(name, 0.0) + value
        if learn:
            self.team.add_gradients(self.optimizer.param_groups[0]["params"])
        return self.team.added(seen)

    def headline(self) -> str:
        """The newest numbers, for the progress line."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        right = f"  right {row['policy/accuracy']:.0%}" if "policy/accuracy" in row else ""
        return f"loss {row['policy/loss']:.3f}{right}"


def plan(said: dict[str, int], settings: OfflineSettings, seed: int) -> list[list[str]]:
    """The prompts of each step: every epoch's in an order of its own, as many at a time as it takes for `batch` examples.

    Args:
        said: prompt id → how many examples it has.
    """
    names = sorted(said)
    found: list[list[str]] = []
    for epoch in range(settings.epochs):
        room = 0
        for place in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed_from(seed, "epoch", epoch))).tolist():
            if room <= 0:
                found.append([])
                room = settings.batch
            found[-1].append(names[place])
            room -= said[names[place]]
    return found


def in_memory(examples: Sequence[Example], row_tokens: int) -> Iterator[list[Example]]:
    """Examples in parts that fit in memory; those of a prompt stay together, so that it is read once."""
    trees = _by_prompt(examples)
    for group in packs([tree_of(own).size for own in trees], row_tokens):
        yield [example for place in group for example in trees[place]]


def tree_of(examples: Sequence[Example]) -> Tree:
    """One prompt's examples, each response once."""
    return Tree(examples[0].prompt, tuple(dict.fromkeys(response for example in examples for response in example.responses)))


def rows_of(trunk: Trunk, examples: Sequence[Example]) -> Rows:
    """Examples as the model runs them: each prompt once, each of its responses once."""
    pairs = _pairs(examples)
    return trunk.rows([prompt for prompt, _ in pairs], [response for _, response in pairs])


def logprobs_of(trunk: Trunk, examples: Sequence[Example], rows: Rows, lower: Lower | None) -> list[list[Tensor]]:
    """Of each example, of each of its responses, (T,) log-probabilities under the adapter that is on.

    Args:
        rows: as `rows_of` gives them.
        lower: their states below the adapted layers to go on from, or None to begin with the tokens.
    """
    logprobs = response_logprobs(trunk, rows, 1.0, hidden=trunk.hidden(rows, lower)).logprobs
    found = {pair: row[: len(pair[1])] for pair, row in zip(_pairs(examples), logprobs, strict=True)}
    return [[found[example.prompt, response] for response in example.responses] for example in examples]


def _pairs(examples: Sequence[Example]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and response of each row, those of a prompt in a row."""
    return [(tree.prompt, response) for tree in map(tree_of, _by_prompt(examples)) for response in tree.responses]


def _by_prompt(examples: Sequence[Example]) -> list[list[Example]]:
    """Those of one prompt together, in the order in which prompts appear."""
    together: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        together.setdefault(example.prompt, []).append(example)
    return list(together.values())
