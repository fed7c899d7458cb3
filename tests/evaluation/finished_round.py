"""A finished round, made directly of rows and artifacts: realistic, invented numbers around texts written for this file."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from truing.artifacts import Artifact, write_artifact
from truing.evaluation.winrate import EvaluationSettings, evaluate_policy
from truing.store.ids import content_id, seed_from
from truing.store.project import Project, record_artifact
from truing.store.tables import Annotator, Policy, Prompt, Round, Run, Sample

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

TEXTS = (  # topic, prompt, how the base model answers, how a tuned one does
    (
        "write", "Help me word a sympathy card for a friend whose old dog died.",
        "Here is a possible sympathy card:\n\n1. Dear [Name],\n2. I am writing to you about the recent loss of your dog.\n3. Dogs are animals that many people",
        "I'm so sorry about Biscuit. He was lucky to have a home as loving as yours, and I'm thinking of you both.",
    ),
    (
        "social", "I've been invited to a wedding I can't attend. How do I decline?",
        "When you have been invited to a wedding you can't attend, there are several steps you can take to decline. First, you should consider the",
        "Thank them warmly, say plainly that you can't be there, and wish them a wonderful day. A short, kind note is enough.",
    ),
    (
        "plan", "How might I prepare for a phone interview tonight?",
        "To prepare for a phone interview tonight, you can follow these steps:\n1. Research the company.\n2. Prepare questions.\n3. Prepare questions.\n4.",
        "Find a quiet room, keep your notes and a glass of water close, and practise two good stories about your work aloud.",
    ),
    (
        "practical", "After cooking fish, how might I get rid of the smell?",
        "The smell of fish can be caused by a number of factors, including the type of fish, the cooking method, and the cooking",
        "Open a window and simmer a little water with lemon and vinegar for ten minutes. It clears the air nicely.",
    ),
    (
        "suggest", "Propose a fun family tradition for Sunday evenings.",
        "A fun family tradition for Sunday evenings is a family tradition for Sunday evenings that the family can enjoy.",
        "Let one person choose the soup, another the music, and everyone tell the best moment of their week at the table.",
    ),
    (
        "encourage", "Send a few kind words to a carer who feels worn out.",
        "I hope this message finds you well. I am writing to express my",
        "What you do every day matters, even when nobody says so. Please be as gentle with yourself as you are with others.",
    ),
    (
        "advise", "Working from home makes me lonely. What might make the days better?",
        "Working from home can be a great way to save time and money. However, it can also be lonely. Here are some tips:\n- Work from home\n- Take breaks\n-",
        "Try a walk at lunch with a neighbour, or a standing call with a friend each morning. A little company goes a long way.",
    ),
    (
        "describe", "Describe a kind teacher in a single sentence.",
        "A kind teacher is someone who is kind and is a teacher.",
        "She notices the quiet child at the back, and by Friday that child is raising a hand.",
    ),
    (
        "explain", "Hearing and listening are not the same. What's the difference?",
        "Hearing and listening are not the same. Hearing is the ability to hear sounds, while listening is the ability to listen to sounds.",
        "Hearing just happens to you; listening is a choice to pay attention and to care what the sound means.",
    ),
    (
        "reply", "Teacher's note: \"Your son helped a classmate today.\" Draft my reply.",
        "Dear Teacher,\n\nThank you for your note. I am writing in response to your note regarding",
        "Thank you for telling us! We're so proud of him, and grateful that you took a moment to notice.",
    ),
    (
        "write", "I'd love a warm line for a new baby card.",
        "Welcome to the world, baby!",
        "Welcome, little one: may your days be full of warm arms, silly songs and long, happy naps.",
    ),
    (
        "suggest", "I've got ten free minutes. Suggest a good use for them.",
        "Here are 10 ways to use your free minutes:\n\n1. Read a book\n2. Take a walk\n3. Read a book\n4. Take a nap\n5. Call a friend\n6. Read",
        "Call someone you like and ask about their day. Ten minutes is just right.",
    ),
    (
        "encourage", "I'm halfway through a dull pile of paperwork. Spur me on.",
        "It's great that you're working on your paperwork! Paperwork is an important part of",
        "Halfway is the hard part, and it's behind you! Put on a good song and enjoy watching the pile shrink.",
    ),
    (
        "plan", "I'm painting my bedroom this weekend. How do I get ready?",
        "Move the furniture, cover the floor with sheets, wash the walls, and tape the edges.",
        "Move the furniture, cover the floor and tape the edges on Friday, so that Saturday is all paint and good music.",
    ),
    (
        "practical", "Do potatoes keep better in the dark?",
        "Yes, potatoes keep better in the dark. Light can cause them to turn green and sprout.",
        "Yes! Light turns them green and bitter, so a cool, dark cupboard keeps them happy for weeks.",
    ),
    (
        "explain", "Tell me, briefly, why a baker would weigh the flour.",
        "A baker would weigh the flour because the baker would want to know the weight of the flour that the baker",
        "A cup of flour can be packed or fluffy, but a gram is always a gram, so the bread comes out well every time.",
    ),
)  # fmt: skip
ENDINGS = ("", " Keep it short.", " Be kind.", " One or two sentences, please.", " I'd be grateful.")

CROWD = (  # name, trust, agreement, checks right, share of the left, ties, seconds, vice
    ("Amara", 0.83, 0.84, 12, 0.51, 0.08, 9.4, None),
    ("Bruno", 0.81, 0.82, 12, 0.47, 0.06, 11.2, None),
    ("Chiyo", 0.80, 0.83, 11, 0.50, 0.11, 8.1, None),
    ("Dalia", 0.78, 0.80, 12, 0.54, 0.09, 10.3, None),
    ("Edvin", 0.76, 0.79, 11, 0.48, 0.05, 12.8, None),
    ("Farah", 0.75, 0.80, 11, 0.52, 0.12, 9.9, None),
    ("Goran", 0.71, 0.77, 10, 0.45, 0.07, 7.6, None),
    ("Hina", 0.16, 0.58, 2, 0.55, 0.81, 6.2, "ties"),
    ("Ivo", 0.07, 0.54, 6, 0.97, 0.02, 3.1, "left"),
    ("Juno", 0.02, 0.49, 5, 0.46, 0.13, 2.4, "random"),
)  # fmt: skip


def make_round(project: Project, *, number: int = 1, prompts: int = 80, lift: float = 0.62, hostile: str = "", resamples: int = 300) -> Round:
    """Write a finished round into the project: prompts, samples, annotators, artifacts, runs and its row.

    Args:
        number:  1, or 2 for a child of a round 1 made before.
        prompts: how many held-out prompts, at most 80.
        lift:    by how many gold points tuned answers are better.
        hostile: text added to every prompt, answer and name.
        resamples: behind each interval of the evaluation.
    """
    with project.database.read() as session:
        before = session.query(Round).filter_by(number=number - 1).one_or_none()
    parent = before.made["policy"] if before else "base"
    chosen = _add_prompts(project, prompts, hostile)
    annotators = _add_annotators(project, hostile)
    dataset = _dataset(project, annotators, number, hostile)
    reward = _reward(project, dataset, number)
    policy = _policy(project, reward, parent, number, hostile, chosen)
    policies = ["base", policy.id] + ([parent] if before else [])
    for policy_id in policies:
        _add_samples(project, chosen, policy_id, number, hostile, changed=number > 1 and policy_id == policy.id)
    lifts = {"base": 0.0, policy.id: lift + 0.25 * (number - 1), parent: 0.62 if before else 0.0}
    evaluation = evaluate_policy(
        project,
        EvaluationSettings(resamples=resamples),
        policy_id=policy.id,
        against=["base", *([parent] if before else [])],
        batches={policy_id: _batch(policy_id, number) for policy_id in policies},
        gold=lambda text, sample: _noise(sample.id, 0.55) + lifts[str(sample.policy_id)],
        score=lambda samples: [_noise(sample.id, 0.8) + 1.9 * lifts[str(sample.policy_id)] for sample in samples],
        kl_nats=_kl(project, policy.id, number),
        seed=seed_from("evaluation", number),
        judge="the demo population’s public taste",
        parents=[reward.id],
    )
    return _add_round(project, number, before, dataset, reward, policy, evaluation, len(chosen))


def _noise(key: str, spread: float) -> float:
    return random.Random(seed_from("noise", key)).gauss(0, spread)


def _add_prompts(project: Project, wanted: int, hostile: str) -> list[tuple[str, int]]:
    """Held-out prompts, as (prompt id, row of TEXTS)."""
    chosen = []
    with project.database.write() as session:
        for number in range(wanted):
            row, ending = number % len(TEXTS), ENDINGS[number // len(TEXTS)]
            topic, text = TEXTS[row][0], TEXTS[row][1] + ending + hostile
            turns = [{"role": "user", "content": text}]
            prompt_id = content_id(turns)
            if session.get(Prompt, prompt_id) is None:
                facts = {"topic": topic + hostile}
                session.add(Prompt(id=prompt_id, turns=turns, text=text, split="held-out", source="t", facts=facts, position=number, created_at=START))
            chosen.append((prompt_id, row))
        if session.get(Policy, "base") is None:
            session.add(Policy(id="base", model="smollm2-135m", artifact_id=None, parent_id=None, created_at=START))
    return chosen


def _batch(policy_id: str, number: int) -> str:
    return content_id("held-out", policy_id, number)


def _add_samples(project: Project, chosen: Sequence[tuple[str, int]], policy_id: str, number: int, hostile: str, *, changed: bool) -> None:
    with project.database.write() as session:
        for prompt_id, row in chosen:
            text = TEXTS[row][2 if policy_id == "base" else 3] + (" I hope that helps a little!" if changed and row % 3 else "") + hostile
            batch = _batch(policy_id, number)
            sample_id = content_id("sample", prompt_id, batch, 0)
            finished = text.strip()[-1] in ".!?>"
            logprob = -1.62 + _noise(sample_id, 0.3) - (0.0 if policy_id == "base" else 0.11)
            tokens = list(range(round(1.35 * len(text.split()))))
            session.add(
                Sample(
                    id=sample_id, prompt_id=prompt_id, policy_id=policy_id, author=None, batch=batch, position=0, text=text, token_ids=tokens,
                    logprobs=None, finished=finished, temperature=0.7, seed=1, base_logprob=logprob, created_at=START,
                )
            )  # fmt: skip


def _kl(project: Project, policy_id: str, number: int) -> dict[str, float]:
    with project.database.read() as session:
        ids = [row.id for row in session.query(Sample).filter_by(batch=_batch(policy_id, number)).order_by(Sample.id)]
    return {sample_id: 5.2 + 2.5 * (number - 1) + _noise(sample_id, 2.4) for sample_id in ids}


def _add_annotators(project: Project, hostile: str) -> list[Annotator]:
    found = []
    with project.database.write() as session:
        for name, *_, vice in CROWD:
            full = name + hostile
            annotator_id = content_id("annotator", full, 1)
            annotator = session.get(Annotator, annotator_id)
            if annotator is None:
                facts = {"vice": vice, "seed": 1}
                annotator = Annotator(
                    id=annotator_id, name=full, kind="simulated", role="annotator", password_hash=None, active=True, facts=facts, created_at=START
                )
                session.add(annotator)
            found.append(annotator)
    return found


def _dataset(project: Project, annotators: Sequence[Annotator], number: int, hostile: str) -> Artifact:
    rows = [
        {
            "id": annotator.id, "name": annotator.name, "kind": "simulated", "n": 45, "trust": trust, "trust_low": max(trust - 0.16, 0.02),
            "trust_high": min(trust + 0.11, 0.99), "agreement": agreement, "agreement_low": agreement - 0.12, "agreement_high": agreement + 0.09,
            "agreement_n": 33, "gold_right": right, "gold_n": 12, "side_bias": left, "side_bias_low": max(left - 0.14, 0),
            "side_bias_high": min(left + 0.14, 1), "tie_rate": ties, "median_active_s": pace, "median_reading_s": 11.0,
        }
        for annotator, (_, trust, agreement, right, left, ties, pace, _) in zip(annotators, CROWD, strict=True)
    ]  # fmt: skip
    quality = {
        "alpha": {"value": 0.412 + 0.02 * number, "low": 0.351, "high": 0.473, "n": 150},
        "alpha_trusted": {"value": 0.551, "low": 0.478, "high": 0.622, "n": 141},
        "annotators": rows[::-1],
        "notes": [],
    }
    pairs = [{"question_id": content_id("q", number, row), "target": 0.75, "weight": 1.0} for row in range(148)]

    def fill(folder: Path) -> None:
        _write_lines(folder / "pairs.jsonl", pairs)
        (folder / "quality.json").write_text(json.dumps(quality))

    return _keep(project, write_artifact(project.artifacts, "dataset", fill, settings={"min_weight": 0.05}, seed=number, facts={"pairs": 148}))


def _reward(project: Project, dataset: Artifact, number: int) -> Artifact:
    reliability = [(0.08, 0.05, 21), (0.19, 0.24, 33), (0.33, 0.3, 41), (0.48, 0.52, 52), (0.63, 0.66, 44), (0.78, 0.75, 35), (0.91, 0.95, 24)]
    edges = [-3 + 0.5 * step for step in range(13)]
    training = [
        {"epoch": epoch, "train_loss": 0.693 - 0.26 * (1 - 0.62**epoch), "validation_loss": 0.693 - 0.17 * (1 - 0.55**epoch) + 0.0035 * epoch}
        for epoch in range(13)
    ]
    path = [
        {"l2": l2, "log_loss": loss, "accuracy": 0.74}
        for l2, loss in zip((10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003), (0.62, 0.57, 0.533, 0.514, 0.518, 0.545, 0.6, 0.67), strict=True)
    ]
    card = {
        "reliability": [{"predicted": predicted, "observed": observed, "n": n} for predicted, observed, n in reliability],
        "histogram": {"edges": edges, "counts": [1, 4, 11, 24, 41, 52, 49, 37, 22, 10, 4, 1]},
        "training": training if number > 1 else path,
        "ceiling": {"value": 0.79, "low": 0.75, "high": 0.83, "n": 402},
    }

    def fill(folder: Path) -> None:
        (folder / "card.json").write_text(json.dumps(card))

    facts = {
        "accuracy": {"value": 0.764, "low": 0.708, "high": 0.815, "n": 250}, "ece": 0.034, "log_loss": 0.512,
        "n_held_out": 262, "n_train": 1180, "mean": 0.02, "std": 1.3,
        "head": "mlp" if number > 1 else "linear", "layer": 21, "l2": 0.3,
    }  # fmt: skip
    settings = {"head": "mlp", "lr": 1e-3, "epochs": 12, "weight_decay": 0.01}
    return _keep(project, write_artifact(project.artifacts, "reward", fill, parents=[dataset.id], settings=settings, seed=number, facts=facts))


def _policy(project: Project, reward: Artifact, parent: str, number: int, hostile: str, prompts: Sequence[tuple[str, int]]) -> Artifact:
    dice = random.Random(number)
    metrics = [
        {
            "update": float(update), "objective/scores": 1.28 * (1 - 0.86**update) + dice.gauss(0, 0.06),
            "objective/kl": 5.6 * (1 - 0.9**update) + dice.gauss(0, 0.12),
            "response/length": 38 - 14 * (1 - 0.85**update) + dice.gauss(0, 1), "objective/entropy": 1.61 - 0.022 * update + dice.gauss(0, 0.02),
        }
        for update in range(1, 21)
    ]  # fmt: skip
    samples = [
        {
            "update": update, "prompt_id": prompts[(update + place) % len(prompts)][0], "score": round(dice.gauss(0, 1), 4), "finished": update > 9,
            "text": TEXTS[prompts[(update + place) % len(prompts)][1]][2 + (update > 9)] + hostile,
        }
        for update in range(1, 21)
        for place in range(5)
    ]  # fmt: skip
    diagnosis = [{"failure": "negative KL", "sign": "k1 was −0.04 nats in update 1, two standard errors below 0", "say": "harmless this early", "update": 1}]

    def fill(folder: Path) -> None:
        _write_lines(folder / "metrics.jsonl", metrics)
        _write_lines(folder / "samples.jsonl", samples)
        (folder / "diagnosis.json").write_text(json.dumps(diagnosis if number == 1 else []))

    tune = {"algorithm": "ppo", "samples": 32, "lr": 3e-4, "beta": 0.05, "clip": 0.2, "rank": 16, "updates": 20}
    settings = {"model": "smollm2-135m", "parent": parent, "temperature": 0.7, "settings": tune, "prompts": [prompt_id for prompt_id, _ in prompts]}
    parents = [reward.id, *([parent] if parent != "base" else [])]
    artifact = _keep(project, write_artifact(project.artifacts, "policy", fill, parents=parents, settings=settings, seed=number))
    with project.database.write() as session:
        session.add(Policy(id=artifact.id, model="smollm2-135m", artifact_id=artifact.id, parent_id=parent, created_at=START))
    return artifact


def _add_round(
    project: Project, number: int, before: Round | None, dataset: Artifact, reward: Artifact, policy: Artifact, evaluation: Artifact, held_out: int
) -> Round:
    made: dict[str, Any] = {
        "prompts": {"n": 400 + held_out, "train": 400, "held_out": held_out},
        "samples": {"batch": "b", "n": 1600},
        "questions": {"n": 162, "gold": 12},
        "judgements": {"n": 450},
        "dataset": dataset.id,
        "reward": reward.id,
        "policy": policy.id,
        "evaluation": evaluation.id,
        "parent_policy": before.made["policy"] if before else None,
    }
    made["questions"]["batches"] = 1
    end = START + timedelta(days=number, minutes=12)
    row = Round(number=number, parent_id=before.id if before else None, seed=number, made=made, created_at=START, sealed_at=end)
    stages = (("samples", 171.4), ("annotate", 2.3), ("quality", 0.8), ("reward", 64.9), ("tune", 402.6), ("evaluate", 88.2))
    with project.database.write() as session:
        session.add(row)
        session.flush()
        for position, (stage, seconds) in enumerate(stages):
            begun = START + timedelta(minutes=position)
            key = content_id(stage, number)
            result = {"policy": policy.id} if stage == "tune" else {}
            session.add(
                Run(
                    id=content_id("run", stage, number), stage=stage, key=key, round_id=row.id, state="done", started_at=begun, heartbeat_at=begun,
                    finished_at=begun, seconds=seconds, peak_gb=1.0, progress={}, result=result, error=None,
                )
            )  # fmt: skip
    return row


def _keep(project: Project, artifact: Artifact) -> Artifact:
    record_artifact(project, artifact.id, artifact.manifest)
    return artifact


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
