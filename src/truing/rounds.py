"""One turn of the loop, told in order. Read `run_round`; then open any room."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm.attributes import flag_modified

from truing.artifacts import Artifact, artifact_ids, load_artifact, write_artifact
from truing.config import SECTIONS, Settings, section_class
from truing.console import say
from truing.errors import UserError
from truing.feedback.assignment import still_wanted
from truing.feedback.quality import QualitySettings, measure_quality
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.simulated import CrowdSettings, annotate_simulated
from truing.feedback.taste import gold_reward
from truing.preferences import PreferenceSettings, build_preferences
from truing.reward.card.fitness import require_fit
from truing.samples import SampleSettings, draw_samples, know_policy, prompts_of, read_under_base
from truing.stats import Interval
from truing.store.clock import now
from truing.store.ids import seed_from
from truing.store.project import Project, record_artifact
from truing.store.tables import Annotator, AnnotatorKind, Judgement, Question, QuestionSample, Round, Sample, Split

if TYPE_CHECKING:
    from truing.models.trunk import Trunk
    from truing.policy.settings import OnlineSettings, TuneSettings
    from truing.reward.outside.classifier import Reading
    from truing.reward.score import AnyRewardModel

BASE = "base"
CHAIN = ("dataset", "reward", "policy", "evaluation", "round")  # what a round makes, each resting on those before it


class RoundSettings(Settings):
    """How a round is run."""

    feedback: Literal["people", "simulated"] = Field("people", description="who judges: people, or the simulated crowd of section [crowd]")


def run_round(turn: "Turn") -> dict[str, Any]:
    """One turn of the loop: people's answers in, a better policy and a report out.

    Each line reads its input from the store and writes its output there, so a round that stopped is continued by
    calling this again, and any stage can be run alone from the command line.

    Returns:
        what the round made, stage by stage; a sealed round answers with what it made.
    """
    if turn.sealed and not turn.project.force:
        return turn.made
    turn.go_by_what_was_typed()
    check_settings(turn.project)
    choose_prompts(turn)
    sample(turn)
    ask_for_feedback(turn)
    weigh_feedback(turn)
    reward_of_round(turn)
    tune_policy(turn)
    evaluate(turn)
    seal(turn)
    return turn.made


class Turn:
    """A round at work: the project, the round's row, and the model, which is loaded once and only if a stage needs it."""

    def __init__(self, project: Project, number: int | None = None, *, seed: int | None = None, new: bool = False) -> None:
        self.project = project
        row = _open_round(project, number, seed, new)
        self.id, self.number, self.seed = row.id, row.number, row.seed
        self.made: dict[str, Any] = dict(row.made)
        self.sealed = row.sealed_at is not None
        self.parent: Round | None = _parent(project, row)

    @property
    def parent_policy(self) -> str:
        """The policy that this round starts from."""
        return BASE if self.parent is None else str(self.parent.made["policy"])

    @cached_property
    def trunk(self) -> "Trunk":
        """The base model."""
        from truing.models.registry import ModelSettings
        from truing.models.trunk import open_trunk

        return open_trunk(self.project.settings(ModelSettings))

    def note(self, *, by: str | None = None, **made: Any) -> None:
        """Write down what a stage made. What the round has made of something else before no longer counts, and it is said: no verdict is of another policy
        than the round's. A sealed round is open again then.

        Args:
            by: the section of the settings that the stage went by: what `--set` said of it is kept, for `round run` to go by.
        """
        changed = [CHAIN.index(stage) for stage in made if stage in CHAIN and self.made.get(stage, made[stage]) != made[stage]]
        over = [stage for stage in CHAIN[min(changed) + 1 :] if stage in self.made and stage not in made] if changed else []
        if over:
            say(f"round {self.number}: another {CHAIN[min(changed)]} than before; what rested on that is no longer its own: {', '.join(over)}")
        self.made = {stage: value for stage, value in self.made.items() if stage not in over} | made
        if by is not None:
            typed = {section: values for section, values in self.made.get("typed", {}).items() if section != by}
            if self.project.typed(by):
                typed[by] = dict(self.project.typed(by))
            if typed or "typed" in self.made:
                self.made["typed"] = typed
        with self.project.database.write() as session:
            row = session.get_one(Round, self.id)
            row.made = dict(self.made)
            flag_modified(row, "made")
            if "round" in over:
                row.sealed_at = None
                self.sealed = False

    def go_by_what_was_typed(self) -> None:
        """Take up what `--set` said for stages of this round, so that the round is finished as it was begun; what is said now counts more."""
        typed = self.made.get("typed", {})
        again = [f"{section}.{key}={value}" for section, own in typed.items() for key, value in own.items() if key not in self.project.typed(section)]
        if again:
            say(f"round {self.number} goes by what was typed for its stages: {', '.join(again)}")
            self.project.go_by(typed)

    def needs(self, stage: str, command: str) -> Any:
        """What an earlier stage made.

        Raises:
            UserError: it has not run.
        """
        if stage not in self.made:
            raise UserError(f"round {self.number} has no {stage} yet", fix=f"run `{command}` first, or the whole round with `truing round run`")
        return self.made[stage]

    def seed_of(self, stage: str) -> int:
        """A seed of this round's for one stage."""
        return seed_from(self.seed, self.number, stage)


# The stages, in order ------------------------------------------------------------------------------------------------


def choose_prompts(turn: Turn) -> None:
    """Which prompts this round is about: all there are."""
    prompts = prompts_of(turn.project)
    train = [prompt.id for prompt in prompts if prompt.split == Split.TRAIN]
    if not prompts:
        raise UserError("this project has no prompts", fix="bring some with `truing prompts import FILE`; `--everyday` takes the ones that come with Truing")
    turn.note(prompts={"n": len(prompts), "train": len(train), "held_out": len(prompts) - len(train)})


def sample(turn: Turn) -> str:
    """Draw the responses that people will judge, from the policy that the round starts with."""
    settings = turn.project.settings(SampleSettings)
    ids = [prompt.id for prompt in prompts_of(turn.project)]
    with policy_loaded(turn, turn.parent_policy):
        batch = draw_samples(
            turn.project, settings, turn.trunk, policy_id=turn.parent_policy, prompt_ids=ids, per_prompt=settings.per_prompt,
            seed=turn.seed_of("samples"), round_id=turn.id,
        )  # fmt: skip
    parent = None if turn.parent_policy == BASE else turn.parent_policy
    turn.note(by="samples", samples={"batch": batch, "n": len(ids) * settings.per_prompt}, parent_policy=parent)
    return batch


def ask_for_feedback(turn: Turn, *, simulated: bool | None = None) -> dict[str, Any]:
    """Ask questions about the samples, and have the simulated crowd answer them if the project says so.

    Raises:
        UserError: people are to answer and haven't yet.
    """
    project, feedback = turn.project, turn.project.settings(FeedbackSettings)
    batch = turn.needs("samples", "truing sample")["batch"]
    order = None if turn.parent is None else weakest_first(turn, batch)
    by_crowd = project.settings(RoundSettings).feedback == "simulated"
    asked = ask_pairs(
        project, feedback, batch=batch, round_id=turn.id, seed=turn.seed_of("questions"), prompt_order=order, gold="interleaved" if by_crowd else "scheduled"
    )
    turn.note(by="feedback", questions={"n": asked["n"], "gold": asked["gold"]})
    if simulated or (simulated is None and by_crowd):
        read_under_base(project, turn.trunk, _unread(project, turn.id), temperature=project.settings(SampleSettings).temperature)
        annotate_simulated(project, project.settings(CrowdSettings), round_id=turn.id, seed=seed_from(turn.seed, "crowd"), feedback=feedback)
    judged, missing = _progress(project, turn.id)
    turn.note(judgements={"n": judged})
    if missing:
        raise UserError(
            f"round {turn.number} waits for people: {judged} answers are in, {missing} are still wanted",
            fix="collect the rest in `truing studio`, then type `truing round run` again; or let simulated people answer with `truing annotate --simulated`",
        )
    return {"judgements": judged, **asked}


def weigh_feedback(turn: Turn) -> Artifact:
    """Measure how far the judgements can be trusted, and freeze what they say as a dataset. Judgements of all rounds
    count."""
    project = turn.project
    quality = measure_quality(project, project.settings(QualitySettings), round_ids=None, round_id=turn.id).as_dict()
    turn.note(by="quality", quality=quality)
    dataset = build_preferences(project, project.settings(PreferenceSettings), quality, round_ids=None, seed=turn.seed_of("preferences"), round_id=turn.id)
    turn.note(by="preferences", dataset=dataset.id)
    return dataset


def train_reward_model(turn: Turn) -> Artifact:
    """Fit a reward model to the newest dataset."""
    from truing.reward.train import RewardSettings
    from truing.reward.train import train_reward_model as fit

    dataset = turn.made.get("dataset") or weigh_feedback(turn).id
    model = fit(turn.project, turn.project.settings(RewardSettings), dataset, turn.trunk, seed=turn.seed_of("reward"), round_id=turn.id)
    turn.note(by="reward", reward=model.id)
    return model


def reward_of_round(turn: Turn) -> Artifact:
    """The reward model that was brought in or combined for this round or for the one it goes on from; where there is none, one fitted to the newest dataset."""
    chosen = turn.made.get("reward") or (turn.parent.made.get("reward") if turn.parent is not None else None)
    found = None if chosen is None else load_artifact(turn.project.artifacts, chosen)
    if found is None or "source" not in found.facts:
        return train_reward_model(turn)
    say(f"round {turn.number} goes by {found.id}, which was brought in; `truing reward train` would fit one to its judgements")
    turn.note(reward=found.id)
    return found


def use_reward_model(turn: Turn, source: str, reading: "Reading", dataset: str | None = None) -> Artifact:
    """Bring a reward model in for this round: a sequence-classification model, or a Python function, which is run."""
    from truing.reward.outside.source import parse
    from truing.reward.outside.stage import use_reward_model as use
    from truing.reward.train import RewardSettings

    model = use(
        turn.project, parse(source), turn.trunk, reading=reading, dataset_id=_dataset_to_measure_on(turn, dataset),
        reference_samples=turn.project.settings(RewardSettings).reference_samples, seed=turn.seed_of("reward"), round_id=turn.id,
    )  # fmt: skip
    turn.note(reward=model.id)
    return model


def combine_reward_models(turn: Turn, objectives: Sequence[str], at_least: Sequence[str], dataset: str | None = None) -> Artifact:
    """Make one reward model of several for this round, `NAME=ARTIFACT:WEIGHT` each, some of them held to `NAME:THRESHOLD:PRICE`."""
    from truing.reward.objectives.stage import combine_reward_models as combine
    from truing.reward.objectives.weighing import parse_floor, parse_objective
    from truing.reward.train import RewardSettings

    model = combine(
        turn.project, [parse_objective(words) for words in objectives], [parse_floor(words) for words in at_least], turn.trunk,
        dataset_id=_dataset_to_measure_on(turn, dataset), reference_samples=turn.project.settings(RewardSettings).reference_samples,
        seed=turn.seed_of("reward"), round_id=turn.id,
    )  # fmt: skip
    turn.note(reward=model.id)
    return model


def tune_policy(turn: Turn) -> Artifact:
    """Tune the policy that the round starts with, on training prompts alone: against the round's reward model, or by what people said and wrote."""
    from truing.policy.train import tune_settings

    policy = tuned_by(turn, tune_settings(turn.project))
    turn.note(by="tune", policy=policy.id)
    return policy


def tuned_by(turn: Turn, settings: "TuneSettings") -> Artifact:
    """The policy that the round's would be under these settings; the round doesn't take it up."""
    from truing.policy.settings import OnlineSettings

    policy = _against_the_reward(turn, settings) if isinstance(settings, OnlineSettings) else _by_examples(turn, settings)
    know_policy(turn.project, policy.id, turn.trunk.name, parent_id=turn.parent_policy)
    return policy


def _against_the_reward(turn: Turn, settings: "OnlineSettings") -> Artifact:
    from truing.policy.train import train_policy

    project, sampling = turn.project, turn.project.settings(SampleSettings)
    reward_id = turn.needs("reward", "truing reward train")
    require_fit(load_artifact(project.artifacts, reward_id), unfit=settings.unfit)
    prompts = {prompt.id: turn.trunk.prompt_ids(prompt.turns) for prompt in prompts_of(project, Split.TRAIN)}
    return train_policy(
        project, settings, trunk=turn.trunk, prompts=prompts, score=reward_model(turn, reward_id, by=settings.score), reward_id=reward_id,
        parent=turn.parent_policy, temperature=sampling.temperature, max_new_tokens=sampling.max_new_tokens, seed=turn.seed_of("tune"), round_id=turn.id,
    )  # fmt: skip


def follow_tuning(project: Project) -> None:
    """Help the first process of a team with whatever it tunes; see policy/team.py."""
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.policy.train import OnlineCall, follow
    from truing.reward.score import load_reward_model

    trunk = open_trunk(project.settings(ModelSettings))

    def reward(call: OnlineCall) -> "AnyRewardModel":
        return load_reward_model(project, call.reward_id, trunk, by=call.settings.score)

    follow(project, trunk, reward)


def _by_examples(turn: Turn, settings: "TuneSettings") -> Artifact:
    from truing.feedback.demonstrations import demonstrations
    from truing.policy.examples import preferences, to_imitate
    from truing.policy.settings import OfflineSettings
    from truing.policy.train import imitate

    assert isinstance(settings, OfflineSettings)
    dataset = turn.needs("dataset", "truing preferences") if settings.algorithm == "dpo" else None
    if dataset is None:
        with turn.project.database.read() as session:
            written = demonstrations(session)
        examples = to_imitate(written, turn.trunk, settings.max_tokens)
    else:
        examples = preferences(load_artifact(turn.project.artifacts, dataset), turn.trunk, settings.max_tokens)
    return imitate(
        turn.project, settings, examples, trunk=turn.trunk, dataset_id=dataset, parent=turn.parent_policy, seed=turn.seed_of("tune"), round_id=turn.id
    )  # fmt: skip


def evaluate(turn: Turn) -> Artifact:
    """The tuned policy against the base, and against the round's parent: fresh responses to held-out prompts."""
    from truing.evaluation.winrate import EvaluationSettings, evaluate_policy

    project, sampling, settings = turn.project, turn.project.settings(SampleSettings), turn.project.settings(EvaluationSettings)
    tuned, reward_id = turn.needs("policy", "truing tune"), turn.needs("reward", "truing reward train")
    against = [BASE] if turn.parent is None else [BASE, turn.parent_policy]
    ids = [prompt.id for prompt in prompts_of(project, Split.HELD_OUT)]
    if not ids:
        raise UserError("no prompt is held out, so that there is nothing to evaluate on", fix="import more prompts, or raise prompts.held_out_share")
    batches: dict[str, str] = {}
    kl: dict[str, float] = {}
    for policy_id in [tuned, *against]:
        with policy_loaded(turn, policy_id):
            batches[policy_id] = draw_samples(
                project, sampling, turn.trunk, policy_id=policy_id, prompt_ids=ids, per_prompt=settings.per_prompt, seed=turn.seed_of("evaluation"),
                round_id=turn.id,
            )  # fmt: skip
        kl |= read_under_base(project, turn.trunk, _of_batch(project, batches[policy_id]), temperature=sampling.temperature)
    gold = gold_of if project.settings(RoundSettings).feedback == "simulated" else None
    found = evaluate_policy(
        project, settings, policy_id=tuned, against=against, batches=batches, gold=gold,
        score=lambda samples: score_samples(turn, reward_id, samples), kl_nats=kl, seed=turn.seed_of("evaluation"), parents=[reward_id],
        judge="the simulated people's taste" if gold else "the reward model",
        names={} if turn.parent is None else {turn.parent_policy: f"round {turn.parent.number}'s model"}, round_id=turn.id,
    )  # fmt: skip
    turn.note(by="evaluation", evaluation=found.id)
    return found


def seal(turn: Turn) -> Artifact:
    """Name all that the round took and made in one artifact, and close it."""
    project = turn.project
    parents = [turn.made[stage] for stage in ("dataset", "reward", "policy", "evaluation")]
    if turn.parent is not None:
        parents.append(turn.parent.made["round"])
    settings = {section: dict(project.raw_settings(section)) for section in SECTIONS if project.raw_settings(section)}
    made = {stage: value for stage, value in turn.made.items() if stage not in ("round", "report", "typed")}
    artifact = write_artifact(
        project.artifacts, "round", lambda folder: None, parents=parents, settings=settings, seed=turn.seed, facts={"number": turn.number, "made": made}
    )
    record_artifact(project, artifact.id, artifact.manifest)
    turn.note(round=artifact.id)
    with project.database.write() as session:
        row = session.get_one(Round, turn.id)
        row.sealed_at = row.sealed_at or now()
    turn.sealed = True
    return artifact


def report(turn: Turn) -> Path:
    """Write the round's page."""
    from truing.evaluation.report import write_report

    return write_report(turn.project, turn.number)


# What stages share ---------------------------------------------------------------------------------------------------


def policy_loaded(turn: Turn, policy_id: str) -> AbstractContextManager[None]:
    """The trunk with a policy's adapter under the role "policy"; nothing to do for the base."""
    if policy_id == BASE:
        return nullcontext()
    return _adapter_loaded(turn, policy_id)


class _adapter_loaded:  # noqa: N801 (a context manager)
    def __init__(self, turn: Turn, policy_id: str) -> None:
        self.turn, self.policy_id = turn, policy_id

    def __enter__(self) -> None:
        self.turn.trunk.load_adapter("policy", load_artifact(self.turn.project.artifacts, self.policy_id).path / "adapter")

    def __exit__(self, *error: object) -> None:
        self.turn.trunk.drop_adapter("policy")


def reward_model(turn: Turn, reward_id: str, *, by: Literal["mean", "lower", "worst"] = "mean") -> "AnyRewardModel":
    """A reward model on this round's trunk, which scores by its ensemble's mean, lower bound or worst member."""
    from truing.reward.score import load_reward_model

    return load_reward_model(turn.project, reward_id, turn.trunk, by=by)


def score_samples(turn: Turn, reward_id: str, samples: Sequence[Sample]) -> list[float]:
    """Normalised scores of stored samples."""
    from truing.samples import token_ids

    turns = {prompt.id: prompt.turns for prompt in prompts_of(turn.project)}
    prompts = [turn.trunk.prompt_ids(turns[sample.prompt_id]) for sample in samples]
    return list(reward_model(turn, reward_id).score(prompts, [token_ids(turn.trunk, sample) for sample in samples]))


def gold_of(prompt_text: str, sample: Sample) -> float:
    """The simulated people's taste for a sample: the gold reward."""
    assert sample.base_logprob is not None
    return gold_reward(prompt_text, sample.text, finished=sample.finished, base_logprob=sample.base_logprob)


def weakest_first(turn: Turn, batch: str) -> list[str]:
    """Prompt ids, those first whose new samples score lowest under the parent's reward model and about which its
    members disagree most.

    The two orders count alike: a prompt's place is the sum of its places in both.
    """
    assert turn.parent is not None
    from truing.samples import token_ids

    with turn.project.database.read() as session:
        samples = list(session.scalars(select(Sample).where(Sample.batch == batch).order_by(Sample.prompt_id, Sample.position)))
    turns = {prompt.id: prompt.turns for prompt in prompts_of(turn.project)}
    prompts = [turn.trunk.prompt_ids(turns[sample.prompt_id]) for sample in samples]
    means, spreads = reward_model(turn, turn.parent.made["reward"]).score_with_std(prompts, [token_ids(turn.trunk, sample) for sample in samples])
    worst: dict[str, float] = {}
    unsure: dict[str, float] = {}
    for one, mean, spread in zip(samples, means, spreads, strict=True):
        worst[one.prompt_id] = min(mean, worst.get(one.prompt_id, mean))
        unsure[one.prompt_id] = max(spread, unsure.get(one.prompt_id, spread))
    by_score = {prompt: place for place, prompt in enumerate(sorted(worst, key=lambda prompt: (worst[prompt], prompt)))}
    by_spread = {prompt: place for place, prompt in enumerate(sorted(unsure, key=lambda prompt: (-unsure[prompt], prompt)))}
    return sorted(worst, key=lambda prompt: (by_score[prompt] + by_spread[prompt], prompt))


def honest_accuracy(turn: Turn) -> Interval:
    """How often the round's reward model agrees with single held-out judgements of the simulated annotators that were
    built without a vice."""
    from truing.reward.card.accuracy import judged_accuracy
    from truing.reward.card.measure import held_out_scores

    rows, scores = held_out_scores(turn.project, turn.made["reward"])
    with turn.project.database.read() as session:
        crowd = session.scalars(select(Annotator).where(Annotator.kind == AnnotatorKind.SIMULATED))
        honest = {annotator.id for annotator in crowd if not annotator.facts.get("vice")}
    return judged_accuracy(rows, scores, honest, seed=turn.seed_of("honest"))


def check_settings(project: Project) -> None:
    """Read every section once, so that a slip in the last stage's settings is told before the first stage runs."""
    from truing.policy.train import tune_settings

    for section in SECTIONS:
        if section == "tune":
            tune_settings(project)
        else:
            project.settings(section_class(section))


def _open_round(project: Project, number: int | None, seed: int | None, new: bool) -> Round:
    """The round asked for; without a number the newest, or a new one if there is none, or if `new` and the newest is
    sealed.

    Raises:
        UserError: there is no such round, or it has another seed than asked for.
    """
    with project.database.write() as session:
        newest = session.scalars(select(Round).order_by(Round.number.desc()).limit(1)).first()
        if number is not None:
            found = session.scalars(select(Round).where(Round.number == number)).first()
            if found is None:
                raise UserError(f"there is no round {number}", fix="`truing round status` lists the rounds")
            return found
        if newest is not None and not (new and newest.sealed_at is not None):
            if seed is not None and seed != newest.seed:
                if newest.made:
                    raise UserError(
                        f"round {newest.number} was begun with seed {newest.seed}, not {seed}",
                        fix="leave --seed out; another seed takes a new round (`truing round next`, once this one is sealed) or a new project",
                    )
                newest.seed = seed
            return newest
        row = Round(
            number=1 if newest is None else newest.number + 1, parent_id=None if newest is None else newest.id,
            seed=seed if seed is not None else (1 if newest is None else newest.seed), made={}, created_at=now(), sealed_at=None,
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row


def _dataset_to_measure_on(turn: Turn, named: str | None) -> str | None:
    """The dataset that was named, the round's, or the project's newest; None where there is none."""
    found = artifact_ids(turn.project.artifacts, "dataset")
    return named or turn.made.get("dataset") or (found[-1] if found else None)


def _parent(project: Project, row: Round) -> Round | None:
    if row.parent_id is None:
        return None
    with project.database.read() as session:
        return session.get_one(Round, row.parent_id)


def _of_batch(project: Project, batch: str) -> list[str]:
    with project.database.read() as session:
        return list(session.scalars(select(Sample.id).where(Sample.batch == batch).order_by(Sample.id)))


def _unread(project: Project, round_id: int) -> list[str]:
    """The round's samples whose likelihood under the base isn't known yet."""
    with project.database.read() as session:
        query = select(Sample.id).join(QuestionSample).join(Question).where(Question.round_id == round_id, Sample.base_logprob.is_(None))
        return sorted(set(session.scalars(query)))


def _progress(project: Project, round_id: int) -> tuple[int, int]:
    """How many judgements a round has, and how many answers it still wants."""
    with project.database.read() as session:
        judged = session.scalar(select(func.count(Judgement.id)).join(Question).where(Question.round_id == round_id, Judgement.supersedes.is_(None)))
        return int(judged or 0), still_wanted(session, round_id)
