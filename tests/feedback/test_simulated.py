"""The simulated crowd: it comes through the door as people do, on a clock of its own, and goes on where it was killed."""

import random
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from asked import BATCH, add_people, add_samples
from truing.errors import UserError
from truing.feedback import simulated
from truing.feedback.assignment import Receipt, claim, submit, submit_in
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.simulated import START, CrowdSettings, Shown, Text, annotate_simulated, judge, make_crowd, utility_difference
from truing.feedback.taste import POPULATION
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Assignment, Judgement, Question, Sample

pytestmark = pytest.mark.slow  # crowds of simulated people, judged whole

CROWD = CrowdSettings(annotators=5, spoilers=3)
FEEDBACK = FeedbackSettings(pairs=20, gold_each=3, gold_overlap=5)
NOTHING = dict.fromkeys(POPULATION, 0.0)


def pair(lead: float) -> Shown:
    """A pair in which A is liked better by `lead`."""
    return Shown(10, (Text(NOTHING | {"substance": lead / POPULATION["substance"]}, 20), Text(NOTHING, 20)))


def honest(**changes: float) -> dict[str, Any]:
    return {"weights": dict(POPULATION), "noise": 0.0, "tie_width": 0.2, "vice": None} | changes


def annotated(project: Project, *, seed: int = 3) -> dict[str, Any]:
    add_samples(project, prompts=16, per_prompt=2)
    ask_pairs(project, FEEDBACK, batch=BATCH, round_id=1, seed=1)
    return annotate_simulated(project, CROWD, round_id=1, seed=seed, feedback=FEEDBACK)


def log(project: Project) -> list[tuple[Any, ...]]:
    """Everything about every judgement and assignment."""
    with project.database.read() as session:
        judged = session.scalars(select(Judgement).order_by(Judgement.id))
        lent = session.scalars(select(Assignment).order_by(Assignment.id))
        return [
            *((row.id, row.question_id, row.annotator_id, row.answer, row.order_shown, row.started_at, row.submitted_at, row.active_ms) for row in judged),
            *((row.id, row.question_id, row.annotator_id, row.order_shown, row.claimed_at, row.expires_at) for row in lent),
        ]


# ---- one judgement ----


@pytest.mark.parametrize(("lead", "strength"), [(0.1, 0), (-0.2, 0), (0.3, 1), (-1.4, -1), (1.6, 2), (-3.4, -2), (3.6, 3), (-8.0, -3)])
def test_without_noise_the_answer_follows_the_lead(lead: float, strength: int) -> None:
    assert judge(honest(), pair(lead), [0, 1], random.Random(0)) == {"strength": strength}


def test_noise_is_logistic() -> None:
    """With scale 1 a lead of ln 3 wins three times out of four."""
    draw = random.Random(0)
    answers = [judge(honest(noise=1.0, tie_width=0.0), pair(1.0986), [0, 1], draw)["strength"] for _ in range(4000)]
    assert 0.73 < sum(answer > 0 for answer in answers) / 4000 < 0.77


@given(st.sampled_from([[0, 1], [1, 0]]), st.floats(-5, 5), st.integers())
def test_always_left_is_always_left(order: list[int], lead: float, seed: int) -> None:
    strength = judge(honest() | {"vice": "left"}, pair(lead), order, random.Random(seed))["strength"]
    assert (strength > 0) == (order[0] == 0)
    assert strength != 0


def test_the_other_vices() -> None:
    draw = random.Random(0)
    random_clicks = Counter(judge(honest() | {"vice": "random"}, pair(9.0), [0, 1], draw)["strength"] for _ in range(600))
    assert sorted(random_clicks) == [-3, -2, -1, 1, 2, 3]
    assert all(60 <= n <= 140 for n in random_clicks.values())
    ties = [judge(honest() | {"vice": "ties"}, pair(9.0), [0, 1], draw)["strength"] == 0 for _ in range(600)]
    assert 0.8 < sum(ties) / 600 < 0.9


@given(st.floats(-5, 5), st.integers())
def test_honest_answers_know_no_sides(lead: float, seed: int) -> None:
    facts = honest(noise=0.5)
    assert judge(facts, pair(lead), [0, 1], random.Random(seed)) == judge(facts, pair(lead), [1, 0], random.Random(seed))


# ---- the crowd ----


def test_a_seed_makes_a_crowd() -> None:
    settings = CrowdSettings(annotators=30, spoilers=4)
    crowd, again, other = make_crowd(settings, 1), make_crowd(settings, 1), make_crowd(settings, 2)
    assert [(one.id, one.name, one.facts) for one in crowd] == [(one.id, one.name, one.facts) for one in again]
    assert not {one.id for one in crowd} & {one.id for one in other}
    assert len({one.name for one in crowd}) == 30
    assert Counter(one.facts["vice"] for one in crowd) == {None: 26, "random": 2, "left": 1, "ties": 1}
    assert all(one.facts["weights"].keys() == POPULATION.keys() for one in crowd)


def test_tastes_spread_around_the_populations() -> None:
    crowd = make_crowd(CrowdSettings(annotators=400, taste_spread=0.2), 1)
    for name, weight in POPULATION.items():
        mean = sum(one.facts["weights"][name] for one in crowd) / 400
        assert abs(mean - weight) < 4 * abs(weight) * 0.2 / 20  # four standard errors
    alike = make_crowd(CrowdSettings(taste_spread=0.0), 1)
    assert all(one.facts["weights"] == POPULATION for one in alike)


# ---- a day's work ----


def test_every_question_gets_its_answers(project: Project) -> None:
    told = annotated(project)
    with project.database.read() as session:
        judged = list(session.scalars(select(Judgement)))
        questions = {row.id: row for row in session.scalars(select(Question))}
        people = list(session.scalars(select(Annotator)))
        assert Counter(row.question_id for row in judged) == {row.id: row.overlap for row in questions.values()}
        assert told["judgements"] == len(judged) == session.query(Assignment).count()
    assert max(Counter((row.question_id, row.annotator_id) for row in judged).values()) == 1
    assert {one.id for one in people} == set(told["annotators"])
    assert {one.id for one in people if one.facts["vice"]} == set(told["spoilers"])
    assert all(one.kind == "simulated" for one in people)
    for row in judged:
        assert row.answer.keys() == {"strength"}  # never a side
        assert row.active_ms == (row.submitted_at - row.started_at) / timedelta(milliseconds=1) >= 300


def test_it_lives_on_a_clock_of_its_own(project: Project) -> None:
    annotated(project)
    with project.database.read() as session:
        judged = list(session.scalars(select(Judgement)))
    assert min(row.started_at for row in judged) >= START + timedelta(days=1)  # round 1
    assert max(row.submitted_at for row in judged) < START + timedelta(days=1, hours=4)
    for person in {row.annotator_id for row in judged}:  # one thing at a time
        mine = sorted((row.started_at, row.submitted_at) for row in judged if row.annotator_id == person)
        assert all(done + timedelta(seconds=2) <= begun for (_, done), (begun, _) in pairwise(mine))


def test_the_same_seed_gives_the_same_log(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    annotated(project)
    other = open_project(create_project(tmp_path_factory.mktemp("other") / "project", settings=""))
    annotated(other)
    assert log(other) == log(project)


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing gets to tidy up."""


@pytest.mark.parametrize("after", [0, 1, 23, 40])
def test_a_killed_crowd_goes_on_to_the_same_log(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    annotated(project)
    other = open_project(create_project(tmp_path_factory.mktemp("other") / "project", settings=""))
    calls = 0

    def dies(*args: Any, **kwargs: Any) -> Receipt:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return submit_in(*args, **kwargs)

    monkeypatch.setattr(simulated, "STEPS_A_TRANSACTION", 7)
    monkeypatch.setattr(simulated, "submit_in", dies)
    with pytest.raises(Killed):
        annotated(other)
    monkeypatch.setattr(simulated, "submit_in", submit_in)
    annotate_simulated(other, CROWD, round_id=1, seed=3, feedback=FEEDBACK)
    assert log(other) == log(project)


def test_doing_it_again_adds_nothing(project: Project) -> None:
    first = annotated(project)
    before = log(project)
    project.force = True
    assert annotate_simulated(project, CROWD, round_id=1, seed=3, feedback=FEEDBACK) == first
    assert log(project) == before


def test_people_and_the_crowd_share_the_questions(project: Project) -> None:
    add_samples(project, prompts=16, per_prompt=2)
    ask_pairs(project, FEEDBACK, batch=BATCH, round_id=1, seed=1)
    add_people(project, "Ann")
    at = datetime(2026, 1, 1, tzinfo=START.tzinfo)
    for number in range(5):
        lent = claim(project, "ann", at=at)
        assert lent is not None
        submit(project, lent.id, {"strength": 1}, annotator_id="ann", started_at=at, at=at, active_ms=1, idempotency_key=f"{number}", guideline_version=1)
    annotate_simulated(project, CROWD, round_id=1, seed=3, feedback=FEEDBACK)
    with project.database.read() as session:
        overlaps = {row.id: row.overlap for row in session.scalars(select(Question))}
        assert Counter(session.scalars(select(Judgement.question_id))) == overlaps


def test_the_same_seed_brings_the_same_people(project: Project) -> None:
    told = annotated(project)
    annotate_simulated(project, CROWD, round_id=None, seed=3, feedback=FEEDBACK)
    with project.database.read() as session:
        assert set(session.scalars(select(Annotator.id))) == set(told["annotators"])


def test_another_seed_brings_others_under_names_of_their_own(project: Project) -> None:
    annotated(project)
    with project.database.write() as session:
        for question in session.scalars(select(Question)):
            question.overlap += 1
    annotate_simulated(project, CROWD, round_id=1, seed=4, feedback=FEEDBACK)
    with project.database.read() as session:
        names = sorted(session.scalars(select(Annotator.name)))
    assert len(names) == 10
    assert sum(name.endswith("of crowd 4") for name in names) == 5


def test_people_dont_change(project: Project) -> None:
    annotated(project)
    project.force = True
    with pytest.raises(UserError, match="people don't change"):
        annotate_simulated(project, CrowdSettings(annotators=5, noise=0.1), round_id=1, seed=3, feedback=FEEDBACK)


def test_a_sample_without_likelihood_is_refused_and_a_check_is_not(project: Project) -> None:
    add_samples(project, prompts=16, per_prompt=2)
    ask_pairs(project, FEEDBACK, batch=BATCH, round_id=1, seed=1)
    with project.database.write() as session:
        checks = list(session.scalars(select(Sample).where(Sample.author == CHECK_AUTHOR)))
        assert [sample.base_logprob for sample in checks] == [None] * 3
        for sample in session.scalars(select(Sample).where(Sample.batch == BATCH)):
            sample.base_logprob = None
    with pytest.raises(UserError, match="truing sample"):
        annotate_simulated(project, CROWD, round_id=1, seed=3, feedback=FEEDBACK)


def test_nothing_to_annotate_says_so(project: Project) -> None:
    with pytest.raises(UserError, match="nothing to annotate"):
        annotate_simulated(project, CROWD, round_id=None, seed=3, feedback=FEEDBACK)


def test_utility_difference_by_hand() -> None:
    a, b = Text(NOTHING | {"complete": 1.0, "listing": 0.5}, 9), Text(NOTHING | {"brief": 0.5}, 9)
    weights = dict.fromkeys(POPULATION, 0.0) | {"complete": 2.0, "listing": -3.0, "brief": 4.0}
    assert utility_difference(weights, Shown(5, (a, b))) == pytest.approx(2.0 - 1.5 - 2.0)
