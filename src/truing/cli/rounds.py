"""Commands that tune, compare, and turn the whole loop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.cli.options import HERE, Force, Json, Seed, Set, Where, interruptible, newest_turn, opened_project
from truing.console import result, say, show_views, speak_json

if TYPE_CHECKING:
    from truing.artifacts import Artifact
    from truing.rounds import Turn

app = typer.Typer()
round_app = typer.Typer(help="Whole turns of the loop.", no_args_is_help=True)
app.add_typer(round_app, name="round")


@app.command()
def tune(
    algorithm: Annotated[str | None, typer.Option(help="ppo, reinforce, rloo, grpo, best-of-n, q-learning; dpo, sft.")] = None,
    view: Annotated[bool, typer.Option("--view", help="Watch it in the terminal: curves, named failures and the newest sampled answers.")] = False,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Tune the policy: against the round's reward model, or (dpo, sft) by what people said and wrote."""
    from truing.rounds import tune_policy

    with newest_turn(project, set_, json, force) as turn:
        show_views(view)
        policy = tune_policy(turn, algorithm)
        facts = policy.facts
        came_to = (
            f"score {facts['objective/scores']:+.2f}, KL {facts['objective/kl']:.1f} nats" if "objective/kl" in facts else f"loss {facts['policy/loss']:.3f}"
        )
        say(f"{policy.id}: {came_to} after {facts['updates']} updates", then="truing evaluate")
        result({"policy": policy.id, **facts})


@app.command()
def evaluate(project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Compare the tuned policy with the base on held-out prompts."""
    from truing.rounds import evaluate as compare

    with newest_turn(project, set_, json, force) as turn:
        found = compare(turn)
        _tell_verdicts(found)
        say("", then="truing report")
        result({"evaluation": found.id, **found.facts})


@app.command()
def report(
    number: Annotated[int | None, typer.Argument(help="Which round (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Write a round's page: one HTML file, readable anywhere."""
    from truing.rounds import Turn
    from truing.rounds import report as write

    with opened_project(project, set_, json) as opened:
        path = write(Turn(opened, number))
        say(f"the report is at {path}")
        result({"report": str(path)})


@round_app.command("run")
def round_run(seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Run the newest round from where it stands to its report."""
    with newest_turn(project, set_, json, force, seed) as turn:
        result(_whole_round(turn))


@round_app.command("next")
def round_next(seed: Seed = None, project: Where = HERE, set_: Set = None, json: Json = False) -> None:
    """Start a child of the newest round, weakest prompts first, and run it."""
    with newest_turn(project, set_, json, False, seed, new=True) as turn:
        result(_whole_round(turn))


@round_app.command("status")
def round_status(project: Where = HERE, set_: Set = None, json: Json = False) -> None:
    """Where each round stands."""
    from truing.store.project import rounds_of

    with opened_project(project, set_, json) as opened:
        rounds = rounds_of(opened)
        if not rounds:
            say("no round has been started", then="truing round run")
        for row in rounds:
            state = "sealed" if row.sealed_at else f"made so far: {', '.join(row.made) or 'nothing'}"
            say(f"round {row.number} (seed {row.seed}): {state}")
        result({"rounds": [{"number": row.number, "seed": row.seed, "sealed": row.sealed_at is not None, "made": row.made} for row in rounds]})


@app.command()
def lineage(
    id: Annotated[str | None, typer.Argument(help="An artifact (default: list them all).")] = None,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """What something came from, down to the judgements."""
    from truing.artifacts import ancestors, artifact_ids

    with opened_project(project, set_, json) as opened:
        if id is None:
            found = artifact_ids(opened.artifacts)
            for name in found:
                say(name)
            result({"artifacts": found})
            return
        rows = list(ancestors(opened.artifacts, id))
        for depth, artifact in rows:
            seen = artifact.facts.get("judgements")
            say(f"{'  ' * depth}{artifact.id}  seed {artifact.manifest['seed']}" + (f"  {seen} judgements" if seen else ""))
        result({"id": id, "ancestors": [{"id": artifact.id, "depth": depth, "parents": artifact.parents} for depth, artifact in rows]})


@app.command()
def chat(
    policy: Annotated[str | None, typer.Argument(help="base, or a policy (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None,
) -> None:  # fmt: skip
    """Talk to a policy, to feel the difference. An empty line ends it."""
    from truing.chat import talk

    with newest_turn(project, set_, False, False) as turn:
        talk(turn, policy)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="The project it makes, or goes on with.")] = Path("truing-demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 1,
    set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """The whole loop on the default model with simulated people, in minutes."""
    from truing.demo import run_demo

    speak_json(json)
    with interruptible():
        result(run_demo(folder, seed, set_ or []))


def _whole_round(turn: "Turn") -> dict[str, Any]:
    from truing.artifacts import load_artifact
    from truing.rounds import report as write
    from truing.rounds import run_round

    made = run_round(turn)
    path = write(turn)
    evaluation = load_artifact(turn.project.artifacts, made["evaluation"])
    _tell_verdicts(evaluation)
    say(f"the report is at {path}", then="truing round next")
    verdicts = {name: evaluation.facts[name] for name in ("against", "sentences", "warnings")}
    return {"round": turn.number, "report": str(path), **verdicts, **{stage: made[stage] for stage in ("dataset", "reward", "policy", "evaluation")}}


def _tell_verdicts(evaluation: "Artifact") -> None:
    """The verdict against each opponent, and what to doubt it for."""
    for sentence in evaluation.facts["sentences"]:
        say(sentence)
    if evaluation.facts["warnings"]:
        say(f"warnings: {', '.join(evaluation.facts['warnings'])}")
