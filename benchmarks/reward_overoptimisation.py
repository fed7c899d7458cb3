"""Does an ensemble's lower bound resist over-optimisation? A policy is pushed away from the base by a proxy that learned from noisy pairs, while the gold
reward that made the labels is known: best-of-n up to n = 256, and PPO without a price of KL up to 20 nats (the experiment of Gao et al. 2022,
arXiv:2210.10760, with the ensembles of Coste et al. 2023, arXiv:2310.02743).

    python -m benchmarks.reward_overoptimisation --json                                                           whole: hours
    python -m benchmarks.reward_overoptimisation --stopped 0 --name reward-overoptimisation-unstopped --json      from pairs without short answers
    python -m benchmarks.reward_overoptimisation --train 60 --per-prompt 2 --stopped 1 --pairs 60 --tokens 16 --held-out 8 --n 16 --draws 2 \
        --ppo-draws 1 --ppo-updates 2 --ppo-samples 8 --ppo-each 1 --out /tmp/trial                               a trial: minutes

A run that was killed goes on where it was when the same command is given again; with more prompts, draws, updates or nats, what there is serves again.

**Gold** is the taste of the demo's simulated people (truing/feedback/taste.py, docs/taste.md): published, a function of text, and of another kind than any
proxy. It counts endings, words that speak of what was asked, borrowed phrases, repetition, feeling; a proxy reads hidden states of the model, has seen a few
hundred pairs of the base's own responses, and gets it partly right. A larger reward model as gold, as Gao et al. have it, would itself be a guess learned from
people, which no reader can check, and on the same states as the proxies, so that it would share what they can't see. What this gold can't show is a taste that
is itself vague.

**Labels**: pairs of responses to one prompt, one label each, drawn by Bradley and Terry's model with the noise that --noise says. The responses are the base's,
half of them stopped early at a random place, with an end token, as if by a policy that says less. With --stopped 0 proxies have seen no answer of a few tokens.
In a trial of one draw, PPO's find then was silence: after 14 updates every answer of the policy under the single model was the end token alone, gold had
fallen by 4.7 and KL stood at the 16 nats that this costs; under the lower bound answers still had 7 tokens after 15. The default was chosen after that trial,
so that 20 nats can be reached; run both.

**Arms**: `mean`, `lower` (less a standard deviation) and `worst` of one ensemble as `truing reward train` fits it, its members apart by the weights of a
Bayesian bootstrap over prompts (and their beginnings, with --head mlp); `single` is the same fit with one member, which heeds all pairs alike: what one
would have without an ensemble.

**Best of n**: of 256 responses of the base to each held-out prompt, the expected gold of the one with the highest proxy among n, over all choices of n (no luck
of one choice). **PPO**: as `truing tune`, on train prompts; gold is read from fresh responses to held-out prompts, compared at the furthest distance that every
arm came to. Scores of gold and proxies have mean 0 and standard deviation 1 on responses of the base. x is KL in nats (Gao et al. draw its square root), for
best-of-n log n - (n - 1) / n. Intervals are over prompts and, where there are several draws of labels, over draws; PPO's with one draw know nothing of
another's luck. For the linear head `single` and `mean` are nearly one reward, so that how far their policies differ shows what luck does.

Writes NAME-DATE.json and .html to --out, after best-of-n and after each policy; with --json the last line of stdout is the JSON.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.overoptimisation.page import page
from benchmarks.overoptimisation.tuning import Station, ppo_settings, tuned
from benchmarks.overoptimisation.world import ARMS, Floats, Plan, World, arms_of

from truing.config import write_atomically
from truing.console import result, say, speak_json
from truing.evaluation.overoptimization import Course, agreement, lead, mean, stations, summary, verdict
from truing.models.precision import machine
from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.reward.card.scores import best_of, kl_of_best
from truing.reward.train import RewardSettings
from truing.stats import plain

Json = dict[str, Any]
SEED = 1
RIVALS = (("lower", "single"), ("worst", "single"), ("mean", "single"), ("lower", "mean"))
STEP_NATS = 1.0  # between the points of a tuned policy's curve


def main() -> None:
    """Draw, learn, push, compare, write."""
    arguments = parsed()
    speak_json(arguments.json)
    plan = Plan(SEED, arguments.train, arguments.tokens, arguments.temperature, arguments.per_prompt, arguments.stopped, arguments.pairs, arguments.noise)
    settings = RewardSettings(head=arguments.head, members=arguments.members)
    world = World(open_trunk(ModelSettings(name=arguments.model)), arguments.work, plan, settings)
    told: Json = {name: value for name, value in vars(arguments).items() if name not in ("out", "work", "json")}
    found: Json = {"what": "gold and proxy against KL from the base", "date": datetime.date.today().isoformat(), "machine": machine(), "settings": told}
    found["gold"] = {"mean": world.mean, "std": world.std, "reference": len(world.reference)}
    found |= best_of_n(world, arguments.held_out, arguments.n, arguments.draws)
    written(found, arguments.out)
    say(f"best of n: {found['best_of_n']['verdict']}")
    pushed(world, found, arguments)
    result(found)


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Best-of-n and PPO against one reward model, an ensemble's mean, its lower bound and its worst member.")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--head", choices=("linear", "mlp"), default="linear", help="of the proxies")
    parser.add_argument("--members", type=int, default=8, help="of the ensemble")
    parser.add_argument("--pairs", type=int, default=400, help="labelled pairs that a proxy learns from")
    parser.add_argument("--noise", type=float, default=1.0, help="of a label, in standard deviations of gold")
    parser.add_argument("--train", type=int, default=1000, help="train prompts, at most")
    parser.add_argument("--per-prompt", type=int, default=4, help="responses to each train prompt, of which pairs are made")
    parser.add_argument("--stopped", type=int, default=2, help="of these, how many are stopped early")
    parser.add_argument("--tokens", type=int, default=40, help="most tokens of a response")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--held-out", type=int, default=32, help="held-out prompts")
    parser.add_argument("--n", type=int, default=256, help="responses to each of them")
    parser.add_argument("--draws", type=int, default=32, help="draws of labels, each with proxies of its own")
    parser.add_argument("--ppo-draws", type=int, default=3, help="of these, against how many to tune; 0: best-of-n alone")
    parser.add_argument("--ppo-arms", nargs="+", choices=list(ARMS), default=["single", "mean", "lower"])
    parser.add_argument("--ppo-nats", type=float, default=20.0, help="KL per response at which a policy is far enough")
    parser.add_argument("--ppo-updates", type=int, default=100, help="after which it is given up")
    parser.add_argument("--ppo-samples", type=int, default=32, help="responses in an update")
    parser.add_argument("--ppo-each", type=int, default=2, help="responses to each held-out prompt at a look")
    parser.add_argument("--ppo-lr", type=float, default=5e-4)
    parser.add_argument("--work", type=Path, default=Path(".cache/overoptimisation"), help="where responses, features, heads and policies are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--name", default="reward-overoptimisation", help="of the files")
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    return parser.parse_args()


# ---- best of n ----


def best_of_n(world: World, prompts: int, most: int, draws: int) -> Json:
    """How right the proxies are, and the best of n by each arm."""
    samples = world.draw(world.held_out[:prompts], most, "best of n")
    gold = world.gold(samples).reshape(-1, most)
    features = world.features(samples, "features")
    said = [{arm: scores.reshape(-1, most) for arm, scores in arms_of(world.proxies(draw), features).items()} for draw in range(draws)]
    facts = [world.facts(draw) for draw in range(draws)]
    right = {arm: plain(mean(np.stack([agreement(one[arm], gold) for one in said]), seed=SEED)) for arm in ARMS}
    courses = {arm: best_of_course([one[arm] for one in said], gold) for arm in ARMS}
    against = float(np.mean([one["against"] for one in facts]))
    return {"proxies": {"right": right, "labels_against_gold": against, "draws": facts}, "best_of_n": compared(courses)}


def best_of_course(scores: list[Floats], gold: Floats) -> Course:
    """n = 1, 2, 4 ... up to N, from a draw's (P, N) each and (P, N)."""
    counts = [2**power for power in range(gold.shape[1].bit_length())]
    proxy, chosen = (
        np.array([[[best_of(row, n, of=of) for row, of in zip(one, values, strict=True)] for n in counts] for one, values in columns])
        for columns in ([(one, one) for one in scores], [(one, gold) for one in scores])
    )
    return Course(np.array([kl_of_best(n) for n in counts]), proxy, chosen)


# ---- tuning ----


def pushed(world: World, found: Json, arguments: argparse.Namespace) -> None:
    """Tune against each arm and note how it went; the result so far is written after each policy."""
    settings = ppo_settings(arguments.ppo_lr, arguments.ppo_samples)
    seen: dict[str, list[list[Station]]] = {}
    for draw in range(arguments.ppo_draws):
        heads = world.proxies(draw)
        for arm in arguments.ppo_arms:
            way = tuned(
                world, heads, arm, settings, prompts=world.held_out[: arguments.held_out], each=arguments.ppo_each, target=arguments.ppo_nats,
                limit=arguments.ppo_updates, draw=draw,
            )  # fmt: skip
            seen.setdefault(arm, []).append(way)
            done = draw + (arm == arguments.ppo_arms[-1])  # draws that every arm has gone through
            whole = {name: ways[: max(done, 1)] for name, ways in seen.items()}
            found["ppo"] = ppo(whole, arguments.ppo_nats)
            written(found, arguments.out)
            say(f"ppo, {', '.join(whole)}: {found['ppo']['verdict']}")


def ppo(ways: dict[str, list[list[Station]]], target: float) -> Json:
    """Every arm up to the furthest that all of them came to, in all draws, or the target."""
    reached = {arm: [max(station["kl_nats"] for station in way) for way in own] for arm, own in ways.items()}
    end = min(target, *(nats for own in reached.values() for nats in own))
    courses = {arm: ppo_course(arm, own, end) for arm, own in ways.items()}
    came = {arm: [ended(way, nats >= target) for nats, way in zip(reached[arm], own, strict=True)] for arm, own in ways.items()}
    return {"compared_at_nats": end, "reached": came, **compared(courses)}


def ended(way: list[Station], enough: bool) -> Json:
    """How far a policy came, and what its responses look like there."""
    last = way[-1]
    looks = {name: last[name] for name in ("kl_stderr", "tokens", "ended", "base_logprob", "text")}
    return {"kl_nats": max(station["kl_nats"] for station in way), "updates": last["update"], "enough": enough, "last": looks}


def ppo_course(arm: str, ways: list[list[Station]], end: float) -> Course:
    """Gold and the arm's own score at every nat up to the end, and there."""
    goals = np.append(np.arange(0.0, end, STEP_NATS), end) if end > 0 else np.zeros(1)
    proxy = np.stack([_at(way, [one["proxy"][arm] for one in way], goals) for way in ways])
    gold = np.stack([_at(way, [one["gold"] for one in way], goals) for way in ways])
    return Course(goals, proxy, gold)


def _at(way: list[Station], values: list[list[float]], goals: Floats) -> Floats:
    """(G, P); rounding must not put the base behind itself."""
    return stations(np.array([one["kl_nats"] for one in way]).clip(min=0), np.array(values), goals)


# ---- what it comes to ----


def compared(courses: dict[str, Course]) -> Json:
    """Each arm in numbers, and how much gold one has more than another at the end."""
    arms = {arm: summary(course, seed=SEED) for arm, course in courses.items()}
    leads = {
        f"{one} less {other}": [
            {"kl_nats": float(kl), **plain(lead(courses[one], courses[other], at=at, seed=SEED))} for at, kl in enumerate(courses[one].kl_nats)
        ]
        for one, other in RIVALS
        if {one, other} <= courses.keys()
    }
    at_the_end = {pair: rows[-1] for pair, rows in leads.items()}
    draws, _, prompts = next(iter(courses.values())).gold.shape
    found: Json = {"draws": draws, "prompts": prompts, "arms": arms, "leads": leads, "leads_at_the_end": at_the_end}
    return found | {"verdict": verdict(arms.get("single"), at_the_end.get("lower less single"))}


def written(found: Json, out: Path) -> None:
    """The result so far, as JSON and as a page."""
    name = f"{found['settings']['name']}-{found['date']}"
    write_atomically(out / f"{name}.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_atomically(out / f"{name}.html", page(found))


if __name__ == "__main__":
    main()
