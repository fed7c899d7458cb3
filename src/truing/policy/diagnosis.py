"""What went wrong in a tuning run, by name, read from its log rows (PPO.md, "Named failures"). Pure, and without torch.

A check speaks once it is sure. It compares the mean of the last few updates with that of the first few, so that one odd
batch says nothing, and each failure is named once, at the first update where it shows. A check whose numbers a row
lacks (a critic under RLOO, the bound of a single reward model) stays silent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

WINDOW = 3  # updates averaged for "now" and for "at the start"
CRITIC_PATIENCE, CRITIC_WINDOW = 20, 10  # updates before a critic is judged, and over how many: a batch's explained variance is a noisy number
SURE = 6.0  # standard errors of a window's mean: the best of 200 windows of mere noise stands out by under 3, the rest is margin
LEAST_MOVE = 0.1  # standard deviations of the score: less than this isn't worth a word, however sure it is
NATS_PER_RESPONSE, NATS_PER_TOKEN = 6.0, 0.1  # targets where the run has none: Ziegler et al. 2019, and verl's; the larger of the two counts
# In fp32 the same forward pass in other kernels moves a ratio by about 1e-5 at most; the least dropout, or bf16 in other kernels, moves it by over 1e-3.
RATIO_TOLERANCE = 1e-4
# Nats per token between what draws and what learns: a twentieth of the KL at which an update stops is too much, whatever made it.
GAP_TOLERANCE = 0.01
HARMLESS = frozenset({"dead critic"})  # a critic that says nothing slows learning, and spoils nothing


class Finding(NamedTuple):
    """A named failure.

    Attributes:
        failure: its name.
        sign: what the log shows, in numbers.
        say: what to do about it; settings are named as `--set` takes them.
        update: the first update (from 1) at which it is sure.
    """

    failure: str
    sign: str
    say: str
    update: int


Rows = Sequence[Mapping[str, float]]  # metrics.jsonl up to some update; names and units: `policy.metrics.measure`
Said = tuple[str, str] | None  # a sign and a remedy


def diagnose(rows: Rows) -> list[Finding]:
    """Every named failure of a run, in the order in which they showed."""
    findings: list[Finding] = []
    for end in range(1, len(rows) + 1):
        findings += newly(rows[:end], findings)
    return findings


def fatal(rows: Rows) -> Finding | None:
    """The failure that the newest update shows, if there is one after which going on makes a policy worse or its numbers wrong."""
    return next((found for found in newly(rows, []) if found.failure not in HARMLESS), None) if rows else None


def best_update(rows: Rows) -> int:
    """After how many updates a policy was at its best; 0: as it was at the start.

    The best is where the score's lower bound over the reward ensemble (the score, where there is none), less beta times KL, was highest in the mean of a few
    updates: what tuning maximises, with the doubt taken off. Updates at which a failure showed, or was half of its way, don't count, for a score that is being
    fooled is highest where the policy is worst.
    """
    best, update = -math.inf, 0
    for end in range(WINDOW, len(rows) + 1):
        found = _mean([_worth(row) for row in rows[end - WINDOW : end]])
        if found > best and _steady(rows[:end]) and fatal(rows[:end]) is None:
            best, update = found, int(rows[end - 1]["update"])
    return update


def _worth(row: Mapping[str, float]) -> float:
    """In standard deviations of the score."""
    return row.get("objective/scores_lower", row["objective/scores"]) - row["objective/beta"] * row["objective/kl"]


def _steady(rows: Rows) -> bool:
    """No failure that a score may hide has come half of its way, in logs."""
    length, ends, entropy = (_start_and_now(rows, name) for name in ("response/length", "response/eos_rate", "objective/entropy"))
    shrunk = length is not None and length[1] < length[0] / 2
    endless = length is not None and ends is not None and length[1] > 1.12 * length[0] and ends[1] < 0.7 * ends[0]
    narrow = entropy is not None and entropy[1] < entropy[0] / math.sqrt(10)
    far = _mean(_column(rows[-WINDOW:], "objective/kl") or [0.0]) > math.sqrt(3) * _kl_target(rows)
    return not (shrunk or endless or narrow or far)


def newly(rows: Rows, known: Sequence[Finding]) -> list[Finding]:
    """The failures that show at the last of these updates and weren't known before."""
    unknown = {failure: check for failure, check in CHECKS.items() if failure not in {found.failure for found in known}}
    return [Finding(failure, *said, int(rows[-1]["update"])) for failure, check in unknown.items() if (said := check(rows)) is not None]


def _reward_hacking(rows: Rows) -> Said:
    """The score rises while the lower bound of the reward ensemble falls from its peak."""
    scores, lower = _column(rows, "objective/scores"), _column(rows, "objective/scores_lower")
    if scores is None or lower is None or len(rows) < 2 * WINDOW:
        return None
    spread = _mean(_column(rows, "objective/scores_std") or [1.0])
    smooth = [_mean(lower[end - WINDOW : end]) for end in range(WINDOW, len(rows) + 1)]
    peak = smooth.index(max(smooth)) + WINDOW
    fall = max(smooth) - smooth[-1]
    rise = _mean(scores[-WINDOW:]) - _mean(scores[peak - WINDOW : peak])
    if fall < max(SURE * _noise(lower), LEAST_MOVE * spread) or rise < max(SURE * _noise(scores), LEAST_MOVE * spread):
        return None
    best = int(rows[peak - 1]["update"])
    return (
        f"since update {best} the score rose by {rise:.2f} while the ensemble's lower bound fell by {fall:.2f}",
        f"stop at update {best} (tune.updates={best}), raise tune.beta, or tune against the ensemble's lower bound",
    )


def _eos_collapse(rows: Rows) -> Said:
    """Answers shrink to a quarter."""
    length = _start_and_now(rows, "response/length")
    if length is None or length[1] >= length[0] / 4:
        return None
    return (
        f"mean length fell from {length[0]:.1f} to {length[1]:.1f} tokens",
        "the reward model likes short answers: see the length slope on its card and balance its pairs by length; raise tune.beta, lower tune.lr",
    )


def _length_run_away(rows: Rows) -> Said:
    """Answers grow and no longer end."""
    length, ends = _start_and_now(rows, "response/length"), _start_and_now(rows, "response/eos_rate")
    if length is None or ends is None or length[1] < 1.25 * length[0] or ends[1] > min(ends[0] / 2, ends[0] - 0.15):
        return None
    return (
        f"mean length rose from {length[0]:.1f} to {length[1]:.1f} tokens while the share of answers that end fell from {ends[0]:.2f} to {ends[1]:.2f}",
        'make a cut-off answer cost something (tune.truncation="set", a larger tune.truncation_penalty), or use a reward that takes the effect of length out',
    )


def _mode_collapse(rows: Rows) -> Said:
    """The policy hardly varies any more: its entropy is a tenth, and its answers repeat themselves or one another."""
    entropy, distinct = _start_and_now(rows, "objective/entropy"), _start_and_now(rows, "response/distinct2")
    if entropy is None or distinct is None or entropy[1] >= entropy[0] / 10 or distinct[1] >= 0.8 * distinct[0]:
        return None
    return (
        f"entropy fell from {entropy[0]:.3f} to {entropy[1]:.3f} nats per token, distinct-2 from {distinct[0]:.2f} to {distinct[1]:.2f}",
        "lower tune.lr, raise tune.beta, or stop earlier (tune.updates)",
    )


def _kl_blow_up(rows: Rows) -> Said:
    """The policy is three times further from the base than it should be."""
    kl = _column(rows[-WINDOW:], "objective/kl")
    if kl is None or len(kl) < WINDOW or _mean(kl) <= 3 * (target := _kl_target(rows)):
        return None
    sign = f"KL is {_mean(kl):.1f} nats per response, over three times "
    if "objective/kl_target" in rows[-1]:
        return f"{sign}its target of {target:.1f}", "lower tune.lr, or tune.kl_horizon so that beta follows faster"
    return f"{sign}the customary {target:.1f}", f"let beta adapt (tune.kl_target_nats={target:.0f}) or raise tune.beta, and lower tune.lr"


def _kl_target(rows: Rows) -> float:
    """Nats per response: the run's own target, or the customary one for answers of this length."""
    return rows[-1].get("objective/kl_target", max(NATS_PER_RESPONSE, NATS_PER_TOKEN * _mean(_column(rows[-WINDOW:], "response/length") or [0.0])))


def _negative_kl(rows: Rows) -> Said:
    """k1 below zero by more than three standard errors in all: a true KL can't be."""
    kl, errors = _column(rows[-WINDOW:], "objective/kl"), _column(rows[-WINDOW:], "objective/kl_stderr")
    if kl is None or errors is None or len(kl) < WINDOW:
        return None
    error = math.hypot(*errors) / len(errors)
    if max(kl) >= 0 or _mean(kl) >= -max(3 * error, 1e-3):
        return None
    return (
        f"KL is {_mean(kl):.3f} nats per response with a standard error of {error:.3f}: a KL is never negative",
        "the log-probabilities are of another distribution than the answers': another temperature (samples.temperature), a wrong mask, "
        'or a reference with dropout; model.dtype="fp32" rules rounding out',
    )


def _dead_critic(rows: Rows) -> Said:
    """Value estimates no better than a constant, over enough batches that noise averages out."""
    explained = _column(rows[-CRITIC_WINDOW:], "value/explained_variance")
    if explained is None or len(rows) < CRITIC_PATIENCE or _mean(explained) > 0:
        return None
    return (
        f"explained variance was {_mean(explained):.2f} on average over {len(explained)} updates, after {len(rows)} updates",
        "warm the critic up (tune.critic_warmup), raise tune.value_weight or tune.value_clip, check that scores have a standard deviation near 1, "
        'or do without a critic (tune.algorithm="rloo")',
    )


def _stale_ratios(rows: Rows) -> Said:
    """The first step of an update must see the very policy that drew the answers. Nothing random is in its ratios, so one update is proof; how far the
    drawing distribution lies from the one that is learned from is an estimate, of which it takes a few."""
    error = rows[-1].get("policy/first_ratio_error")
    if error is not None and error > RATIO_TOLERANCE:
        return (
            f"the ratio of the first step is off 1 by {error:.1e}",
            "dropout is on, or the pass with gradients runs in other kernels than the one without: report it as a bug of Truing",
        )
    gaps = _column(rows[-WINDOW:], "policy/sampling_gap")
    if gaps is None or len(gaps) < WINDOW or _mean(gaps) <= GAP_TOLERANCE:
        return None
    return (
        f"answers are drawn {_mean(gaps):.3f} nats per token from the policy that learns from them",
        'sampling and training run in different kernels or number types: try model.dtype="fp32"',
    )


CHECKS: dict[str, Callable[[Rows], Said]] = {
    "reward hacking": _reward_hacking,
    "EOS collapse": _eos_collapse,
    "length run-away": _length_run_away,
    "mode collapse": _mode_collapse,
    "KL blow-up": _kl_blow_up,
    "negative KL": _negative_kl,
    "dead critic": _dead_critic,
    "stale ratios": _stale_ratios,
}


def _column(rows: Rows, name: str) -> list[float] | None:
    """A number of every row, or None where a row lacks it."""
    found = [row[name] for row in rows if name in row]
    return found if len(found) == len(rows) else None


def _start_and_now(rows: Rows, name: str) -> tuple[float, float] | None:
    """Means of the first and of the last few updates, once these don't overlap."""
    start, now = _column(rows[:WINDOW], name), _column(rows[-WINDOW:], name)
    return None if start is None or now is None or len(rows) < 2 * WINDOW else (_mean(start), _mean(now))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _noise(values: Sequence[float]) -> float:
    """Standard error of a window's mean, from the differences of neighbours (von Neumann et al. 1941), which a slow
    trend hardly enters."""
    variance = _mean([(after - before) ** 2 for before, after in pairwise(values)]) / 2
    return math.sqrt(variance / WINDOW)
