"""`truing demo`: one round of the loop on the default model with simulated people, and the truth about how it went."""

from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from truing.config import commented_toml
from truing.console import say
from truing.prompts import PromptSettings, everyday_prompts, import_prompts
from truing.rounds import Turn, honest_accuracy, report, run_round
from truing.store.project import SETTINGS_FILE, Project, create_project, open_project
from truing.store.tables import Annotator, AnnotatorKind, Run

SETTINGS: dict[str, dict[str, Any]] = {
    "round": {"feedback": "simulated"},
    "samples": {"per_prompt": 3},
    "feedback": {"pairs": 1000},
    "tune": {
        "algorithm": "rloo",
        "updates": 20,
        "minibatches": 4,
        "lr": 5e-4,
        "beta": 0.07,
        "layers": "top-half",
        "truncation": "subtract",
        "truncation_penalty": 0.5,
    },
    "evaluation": {"per_prompt": 2},
}
"""What the demo changes: settings for a crowd that never tires, and for a laptop."""


def run_demo(folder: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Make the demo's project, or go on with it, and run its first round.

    Returns:
        what `truing demo --json` prints.
    """
    if not (folder / SETTINGS_FILE).exists():
        create_project(folder, settings=commented_toml(SETTINGS))
    project = open_project(folder, overrides)
    import_prompts(project, project.settings(PromptSettings), [everyday_prompts()])
    turn = Turn(project, seed=seed)
    run_round(turn)
    page = report(turn)
    summary = {**_summary(turn), "report": str(page)}
    _tell(summary, page, folder)
    project.database.close()
    return summary


def _summary(turn: Turn) -> dict[str, Any]:
    from truing.artifacts import load_artifact

    project = turn.project
    seconds, peak = _spent(turn)
    evaluation = load_artifact(project.artifacts, turn.made["evaluation"])
    facts = evaluation.facts
    accuracy = honest_accuracy(turn)
    annotators = turn.made["quality"]["annotators"]
    by_trust = sorted(annotators, key=lambda row: (row["trust"], row["name"]))
    return {
        "seconds": round(seconds, 1),
        "peak_gb": round(peak, 2),
        "reward_accuracy": round(accuracy.value, 4),
        "reward_accuracy_low": round(accuracy.low, 4),
        "win_rate": round(facts["win_rate"]["value"], 4),
        "win_low": _known(facts["win_rate"]["low"]),
        "win_high": _known(facts["win_rate"]["high"]),
        "n_prompts": facts["win_rate"]["n"],
        "kl_nats": _known(facts["kl_nats"]["value"]),
        "distinct2_ratio": _known(facts["distinct2_ratio"]["value"]),
        "logprob_gap": _known(facts["logprob_gap"]["value"]),
        "alpha": round(turn.made["quality"]["alpha"]["value"], 4),
        "least_trusted": sorted(row["name"] for row in by_trust[:3]),
        "spoilers": sorted(spoilers(project)),
        "verdict": facts["verdict"],
        "sentence": facts["sentences"][0],
        "warnings": facts["warnings"],
    }


def _tell(summary: dict[str, Any], page: Path, folder: Path) -> None:
    """The verdict in three lines, where the report is, what to try next."""
    say("")
    say(str(summary["sentence"]))
    warned = f"; warnings: {', '.join(summary['warnings'])}" if summary["warnings"] else ""
    say(f"the tuned policy is {summary['kl_nats']:.1f} nats an answer from the base, with {summary['distinct2_ratio']:.0%} of its variety{warned}")
    say(
        f"the reward model is right in {summary['reward_accuracy']:.0%} of honest judgements it never saw; least trusted: {', '.join(summary['least_trusted'])}"
    )
    say(f"report: {page}", then=f"cd {folder} && truing chat    (or: truing round next)")


def _known(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def spoilers(project: Project) -> list[str]:
    """Names of the simulated annotators that were built careless or biased."""
    with project.database.read() as session:
        rows = session.scalars(select(Annotator).where(Annotator.kind == AnnotatorKind.SIMULATED).order_by(Annotator.name))
        return [row.name for row in rows if row.facts.get("vice")]


def _spent(turn: Turn) -> tuple[float, float]:
    """Seconds spent in the round's stages, and the most memory they held in GB; interrupted attempts included."""
    with turn.project.database.read() as session:
        seconds, peak = session.execute(select(func.sum(Run.seconds), func.max(Run.peak_gb)).where(Run.round_id == turn.id)).one()
        return seconds or 0.0, peak or 0.0
