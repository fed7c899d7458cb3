"""How long the joint fit takes: the judgements of a simulated crowd, beside crowd-kit's Dawid-Skene and MACE on the same votes.

    PYTHONPATH=tests python -m benchmarks.studio.fit [--judgements 2000 20000] [--times 3]

All three take turns; the medians are compared. Everyone answers 200 questions, three people each. Crowd-kit's two see which side was chosen; the
joint fit sees strengths, sides and check questions as well. The last line of stdout is one JSON object; the same is written to studio-fit-DATE.json.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.studio.trust_simulated import Work, work

from studio.bench import record
from truing.feedback.joint import fit
from truing.feedback.joint_model import Priors
from truing.feedback.said import evidence_of
from truing.feedback.second_opinion import ROUNDS_OF_DAWID_SKENE, STARTS_OF_MACE, numpy_left_alone
from truing.feedback.simulated import CrowdSettings, make_crowd

EACH, OVERLAP, CHECKS = 200, 3, 8


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--judgements", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    found = [measured(n, arguments.times) for n in arguments.judgements]
    record(
        "studio-fit",
        "seconds that a fit of a crowd's judgements takes",
        {"each": EACH, "overlap": OVERLAP, "checks_each": CHECKS, "fits": found},
        arguments.out,
    )


def measured(judgements: int, times: int) -> dict[str, Any]:
    """Seconds of the clock and of the processor, medians, for each way."""
    people = round(judgements / EACH)
    done = work(1, make_crowd(CrowdSettings(annotators=people, spoilers=people // 5), 1), each=EACH, overlap=OVERLAP, n_checks=CHECKS)
    dawid_skene, mace = rivals(done)
    ways: dict[str, Callable[[], object]] = {
        "joint": lambda: fit(evidence_of(done.log.said, done.log.gold, []), Priors()),
        "dawid_skene": dawid_skene,
        "mace": mace,
    }
    clock: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, way in ways.items():
            began, spent = time.perf_counter(), time.process_time()
            way()
            clock[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - spent)
    row: dict[str, Any] = {"judgements": len(done.log.said), "people": people, "questions": len(done.pairs) + CHECKS}
    row |= {f"{name}_s": round(median(clock[name]), 2) for name in ways} | {f"{name}_processor_s": round(median(processor[name]), 2) for name in ways}
    print(row, flush=True)
    return row


def rivals(done: Work) -> Sequence[Callable[[], object]]:
    """Crowd-kit's two with as many rounds and starts as the second opinion gives them."""
    import pandas as pd
    from crowdkit.aggregation import MACE, DawidSkene

    votes = [(one.question, one.annotator, side(one.answer)) for one in done.log.said]
    frame = pd.DataFrame(votes, columns=["task", "worker", "label"])

    def alone(way: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with numpy_left_alone(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return way()

        return run

    return (
        alone(lambda: DawidSkene(n_iter=ROUNDS_OF_DAWID_SKENE).fit(frame)),
        alone(lambda: MACE(n_restarts=STARTS_OF_MACE, random_state=0).fit(frame)),
    )


def side(answer: Any) -> str:
    """Which response was chosen."""
    strength = answer.get("strength", 0)
    return "a" if strength > 0 else "b" if strength < 0 else "tie"


if __name__ == "__main__":
    main()
