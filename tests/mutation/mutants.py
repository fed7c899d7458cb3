"""Mistakes that would ruin a run quietly, each with the tests that must notice it: STYLE's mutation list, and what this house has seen since.

    python tests/mutation/mutants.py            every mutant in turn; exit code 1 if one survives
    python tests/mutation/mutants.py clip mask  those whose name has one of these words

A mutant is made in a copy of the source, never in the tree.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    """A mistake: in `file`, which stands under src/truing, `right` (there once) becomes `wrong`; one of `tests` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


LOSSES, KL, ADVANTAGES = "tests/policy/test_losses.py", "tests/policy/test_kl.py", "tests/policy/test_advantages.py"
PREFERENCES, REWARD, ALGORITHMS = "tests/policy/test_preference_losses.py", "tests/reward/test_losses.py", "tests/policy/test_algorithms.py"
TEAM, WHOLE, DIAGNOSIS = "tests/policy/test_team.py -k ppo", "tests/models/test_whole.py", "tests/policy/test_diagnosis.py"
MUTANTS = (
    # the sign of each loss
    Mutant("surrogate: sign", "policy/losses.py", "loss = -masked_mean(torch.minimum(free, held)", "loss = masked_mean(torch.minimum(free, held)", LOSSES),
    Mutant("reinforce: sign", "policy/losses.py", "return -masked_mean(_real(logprobs, mask) *", "return masked_mean(_real(logprobs, mask) *", LOSSES),
    Mutant("value loss: sign", "policy/losses.py", "mask, denominator) / 2\n    clip", "mask, denominator) / -2\n    clip", LOSSES),
    Mutant("bradley-terry: sign", "reward/losses.py", "F.binary_cross_entropy_with_logits(lead,", "-F.binary_cross_entropy_with_logits(lead,", REWARD),
    Mutant("dpo: sign", "policy/preference_losses.py", "_with_logits(beta * moved, target", "_with_logits(-beta * moved, target", PREFERENCES),
    Mutant("ipo: sign", "policy/preference_losses.py", "wanted = 1 / (2 * beta)", "wanted = -1 / (2 * beta)", PREFERENCES),
    Mutant("q-learning: sign", "policy/algorithms/q_learning.py", "beta * (new.logprobs - ref_logprobs)", "beta * (ref_logprobs - new.logprobs)", ALGORITHMS),
    Mutant("kl: sign", "policy/kl.py", "return logprobs - ref_logprobs.detach()", "return ref_logprobs.detach() - logprobs", KL),
    Mutant("price of kl: sign", "policy/kl.py", "(-beta * kl.detach())", "(beta * kl.detach())", KL),
    Mutant("entropy: sign of its gradient", "models/logprobs.py", "(-temperature * found.total", "(temperature * found.total", "tests/models/test_logprobs.py"),
    Mutant("output matrix: not learned", "models/logprobs.py", "addmm_(grad.T, rows[here])", "addmm_(0 * grad.T, rows[here])", "tests/models/test_logprobs.py"),
    # chosen and rejected
    Mutant("bradley-terry: swapped", "reward/losses.py", "lead = chosen - rejected", "lead = rejected - chosen", REWARD),
    Mutant("dpo: swapped", "policy/preference_losses.py", "(chosen - ref_chosen.detach()) - (rej", "(rejected - ref_chosen.detach()) - (rej", PREFERENCES),
    # the mask
    Mutant("mask: dropped", "policy/losses.py", "return x.masked_fill(~mask, 0)", "return x", LOSSES),
    Mutant("mask: kl of padding", "policy/kl.py", "return kl.masked_fill(~mask, 0).sum(dim=1)", "return kl.sum(dim=1)", KL),
    Mutant("mask: whitened over padding", "policy/advantages.py", "mean = masked_mean(x, mask)", "mean = x.mean()", ADVANTAGES),
    Mutant("mask: gae reads padding", "policy/advantages.py", "rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)", "rewards, values", ADVANTAGES),
    # the clip
    Mutant("clip: max for min", "policy/losses.py", "-masked_mean(torch.minimum(free, held)", "-masked_mean(torch.maximum(free, held)", LOSSES),
    Mutant("clip: min for max of the value", "policy/losses.py", "masked_mean(torch.maximum(free, held)", "masked_mean(torch.minimum(free, held)", LOSSES),
    Mutant("clip: the upper bound is lost", "policy/losses.py", "clip if clip_high is None else clip_high", "clip", LOSSES),
    Mutant("ratio: not held", "policy/losses.py", ".clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)", "", LOSSES),
    # the mean
    Mutant("mean: a response's own length", "policy/losses.py", '"responses": len(lengths) * lengths', '"responses": lengths * lengths', LOSSES),
    Mutant("mean: a part's own", "policy/losses.py", "mask.sum() if denominator is None else denominator)", "mask.sum())", LOSSES),
    # where the score stands, and which state predicts a token
    Mutant("score: on the first token", "policy/kl.py", "(positions * mask).amax(dim=1", "(positions * mask).amin(dim=1", KL),
    Mutant("shift: a token predicts itself", "models/sequences.py", "[self._flat(shift=-1)]", "[self._flat(shift=0)]", "tests/models/test_logprobs.py"),
    Mutant("shift: in a row, too", "models/packed.py", "[border - 1] if length", "[border] if length", "tests/models/test_packed.py"),
    Mutant("attention: an answer's token sees the next", "models/packed.py", "triu_(prompt + 1)", "triu_(prompt + 2)", "tests/models/test_packed.py"),
    Mutant("temperature: forgotten", "models/logprobs.py", "below.div_(temperature)", "below.div_(1.0)", "tests/models/test_logprobs.py"),
    # constants that would be trained
    Mutant("detach: the reference", "policy/kl.py", "return logprobs - ref_logprobs.detach()", "return logprobs - ref_logprobs", KL),
    Mutant("detach: the old policy", "policy/losses.py", "logprobs - old_logprobs.detach()", "logprobs - old_logprobs", LOSSES),
    Mutant("detach: advantages", "policy/losses.py", "advantages = _real(advantages.detach(), mask)", "advantages = _real(advantages, mask)", LOSSES),
    Mutant("detach: dpo's reference", "policy/preference_losses.py", "(chosen - ref_chosen.detach())", "(chosen - ref_chosen)", PREFERENCES),
    # advantages
    Mutant("gae: lambda forgotten", "policy/advantages.py", "delta + gamma * lam * next_advantage", "delta + gamma * next_advantage", ADVANTAGES),
    Mutant("gae: the state's own value", "policy/advantages.py", "gamma * next_value - values[:, t]", "gamma * values[:, t] - values[:, t]", ADVANTAGES),
    Mutant("rloo: oneself among the siblings", "policy/advantages.py", "- rewards) / (rewards.shape[1] - 1)", ") / rewards.shape[1]", ADVANTAGES),
    Mutant("grpo: variance for deviation", "policy/advantages.py", "keepdim=True).sqrt() + eps", "keepdim=True) + eps", ADVANTAGES),
    Mutant("q-learning: the path is paid for twice", "policy/advantages.py", "return (returns + advantages)", "return (returns - advantages)", ADVANTAGES),
    Mutant("grpo: k3 for k2 in the loss", "policy/algorithms/grpo.py", "masked_mean(k2(", "masked_mean(k3(", ALGORITHMS),
    Mutant("best-of-n: the worst", "policy/algorithms/best_of_n.py", "scores.amax(1", "scores.amin(1", ALGORITHMS),
    # what goes through several hands
    Mutant("team: everybody goes by a gradient of its own", "policy/team.py", "    dist.all_reduce(flat)\n", "", TEAM),
    Mutant("team: each sees its own part alone", "policy/online.py", "seen = self.team.added(seen,", "seen = dict(seen) or dict(seen,", TEAM),
    Mutant("whole weights: the base isn't put back", "models/whole.py", "place.module._parameters[place.leaf] = place.base", "pass", WHOLE),
    Mutant("whole weights: a shared matrix becomes two", "models/whole.py", "names.setdefault(id(parameter), bare", "names.setdefault(id(module), bare", WHOLE),
    Mutant("checkpoint: the seal isn't looked at", "policy/checkpoint.py", "        if _whole(place):", "        if True:", "tests/policy/test_checkpoint.py"),
    Mutant("watch: the newest for the best", "policy/diagnosis.py", "if found > best and _steady", "if _steady", DIAGNOSIS),
    Mutant("watch: however it fails", "policy/diagnosis.py", "if found > best and _steady(rows[:end])", "if found > best", DIAGNOSIS),
    # people
    Mutant("people: a repeated judgement counts twice", "store/judgements.py", "if row.id not in superseded:", "if True:", "tests/store/test_judgements.py"),
    Mutant("people: A is always left", "feedback/assignment.py", "j = below(i + 1, random_bits)", "j = i", "tests/feedback/test_assignment.py -k order"),
)  # fmt: skip


def survived(mutant: Mutant, folder: Path) -> tuple[bool, float]:
    """Whether its tests pass all the same, and the seconds that the slowest of them took, or the first that failed."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source)
    file = source / "truing" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.right) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.right!r} stands {text.count(mutant.right)} times in {mutant.file}; the list must be brought up to date")
    file.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *mutant.tests.split()]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: the tests did not run\n{done.stdout}{done.stderr}")
    return done.returncode == 0, time.monotonic() - began


def main() -> int:
    """Try each; say which survived."""
    words = sys.argv[1:]
    alive = []
    for mutant in MUTANTS:
        if words and not any(word in mutant.name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            lives, seconds = survived(mutant, Path(folder))
        print(f"{'SURVIVED' if lives else 'killed':9} {seconds:5.1f} s  {mutant.name}", flush=True)
        alive += [mutant.name] if lives else []
    print(f"{len(alive)} survived" if alive else "all were killed")
    return int(bool(alive))


if __name__ == "__main__":
    sys.exit(main())
