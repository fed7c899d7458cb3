"""The stage: an algorithm, what it learns from and a policy to begin with → a policy artifact; a checkpoint after every update."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import build
from truing.console import Curve, View, say, track
from truing.errors import SettingError, UserError
from truing.models.trunk import Trunk
from truing.policy.algorithms import ALGORITHMS
from truing.policy.algorithms.q_learning import QLearningSettings
from truing.policy.examples import Example, Examples
from truing.policy.figures import Figure, figures
from truing.policy.learner import Learner
from truing.policy.offline import OfflineLearner
from truing.policy.online import OnlineLearner
from truing.policy.record import Record, of_policy, prompt_texts, run_folder
from truing.policy.replay import ReplayLearner
from truing.policy.rewards import Score
from truing.policy.settings import OfflineSettings, OnlineSettings, TuneSettings
from truing.policy.team import team
from truing.policy.trackers import told
from truing.store.ids import content_id
from truing.store.project import Project, record_artifact
from truing.store.runs import stage_run


def tune_settings(project: Project, algorithm: str | None = None, changes: Mapping[str, Any] | None = None) -> TuneSettings:
    """The settings of tuning, in the class of the algorithm that they name.

    Where another algorithm is named than in truing.toml, what stands there for that one alone is left out, and it is said.

    Args:
        algorithm: in place of the one in truing.toml.
        changes: other settings in place of those in truing.toml, by key.

    Raises:
        SettingError: there is no such algorithm, or it has no such setting.
    """
    raw = dict(project.raw_settings("tune"))
    if algorithm is not None:
        raw["algorithm"] = algorithm
    raw |= changes or {}
    name = raw.get("algorithm", "ppo")
    if name not in ALGORITHMS:
        raise SettingError(f"there is no algorithm {name!r}", fix=f"known ones: {', '.join(ALGORITHMS)}")
    written = project.in_file("tune")
    before = written.get("algorithm", "ppo")
    if name != before:
        others = sorted(key for key in written if key not in project.typed("tune") and key not in (changes or {}) and _is_anothers(key, name, before))
        if others:
            _say_once(f"{name} leaves out what [tune] in truing.toml says for {before} alone: {', '.join(others)}")
        raw = {key: value for key, value in raw.items() if key not in others}
    kind: type[TuneSettings] = ALGORITHMS[name].Settings
    if "watch" in raw and "watch" not in kind.model_fields:
        raise SettingError(f"{name} draws no answers: there is nothing to watch", fix="leave --watch (tune.watch) out")
    return build(kind, "tune", raw)


def _is_anothers(key: str, name: str, before: str) -> bool:
    """Whether a setting is known, and means nothing to this algorithm, or another thing than to the one before."""
    fields, others = ALGORITHMS[name].Settings.model_fields, ALGORITHMS[before].Settings.model_fields if before in ALGORITHMS else {}
    if key not in fields:
        return any(key in one.Settings.model_fields for one in ALGORITHMS.values())
    return key in ALGORITHMS[name].Settings.UNUSED or (key in others and others[key].description != fields[key].description)


@cache
def _say_once(text: str) -> None:
    """A sweep makes settings for each of its trials."""
    say(text)


def train_policy(
    project: Project,
    settings: OnlineSettings,
    *,
    trunk: Trunk,
    prompts: Mapping[str, Sequence[int]],
    score: Score,
    reward_id: str,
    parent: str,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    round_id: int | None = None,
) -> Artifact:
    """Tune the policy against a reward model.

    Args:
        trunk: the base; on return it has no policy adapter on it.
        prompts: prompt id → token ids, in order.
        score: prompts and responses → scores normalised to standard deviation 1.
        reward_id: the artifact that `score` speaks for.
        parent: the policy to go on from: "base" or an artifact id. The reference is the base in both cases.
        temperature, max_new_tokens: as in the samples that the reward model was fitted on.
        seed: of everything drawn.

    Returns:
        an artifact of kind "policy": adapter/ in PEFT's format, value_head.safetensors, metrics.jsonl, samples.jsonl,
        diagnosis.json.
    """
    inputs = {
        "model": trunk.fingerprint, "prompts": list(prompts), "reward": reward_id, "parent": parent, "settings": settings.model_dump(),
        "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    learner = online_learner(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    call = OnlineCall(settings, dict(prompts), reward_id, temperature, max_new_tokens, seed)
    return _tuned(project, learner, call, inputs, [reward_id], parent, round_id)


def online_learner(
    trunk: Trunk, settings: OnlineSettings, prompts: Mapping[str, Sequence[int]], score: Score, *, temperature: float, max_new_tokens: int, seed: int
) -> OnlineLearner:
    """The learner of the algorithm that the settings name, before its start; arguments as for `train_policy`."""
    if isinstance(settings, QLearningSettings):
        return ReplayLearner(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    return OnlineLearner(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


def imitate(
    project: Project,
    settings: OfflineSettings,
    examples: Examples,
    *,
    trunk: Trunk,
    dataset_id: str | None,
    parent: str,
    seed: int,
    round_id: int | None = None,
) -> Artifact:
    """Tune the policy on examples, without a reward model.

    Args:
        trunk: the base; on return it has no policy adapter on it.
        dataset_id: the artifact that the examples come from, or None where they come from the store.
        parent: the policy to go on from: "base" or an artifact id. The reference is the base in both cases.
        seed: of every random choice.

    Returns:
        an artifact of kind "policy": adapter/ in PEFT's format, metrics.jsonl, diagnosis.json.

    Raises:
        UserError: there is nothing to learn from.
    """
    if not examples.train:
        too_long = f" ({examples.too_long} are longer than tune.max_tokens = {settings.max_tokens})" if examples.too_long else ""
        raise UserError(
            f"{settings.algorithm} has nothing to learn from: no example on a train prompt{too_long}",
            fix="collect preferences and run `truing preferences`" if settings.algorithm == "dpo" else "import demonstrations, or let people edit answers",
        )
    if examples.too_long:
        say(f"{examples.too_long} examples are longer than tune.max_tokens = {settings.max_tokens}, and are left out")
    inputs = {
        "model": trunk.fingerprint, "examples": content_id(examples.train, examples.held_out), "parent": parent, "settings": settings.model_dump(),
        "seed": seed,
    }  # fmt: skip
    learner = OfflineLearner(trunk, settings, examples.train, seed=seed)
    return _tuned(project, learner, OfflineCall(settings, examples.train, seed), inputs, [dataset_id] if dataset_id is not None else [], parent, round_id)


class OnlineCall(NamedTuple):
    """What an online learner is made of, beside the trunk and the score that the reward speaks for."""

    settings: OnlineSettings
    prompts: dict[str, Sequence[int]]
    reward_id: str
    temperature: float
    max_new_tokens: int
    seed: int


class OfflineCall(NamedTuple):
    """What an offline learner is made of, beside the trunk."""

    settings: OfflineSettings
    examples: Sequence[Example]
    seed: int


def follow(project: Project, trunk: Trunk, reward: Callable[[OnlineCall], Score]) -> None:
    """Do this process' share of every run that the first of the team begins, until there is none any more. Nothing is written.

    Args:
        trunk: the base; on return it has no policy adapter on it.
        reward: gives the score of a call's reward model.
    """
    while (heard := team().hear()) is not None:
        call, parent, folder = heard
        if isinstance(call, OnlineCall):
            learner: Learner = online_learner(
                trunk, call.settings, call.prompts, reward(call), temperature=call.temperature, max_new_tokens=call.max_new_tokens, seed=call.seed
            )
        else:
            learner = OfflineLearner(trunk, call.settings, call.examples, seed=call.seed)
        try:
            learner.start(project.artifacts, parent)
            learner.resume(folder)
            for _ in _until_failure(learner):
                learner.update()
        finally:
            learner.close()


def _tuned(
    project: Project, learner: Learner, call: OnlineCall | OfflineCall, inputs: dict[str, Any], sources: list[str], parent: str, round_id: int | None
) -> Artifact:
    """The policy that a learner comes to, from where an earlier run stopped; or the one that the same inputs gave before."""
    settings = learner.settings
    with stage_run(project, "tune", inputs, round_id=round_id) as run, told(project, settings, run.key, inputs) as hear:
        if run.answered:
            record = of_policy(project.artifacts, run.result["policy"])
            hear(record.rows, record.shown)
            shutil.rmtree(run_folder(project, run.key), ignore_errors=True)  # of a process that was killed once it had its policy
            return load_artifact(project.artifacts, run.result["policy"])
        folder = run_folder(project, run.key)
        if project.force:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            learner.start(project.artifacts, parent)
            learner.resume(folder)
            if not learner.done:
                learner.keep(folder)
            learner.team.tell((call, parent, folder))
            hear(learner.rows, learner.shown)
            for _ in track(
                _until_failure(learner), settings.algorithm, learner.updates, done=learner.done, stats=learner.headline,
                view=lambda: _in_a_terminal(project, learner.record()),
            ):  # fmt: skip
                learner.update()
                learner.keep(folder)
                hear(learner.rows, learner.shown)
                run.progress(done=learner.done, total=learner.updates, curves=learner.curves(), **learner.rows[-1])
            if (finding := learner.failure()) is not None:
                learner.go_back(folder, finding)
                say(f"stopped after update {learner.done} for {finding.failure}; the policy is that of update {learner.back_at}, the best before it")
            artifact = write_artifact(
                project.artifacts, "policy", learner.write, seed=learner.seed, settings=inputs,
                parents=[one for one in (*sources, parent) if one != "base"], facts=learner.facts(),
            )  # fmt: skip
        finally:
            learner.close()
        record_artifact(project, artifact.id, artifact.manifest)
        run.result = {"policy": artifact.id, **learner.facts(), "seconds": round(run.seconds, 1)}
    shutil.rmtree(folder, ignore_errors=True)
    for finding in artifact.facts["diagnosis"]:
        say(f"{finding['failure']}: {finding['sign']}. {finding['say']}")
    return artifact


def _until_failure(learner: Learner) -> Iterator[int]:
    """The updates that are still to be made, as long as nothing speaks against one more."""
    while learner.done < learner.updates and learner.failure() is None:
        yield learner.done


def _in_a_terminal(project: Project, record: Record) -> View:
    """A run's numbers, failures and newest answers, for who watches it in a terminal."""
    curves = [Curve(figure.name, [value for _, value in figure.points], figure.value, _briefly(figure)) for figure in figures(record)]
    findings = [(f"{found.failure} (update {found.update})", f"{found.sign}. {found.say}") for found in record.findings]
    newest = record.newest()
    with project.database.read() as session:
        prompts = prompt_texts(session, [str(one["prompt_id"]) for one in newest])
    made = [
        (f"{one['score']:+.2f}{'' if one['finished'] else ', cut off'} | {prompts.get(one['prompt_id'], one['prompt_id'])}".replace("\n", " "), one["text"])
        for one in newest
    ]
    return View(curves, findings, made)


def _briefly(figure: Figure) -> str:
    """What is normal, in half a line."""
    return figure.normal.partition(". ")[0].rstrip(".") + (f" ({figure.unit})" if figure.unit else "")
