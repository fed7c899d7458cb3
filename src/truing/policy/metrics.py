"""What an update's log row says. Names are Ziegler's namespaces; nothing here depends on the clock."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from truing.policy.kl import k3, per_response
from truing.policy.losses import masked_mean
from truing.policy.rollout import Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Targets
from truing.stats import distinct_n


def measure(rollout: Rollout, targets: Targets, steps: Sequence[dict[str, float]], settings: OnlineSettings, *, beta: float, lr: float) -> dict[str, float]:
    """One row of metrics.jsonl.

    KL in nats: `objective/kl` per response (k1), with its standard error; `objective/kl_k3` per response;
    `objective/kl_per_token`. Entropy in nats per token. Shares in [0, 1]. Lengths in
    tokens. `objective/scores_lower`: mean of the score less the reward ensemble's standard deviation, where it has one and the score isn't a bound already.
    `objective/scores/NAME`: mean score of each objective, where the reward is made of several. `policy/sampling_gap`: KL, in nats per token, of the
    distribution that tokens were drawn from to the one that is learned from (k3): both are the policy, in other number types or kernels.
    """
    mask = rollout.mask
    lengths = mask.sum(1).float()
    kl = per_response(rollout.kl, mask)
    answers = [response.token_ids for response in rollout.responses]
    drawn = pad_sequence([torch.tensor(response.logprobs) for response in rollout.responses], batch_first=True)
    row = {
        "objective/scores": float(rollout.raw_scores.mean()),
        "objective/scores_std": float(rollout.raw_scores.std()),
        "objective/reward": float(rollout.rewards.sum(1).mean()),
        "objective/kl": float(kl.mean()),
        "objective/kl_stderr": float(kl.std() / len(kl) ** 0.5),
        "objective/kl_k3": float(per_response(k3(rollout.logprobs, rollout.ref_logprobs), mask).mean()),
        "objective/kl_per_token": float(kl.sum() / lengths.sum()),
        "objective/beta": beta,
        "objective/entropy": float(masked_mean(rollout.entropy, mask)),
        "objective/score_clipped": float((rollout.raw_scores.abs() > settings.score_clip).float().mean()),
        "response/length": float(lengths.mean()),
        "response/eos_rate": sum(response.finished for response in rollout.responses) / len(answers),
        "response/distinct2": distinct_n(answers, 2),
        "policy/loss": _mean(steps, "loss"),
        "policy/clipfrac": _mean(steps, "clipfrac"),
        "policy/kl_old": max(step["kl_old"] for step in steps),
        "policy/first_ratio_error": abs(steps[0]["max_ratio"] - 1),
        "policy/sampling_gap": float(masked_mean(k3(drawn, rollout.logprobs), mask)),
        "policy/max_ratio": max(step["max_ratio"] for step in steps),
        "policy/grad_norm": _mean(steps, "grad_norm"),
        "policy/skipped_steps": sum(step["skipped"] for step in steps),
        "policy/lr": lr,
    }
    if rollout.values is not None and targets.returns is not None:
        row["value/loss"] = _mean(steps, "value_loss")
        row["value/clipfrac"] = _mean(steps, "value_clipfrac")
        row["value/explained_variance"] = explained_variance(rollout.values[mask], targets.returns[mask])
    if rollout.doubts is not None and settings.score == "mean":
        row["objective/scores_lower"] = float((rollout.raw_scores - rollout.doubts).mean())
    return row | {f"objective/scores/{name}": float(scores.mean()) for name, scores in rollout.objectives.items()}


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns), from (N,) and (N,): 1 is perfect, 0 is no better than a constant. 0
    where the returns don't vary."""
    spread = torch.var(returns, correction=0)
    return float(1 - torch.var(returns - values, correction=0) / spread) if spread > 0 else 0.0


def _mean(steps: Sequence[dict[str, float]], name: str) -> float:
    return sum(step[name] for step in steps) / len(steps)
