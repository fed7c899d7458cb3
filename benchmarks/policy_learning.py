"""What each algorithm learns from as many answers: gold score on held-out prompts against answers drawn and against seconds, with TRL's RLOO beside them.

The demo's task: SmolLM2-135M answers everyday prompts, and the taste of docs/taste.md, a function that is known, is the reward. Each algorithm draws as many
answers to the same train prompts, under the demo's settings but for what is its own: dpo and sft learn from the base's, its best and worst answer to a prompt,
or its best one. At the base and after every quarter of the way the policy answers held-out prompts, always with the same seeds.

    python -m benchmarks.policy_learning --json
    python -m benchmarks.policy_learning --json --peer PYTHON          TRL 1.16's RLOO too, in that environment (see benchmarks/peers/trl_online.py)

Seconds are those of drawing, scoring and learning, without the looks. They are told as seconds of a machine that multiplies such matrices at 100 GFLOP/s in
fp32 or bf16, whichever the course ran in: seconds times this machine's own rate, measured before every update, and before and after a course of TRL's; so
that courses of other days, and of a machine that is shared, can be put side by side, if roughly. A run that was killed goes on where it was when the same
command is given again. A course that ended is kept in policy-learning/ beside the results, and isn't run again, so that three seeds of every algorithm may be
put together over some days. The result and its page are written as policy-learning-DATE.json and .html.
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.learning_page import page
from benchmarks.overoptimisation.world import Floats, Plan, Sample, World
from benchmarks.ppo_update import product_rate

from truing.config import write_atomically
from truing.console import result, say, speak_json
from truing.demo import SETTINGS
from truing.models.generate import generate
from truing.models.precision import machine
from truing.models.registry import ModelSettings, resolve
from truing.models.trunk import open_trunk
from truing.policy.algorithms import ALGORITHMS, OFFLINE
from truing.policy.examples import Example
from truing.policy.learner import Learner
from truing.policy.offline import OfflineLearner
from truing.policy.rollout import ROLE
from truing.policy.settings import OnlineSettings
from truing.policy.train import online_learner
from truing.reward.train import RewardSettings
from truing.store.ids import content_id, seed_from

Json = dict[str, Any]
Station = dict[str, Any]  # answers, seconds, kl_nats, gold (P,), tokens, text
TUNE = SETTINGS["tune"]
GROUP, EACH = 4, 32  # answers to a prompt, and in an update
PENALTY = TUNE["truncation_penalty"]  # of an answer that was cut off
ARMS: dict[str, Json] = {
    "ppo": {},
    "ppo, all layers": {"layers": "all"},
    "reinforce": {},
    "rloo": {},
    "grpo": {},
    "best-of-n": {},
    "q-learning": {},
    "dpo": {"lr": 5e-4, "epochs": 4, "batch": 16},
    "sft": {"lr": 5e-4, "epochs": 4, "batch": 16},
}
TRL = "TRL's rloo"
LOOKS = 4
RESAMPLES = 2000
RATE = 100e9  # operations a second of the machine whose seconds are told
PEER = Path(__file__).parent / "peers" / "trl_learning.py"


def main() -> None:
    """Tune, look, compare, write."""
    arguments = parsed()
    if arguments.reward:
        answer_for_ever(world_of(arguments))
        return
    speak_json(arguments.json)
    world = world_of(arguments)
    found: dict[str, list[list[Station]]] = {}
    for seed in range(1, arguments.seeds + 1):
        for arm in [*arguments.arms, *([TRL] if arguments.peer else [])]:
            found.setdefault(arm, []).append(kept(world, arm, seed, arguments))
        told = compared(found, seed, arguments)
        name = f"policy-learning-{told['date']}"
        write_atomically(arguments.out / f"{name}.json", json.dumps(told, indent=1) + "\n")
        write_atomically(arguments.out / f"{name}.html", page(told))
    result(told)


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=20, help=f"of {EACH} answers each; a multiple of {LOOKS}")
    parser.add_argument("--held-out", type=int, default=100, help="prompts that a policy is looked at on")
    parser.add_argument("--tokens", type=int, default=56, help="most tokens of an answer")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--peer", help="python of an environment with trl==1.16.0")
    parser.add_argument("--work", type=Path, default=Path(".cache/policy-learning"), help="where answers and policies are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    parser.add_argument("--reward", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def world_of(arguments: argparse.Namespace) -> World:
    """Prompts, the base's answers to them, and gold. As many train prompts as an online run draws answers to, each once."""
    plan = Plan(1, arguments.updates * EACH // GROUP, arguments.tokens, arguments.temperature, GROUP, 0, 0, 0.0)
    return World(open_trunk(ModelSettings(name=arguments.model)), arguments.work, plan, RewardSettings())


def kept(world: World, arm: str, seed: int, arguments: argparse.Namespace) -> list[Station]:
    """A course that ended earlier, here or elsewhere; else it is run, and kept."""
    plan = vars(world.plan) | {"settings": TUNE | ARMS.get(arm, {}), "held_out": arguments.held_out, "updates": arguments.updates, "model": arguments.model}
    file = file_of(arm, seed, arguments)
    if file.exists():
        known = json.loads(file.read_text())
        if known["plan"] == plan:
            return list(known["stations"])
    found = course_of_trl(world, seed, arguments) if arm == TRL else course(world, arm, seed, arguments)
    stations = [station | {"seconds": round(station["seconds"], 1), "gold": [round(one, 3) for one in station["gold"]]} for station in found]
    told = {"machine": machine(), "date": datetime.date.today().isoformat(), "gflops": round(rate(world) / 1e9, 1), "dtype": str(world.trunk.dtype)}
    write_atomically(file, json.dumps(told | {"plan": plan, "stations": stations}) + "\n")
    return stations


def file_of(arm: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Where a course that ended is kept."""
    return Path(arguments.out / "policy-learning" / f"{arm.replace(' ', '-').replace(',', '').replace(chr(39), '')}-{seed}.json")


def rate(world: World) -> float:
    """Operations a second of this machine, just now."""
    return product_rate(world.trunk, looks=3, each=1)


class Gold:
    """Gold as a reward: of tokens, by the text that a person would read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.text_of = {world.prompt_ids(text): text for text in world.train}

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """In standard deviations of the base's answers."""
        trunk, asked, said = self.world.trunk, [tuple(one) for one in prompts], [tuple(one) for one in responses]
        plain_logprobs = self.world.read(asked, said)[0].tolist()
        samples = [
            Sample(self.text_of[prompt], own, logprob, own[-1] in trunk.eos_ids) for prompt, own, logprob in zip(asked, said, plain_logprobs, strict=True)
        ]
        return [float(score) for score in self.world.gold(samples)]


def learner_of(world: World, arm: str, seed: int, updates: int) -> tuple[Learner, float]:
    """What tunes, and seconds that went into what it learns from."""
    algorithm = arm.partition(",")[0]
    kind = ALGORITHMS[algorithm].Settings
    if algorithm in OFFLINE:
        speed, began = rate(world) / RATE, time.perf_counter()
        examples = [example_of(world, algorithm, place) for place in range(0, len(world.pool), GROUP)]
        settings = kind.model_validate({"algorithm": algorithm, "layers": TUNE["layers"]} | ARMS[arm])
        scoring = time.perf_counter() - began
        return OfflineLearner(world.trunk, settings, examples, seed=seed), (scoring + seconds_of_the_pool(world)) * speed
    own: OnlineSettings = kind.model_validate(TUNE | {"algorithm": algorithm, "updates": updates, "samples": EACH, "group_size": GROUP} | ARMS[arm])
    asked = {text: list(world.prompt_ids(text)) for text in world.train}
    plan = world.plan
    return online_learner(world.trunk, own, asked, Gold(world), temperature=plan.temperature, max_new_tokens=plan.max_new_tokens, seed=seed), 0.0


def example_of(world: World, algorithm: str, place: int) -> Example:
    """The best of a prompt's answers, and for dpo the worst beside it."""
    own = world.pool[place : place + GROUP]
    gold = world.gold(own) - [0.0 if one.finished else PENALTY for one in own]
    best, worst = own[int(gold.argmax())], own[int(gold.argmin())]
    responses = (best.token_ids,) if algorithm == "sft" else (best.token_ids, worst.token_ids)
    return Example(best.prompt, world.prompt_ids(best.prompt), responses)


def seconds_of_the_pool(world: World) -> float:
    """What it takes to draw the base's answers, by drawing an update's worth again."""
    asked = [world.prompt_ids(one.prompt) for one in world.pool[:EACH]]
    began = time.perf_counter()
    generate(world.trunk, asked, range(len(asked)), max_new_tokens=world.plan.max_new_tokens, temperature=world.plan.temperature)
    return (time.perf_counter() - began) * len(world.pool) / EACH


def course(world: World, arm: str, seed: int, arguments: argparse.Namespace) -> list[Station]:
    """What was seen of a policy on its way."""
    learner, seconds = learner_of(world, arm, seed, arguments.updates)
    folder = place_of(world, arm, seed, learner.settings.model_dump(mode="json"), arguments)
    seen: list[Station] = json.loads((folder / "stations.json").read_text()) if (folder / "stations.json").exists() else []
    if len(seen) == LOOKS + 1:
        return seen
    offline, whole = isinstance(learner, OfflineLearner), len(world.train) * GROUP
    try:
        learner.start(folder, "base")
        learner.resume(folder)
        clock = folder / "seconds.json"  # at the start, and after each update that is kept
        spent: list[float] = json.loads(clock.read_text())[: learner.done + 1] if clock.exists() else [seconds]
        while True:
            if learner.done == round(len(seen) * learner.updates / LOOKS):
                drawn = whole if offline and learner.done else whole * learner.done // learner.updates
                found = look(world, arguments.held_out) if learner.done else base_look(world, arguments.held_out)
                seen.append(found | {"answers": drawn if learner.done else 0, "seconds": spent[-1] if learner.done else 0.0})
                write_atomically(folder / "stations.json", json.dumps(seen))
                say(f"{arm}, seed {seed}: {in_words(seen[-1])}")
            if learner.done == learner.updates:
                return seen
            speed, began = rate(world) / RATE, time.perf_counter()
            learner.update()
            spent.append(spent[-1] + (time.perf_counter() - began) * speed)
            write_atomically(clock, json.dumps(spent))
            learner.keep(folder)
    finally:
        learner.close()


def place_of(world: World, arm: str, seed: int, settings: Json, arguments: argparse.Namespace) -> Path:
    """Where a run's stations and checkpoints are."""
    made_of = content_id(world.trunk.fingerprint, vars(world.plan), settings, arguments.held_out, arguments.updates, length=12)
    return world.folder / "runs" / f"{arm.replace(' ', '-').replace(',', '')}-{seed}-{made_of}"


def look(world: World, prompts: int) -> Station:
    """An answer to each held-out prompt under the role's adapter, with the same seeds every time."""
    trunk, plan = world.trunk, world.plan
    texts = world.held_out[:prompts]
    asked = [world.prompt_ids(text) for text in texts]
    with trunk.merged(ROLE):
        drawn = generate(trunk, asked, [seed_from(1, "look", text) for text in texts], max_new_tokens=plan.max_new_tokens, temperature=plan.temperature)
    tokens = [tuple(one.token_ids) for one in drawn]
    plain_logprobs, cooled, _ = world.read(asked, tokens)
    samples = [Sample(*row) for row in zip(texts, tokens, plain_logprobs.tolist(), [one.finished for one in drawn], strict=True)]
    kl = np.array([sum(one.logprobs) for one in drawn]) - cooled
    gold: Floats = world.gold(samples)
    return {"gold": gold.tolist(), "kl_nats": float(kl.mean()), "tokens": float(np.mean([len(one) for one in tokens])), "text": trunk.text(tokens[0])}


def base_look(world: World, prompts: int) -> Station:
    """The look at the base, where every course begins; taken once."""
    file = world.folder / f"base-look-{content_id(world.trunk.fingerprint, vars(world.plan), prompts, length=12)}.json"
    if not file.exists():
        write_atomically(file, json.dumps(look(world, prompts)))
    return dict(json.loads(file.read_text()))


def in_words(station: Station) -> str:
    """A look in a line."""
    return f"{station['answers']} answers  {station['seconds']:.0f} s  kl {station['kl_nats']:.1f}  gold {np.mean(station['gold']):+.2f}  {station['text']!r}"


# ---- the peer ----


def course_of_trl(world: World, seed: int, arguments: argparse.Namespace) -> list[Station]:
    """TRL's RLOO on the same prompts, with the same reward, adapter and counts; its adapters are looked at as ours are."""
    folder = place_of(world, TRL, seed, {}, arguments)
    if (folder / "stations.json").exists():
        return list(json.loads((folder / "stations.json").read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "prompts.json", json.dumps(world.train))
    reward = [sys.executable, "-m", "benchmarks.policy_learning", "--reward", "--updates", str(arguments.updates), "--tokens", str(arguments.tokens)]
    reward += ["--temperature", str(arguments.temperature), "--model", arguments.model, "--work", str(arguments.work)]
    command = [
        arguments.peer, str(PEER), "--model", resolve(arguments.model), "--prompts", str(folder / "prompts.json"), "--reward", json.dumps(reward),
        "--out", str(folder), "--updates", str(arguments.updates), "--looks", str(LOOKS), "--seed", str(seed), "--tokens", str(arguments.tokens),
        "--temperature", str(arguments.temperature), "--lr", str(TUNE["lr"]), "--beta", str(TUNE["beta"]),
    ]  # fmt: skip
    before = rate(world)
    subprocess.run(command, check=True, stdout=sys.stderr)
    speed, seen = (before + rate(world)) / 2 / RATE, []
    for number, (made, seconds) in enumerate(json.loads((folder / "made.json").read_text())):
        with loaded(world, Path(made)):
            drawn = number * len(world.train) * GROUP // LOOKS
            found = look(world, arguments.held_out) if number else base_look(world, arguments.held_out)
            seen.append(found | {"answers": drawn, "seconds": seconds * speed})
        say(f"{TRL}, seed {seed}: {in_words(seen[-1])}")
    write_atomically(folder / "stations.json", json.dumps(seen))
    return seen


@contextmanager
def loaded(world: World, adapter: Path) -> Iterator[None]:
    """An adapter in PEFT's format as the policy."""
    world.trunk.load_adapter(ROLE, adapter)
    try:
        yield
    finally:
        world.trunk.drop_adapter(ROLE)


def answer_for_ever(world: World) -> None:
    """The reward for a process that can't import us: a line of JSON in, [[prompt, token ids], …], a line out, the scores, less the penalty where cut off."""
    gold = Gold(world)
    for line in sys.stdin:
        rows = json.loads(line)
        responses = [own or [min(world.trunk.eos_ids)] for _, own in rows]
        scores = gold([world.prompt_ids(text) for text, _ in rows], responses)
        ended = [own[-1] in world.trunk.eos_ids for own in responses]
        print(json.dumps([score - (0.0 if end else PENALTY) for score, end in zip(scores, ended, strict=True)]), flush=True)


# ---- what came of it ----


def compared(found: dict[str, list[list[Station]]], seeds: int, arguments: argparse.Namespace) -> Json:
    """Each arm's course, and how PPO with all layers compares with the upper half."""
    arms = {arm: [point(list(looks)) for looks in zip(*courses, strict=True)] for arm, courses in found.items()}
    ran_on = {json.loads(file_of(arm, seed, arguments).read_text())["machine"] for arm in found for seed in range(1, seeds + 1)}
    told: Json = {
        "what": "gold score on held-out prompts against answers and seconds", "date": datetime.date.today().isoformat(), "machine": "; ".join(sorted(ran_on)),
        "seeds": seeds, "prompts": arguments.held_out, "settings": {"tune": TUNE, "arms": ARMS, "answers_in_an_update": EACH, "updates": arguments.updates},
        "arms": arms,
    }  # fmt: skip
    ends = {arm: np.array([course[-1]["gold"] for course in courses]) for arm, courses in found.items()}
    if {"ppo", "ppo, all layers"} <= ends.keys():
        told["all_layers_less_upper_half"] = interval(ends["ppo, all layers"], ends["ppo"])
    told["samples"] = {arm: courses[0][-1]["text"] for arm, courses in found.items()}
    return told


def point(looks: list[Station]) -> Json:
    """One look at all seeds' policies."""
    gold = np.array([look["gold"] for look in looks])
    each = [round(float(mean), 3) for mean in gold.mean(1)]
    means = {name: float(np.mean([look[name] for look in looks])) for name in ("answers", "seconds", "kl_nats", "tokens")}
    return {"gold": interval(gold), "each_seed": each, **means}


def interval(gold: Floats, less: Floats | None = None) -> Json:
    """The mean, or by how much it is above another's, with a 95 % interval by drawing seeds and prompts anew, both. (S, P): the same prompts for both, seeds of
    their own. Of few seeds it is somewhat too narrow: what a fourth would do is guessed from three.
    """
    generator = np.random.default_rng(1)
    prompts = generator.integers(0, gold.shape[1], (RESAMPLES, 1, gold.shape[1]))

    def means(own: Floats) -> Floats:
        seeds = generator.integers(0, len(own), (RESAMPLES, len(own), 1))
        found: Floats = own[seeds, prompts].mean((1, 2))
        return found

    draws = means(gold) - (0.0 if less is None else means(less))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"value": float(gold.mean() - (0.0 if less is None else less.mean())), "low": float(low), "high": float(high), "n": gold.shape[1]}


if __name__ == "__main__":
    main()
