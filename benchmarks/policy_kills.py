"""Is a tuning run that was killed the run it would have been? kill -9 at random moments, the same command again, until it ends: the same policy?

    PYTHONPATH=tests python -m benchmarks.policy_kills [--kills 50] [--each 10] [--algorithms ppo dpo] [--out benchmarks/results]

A run of the tests' tiny model takes about two seconds, in which it can be killed about ten times; another run is begun until the kills are spent. Writes
policy-kills-DATE.json; the last line of stdout is the same. Exit code 1 if one policy differs from an unbroken run's.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from policy.killed import policies
from studio.bench import record
from tiny import make_tiny_model


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each algorithm")
    parser.add_argument("--each", type=int, default=10, help="of these, of one run at most")
    parser.add_argument("--algorithms", nargs="+", default=["ppo", "dpo"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    found = {}
    for algorithm in arguments.algorithms:
        kills = unlike = runs = 0
        while kills < arguments.kills:
            now = min(arguments.each, arguments.kills - kills)
            with tempfile.TemporaryDirectory() as scratch:
                model = Path(scratch) / "model"
                model.mkdir()
                ended, moments = policies(Path(scratch), make_tiny_model(model), algorithm, now)
            kills, runs, unlike = kills + now, runs + 1, unlike + (len(ended) < 2 or set(ended) != {ended[0]})
            print(f"{algorithm}: {kills} kills, {unlike} of {runs} runs unlike the unbroken one (last: {[round(one, 2) for one in moments]} s)", flush=True)
        found[algorithm] = {"kills": kills, "runs": runs, "unlike": unlike}
    record("policy-kills", "tuning runs killed with SIGKILL and taken up again, against an unbroken one with the same seed", found, arguments.out)
    sys.exit(any(one["unlike"] for one in found.values()))


if __name__ == "__main__":
    main()
