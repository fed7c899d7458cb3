"""Commands that tune, compare, and turn the whole loop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.cli.options import HERE, Force, Json, Seed, Set, Where, between, interruptible, newest_turn, opened_project, share
from truing.console import hush, result, say, show_table, show_views, speak_json

if TYPE_CHECKING:
    from truing.artifacts import Artifact
    from truing.rounds import Turn

app = typer.Typer()
round_app = typer.Typer(help="Whole turns of the loop.", no_args_is_help=True)
app.add_typer(round_app, name="round")

Shown = Annotated[bool, typer.Option("--view", help="Watch tuning in the terminal: curves, named failures and the newest sampled answers.")]


@app.command()
def tune(
    algorithm: Annotated[str | None, typer.Option(help="ppo, reinforce, rloo, grpo, best-of-n, q-learning; dpo, sft.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stop once a failure is certain, and keep the best policy before it (tune.watch).")] = False,
    sweep: Annotated[list[str] | None, typer.Option(metavar="tune.KEY=A,B,C", help="Try every combination of such values; may be given several times.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many combinations a sweep tries (default: all).")] = None,
    view: Shown = False,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Tune the policy: against the round's reward model, or (dpo, sft) by what people said and wrote.

    Several processes share the work where torchrun starts them: torchrun --nproc-per-node 2 -m truing tune.
    """
    from truing.policy.team import joined
    from truing.rounds import follow_tuning

    with joined() as team:
        if team.rank == 0:
            _tune(algorithm, watch, sweep, trials, view, project, set_, force, json)
        else:
            with opened_project(project, set_, json) as opened:
                hush()
                follow_tuning(opened)


def _tune(
    algorithm: str | None, watch: bool, sweep: list[str] | None, trials: int | None, view: bool, project: Path, set_: list[str] | None, force: bool, json: bool,
) -> None:  # fmt: skip
    from truing.rounds import tune_policy

    overrides = [*(set_ or []), *(["tune.watch=true"] if watch else [])]
    swept = bool(sweep) or trials is not None
    named = [f"tune.algorithm={algorithm}"] if algorithm is not None and not swept else []
    with newest_turn(project, [*overrides, *named], json, force) as turn:
        show_views(view)
        if swept:
            result(_swept(turn, algorithm, sweep or [], trials, overrides))
            return
        policy = tune_policy(turn)
        facts = policy.facts
        if not facts["updates"]:
            came_to = "as it began"
        elif "objective/kl" in facts:
            came_to = f"score {facts['objective/scores']:+.2f}, KL {facts['objective/kl']:.1f} nats after {facts['updates']} updates"
        else:
            came_to = f"loss {facts['policy/loss']:.3f} after {facts['updates']} updates"
        say(f"{policy.id}: {came_to}", then="truing evaluate" if "reward" in turn.made else "truing reward train")  # dpo and sft need none, comparing does
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
def round_run(view: Shown = False, seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Run the newest round from where it stands to its report."""
    with newest_turn(project, set_, json, force, seed) as turn:
        show_views(view)
        result(_whole_round(turn))


@round_app.command("next")
def round_next(view: Shown = False, seed: Seed = None, project: Where = HERE, set_: Set = None, json: Json = False) -> None:
    """Start a child of the newest round, weakest prompts first, and run it. A round that isn't sealed yet is finished first."""
    with newest_turn(project, set_, json, False, seed, new=True) as turn:
        if turn.made:
            say(f"round {turn.number} isn't finished: it is finished now, and `truing round next` again starts the next")
        show_views(view)
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
            state = "sealed" if row.sealed_at else f"made so far: {', '.join(stage for stage in row.made if stage != 'typed') or 'nothing'}"
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


def _swept(turn: "Turn", algorithm: str | None, sweep: list[str], trials: int | None, overrides: list[str]) -> dict[str, Any]:
    """A search over settings, told as a table, a page and JSON."""
    from truing.sweep.page import write_page
    from truing.sweep.search import as_json, run_sweep
    from truing.sweep.space import command, parse_space, worded

    found = run_sweep(turn, parse_space(turn.project, algorithm, sweep), trials)
    rows = [
        [trial.number, *map(worded, trial.choice.values()), between(trial.measured.score, 2), between(trial.measured.kl_nats, 1),
         share(trial.measured.length, 1), share(trial.measured.eos_rate), ", ".join(trial.measured.findings) or ("front" if trial.front else "")]
        for trial in found.ranked()
    ]  # fmt: skip
    show_table(["trial", *found.space.values, "score", "KL", "tokens", "ends", ""], rows)
    then = None if found.best is None else command(found.best.choice, algorithm, overrides)
    path = write_page(turn.project, found, then)
    said = (
        "take none: without a finding, no score can be told from the base's"
        if found.best is None
        else f"take trial {found.best.number}: the least KL of those whose score can't be told from the highest"
    )
    say(f"{said} (the base's score: {share(found.base.score)}); the page is at {path}", then=then)
    return {**as_json(found), "report": str(path)}


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
