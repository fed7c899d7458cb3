"""Tuning against one arm without a price of KL, until the policy is as far from the base as is asked; it is looked at on the way, on prompts that it isn't
tuned on.

Shapes: P prompts that it is looked at on, each with several responses.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.overoptimisation.world import ARMS, Floats, Sample, World, arms_of

from truing.config import write_atomically
from truing.console import say
from truing.models.generate import generate
from truing.policy.algorithms.ppo import PPOSettings
from truing.policy.online import OnlineLearner
from truing.policy.rollout import ROLE
from truing.reward.heads import Head
from truing.reward.score import RewardModel
from truing.store.ids import content_id, seed_from

STEP_NATS = 1.5  # between two looks, by what the policy's own rollouts say
LONGEST = 10  # updates without a look
CONSTANT = 100_000  # updates over which the learning rate falls to 0: in the hundred or so that are made it stands still, for every arm alike

FAR, SILENT, TIRED = "far enough", "silent", "limit of updates"  # why a policy is pushed no further
FEWEST_TOKENS = 1.5  # of a response in the mean, its end token among them: with less to say the policy can't get further from the base

Station = dict[str, Any]  # update, kl_nats, gold (P,), proxy: arm → (P,), and how the responses look


def ppo_settings(lr: float, samples: int) -> PPOSettings:
    """As the demo tunes, but by PPO, without a price of KL, and with cut-off answers at the score that the proxy gives them: nothing but the proxy pulls."""
    return PPOSettings(
        updates=CONSTANT, samples=samples, minibatches=4, lr=lr, beta=0.0, layers="top-half", truncation="keep", score_clip=100.0,
    )  # fmt: skip


def tuned(
    world: World, heads: dict[str, Head], arm: str, settings: PPOSettings, *, prompts: list[str], each: int, target: float, limit: int, draw: int
) -> list[Station]:
    """What was seen of a policy on its way; goes on where an earlier run stopped, also with a later limit or a further target.

    Args:
        heads: of a draw of labels.
        prompts: (P,) that it is looked at on.
        each: responses to each of them.
        target: nats per response at which it is far enough.
        limit: updates after which it is given up.
    """
    trunk, plan = world.trunk, world.plan
    made_of = (trunk.fingerprint, vars(plan), world.settings.model_dump(mode="json"), settings.model_dump(mode="json"), prompts, each, draw)
    folder = world.folder / "ppo" / f"{arm}-{draw}-{content_id(made_of, length=16)}"
    name, rule = ARMS[arm]
    score = RewardModel(arm, heads[name], world.spec, trunk, by=rule)
    seen = _read(folder / "stations.json")
    if seen and why_over(seen[-1], target, limit):
        return seen
    asked = {text: list(world.prompt_ids(text)) for text in world.train}
    learner = OnlineLearner(
        trunk, settings, asked, score, temperature=plan.temperature, max_new_tokens=plan.max_new_tokens, seed=seed_from(plan.seed, "ppo", draw)
    )
    try:
        learner.start(folder, "base")
        learner.resume(folder)
        while True:
            if due(learner.done, learner.rows, seen, limit):
                seen.append({"update": learner.done, **look(world, heads, prompts, each)})
                if why_over(seen[-1], target, limit) != SILENT:  # a checkpoint holds no nan, which the variety of empty answers is
                    learner.keep(folder)
                write_atomically(folder / "stations.json", json.dumps(seen))
                say(f"{arm} {draw}: {in_words(seen[-1], arm)}")
            if why_over(seen[-1], target, limit):
                return seen
            learner.update()
    finally:
        if trunk.has_adapter(ROLE):
            trunk.drop_adapter(ROLE)


def why_over(station: Station, target: float, limit: int) -> str:
    """Why a policy is pushed no further, in a word; empty while it is."""
    if station["kl_nats"] >= target:
        return FAR
    if station["tokens"] < FEWEST_TOKENS:
        return SILENT
    return TIRED if station["update"] >= limit else ""


def due(done: int, rows: list[dict[str, float]], seen: list[Station], limit: int) -> bool:
    """Whether it is time for a look: at the base, after every so many nats or updates, and at the end."""
    if not seen:
        return True
    since = done - seen[-1]["update"]
    moved = bool(rows) and rows[-1]["objective/kl"] >= seen[-1]["kl_nats"] + STEP_NATS
    return since > 0 and (moved or since >= LONGEST or done >= limit)


def look(world: World, heads: dict[str, Head], prompts: list[str], each: int) -> Station:
    """Fresh responses of the policy, and what gold and every arm say of them. Every look has the same seeds: they differ by the policy."""
    trunk, plan = world.trunk, world.plan
    texts = [text for text in prompts for _ in range(each)]
    asked = [world.prompt_ids(text) for text in texts]
    seeds = [seed_from(plan.seed, "look", text, number) for text in prompts for number in range(each)]
    with trunk.merged(ROLE):
        drawn = generate(trunk, asked, seeds, max_new_tokens=plan.max_new_tokens, temperature=plan.temperature)
    tokens = [tuple(one.token_ids) for one in drawn]
    plain, cooled, features = world.read(asked, tokens)
    samples = [Sample(*row) for row in zip(texts, tokens, plain.tolist(), [one.finished for one in drawn], strict=True)]
    kl = np.array([sum(one.logprobs) for one in drawn]) - cooled
    return {
        "kl_nats": float(kl.mean()),
        "kl_stderr": float(kl.std() / len(kl) ** 0.5),
        "gold": by_prompt(world.gold(samples), each),
        "proxy": {arm: by_prompt(found, each) for arm, found in arms_of(heads, features).items()},
        "tokens": float(np.mean([len(one) for one in tokens])),
        "ended": float(np.mean([one.finished for one in drawn])),
        "base_logprob": float(plain.mean()),
        "text": trunk.text(tokens[0]),
    }


def by_prompt(values: Floats, each: int) -> list[float]:
    """(P,) means from (P * each,)."""
    return [float(found) for found in values.reshape(-1, each).mean(1)]


def in_words(station: Station, arm: str) -> str:
    """A look in a line."""
    proxy, gold = np.mean(station["proxy"][arm]), np.mean(station["gold"])
    return f"update {station['update']}  kl {station['kl_nats']:.1f}  proxy {proxy:+.2f}  gold {gold:+.2f}  tokens {station['tokens']:.0f}  {station['text']!r}"


def _read(file: Path) -> list[Station]:
    return list(json.loads(file.read_text())) if file.exists() else []
