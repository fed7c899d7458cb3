"""What managers look at, on both databases: counts, who is at work, filters of the log."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from asked import add_people, add_samples
from stored import NOON, judgement, prompt
from truing.feedback.assignment import claim
from truing.feedback.sets import Rules, create_set
from truing.store.overview import browse, loop
from truing.store.overview.people import people
from truing.store.project import Project
from truing.store.tables import Judgement, Prompt, Question, Run, RunState


@pytest.fixture
def asked(project: Project) -> Project:
    """Eight prompts, two of them held out, with a set of pairs about them, and two people."""
    add_samples(project, prompts=8, per_prompt=2)
    add_people(project, "Ann", "Ben")
    create_set(project, name="pairs", kind="pair", guideline="The kinder one.", rules=Rules(overlap=2, flags=["naïve 100%"]), batch="batch", seed=1, at=NOON)
    return project


def questions(project: Project) -> list[str]:
    """The questions' ids in order."""
    with project.database.read() as session:
        return list(session.scalars(select(Question.id).order_by(Question.position)))


def add_log(project: Project) -> None:
    """Seven judgements a minute apart, of every sort; ids in the order of time."""
    asked = questions(project)
    said = [
        {"strength": 2}, {"strength": 0}, {"both_bad": True, "comment": "both bad"}, {"skip": "no idea"}, {"strength": -1, "flags": ["naïve 100%"]},
        {"strength": 10 // 4, "flags": ["unsafe"]},
    ]  # fmt: skip
    with project.database.write() as session:
        for number, answer in enumerate(said):
            at = NOON + timedelta(minutes=number)
            session.add(judgement(asked[number % 5], f"{number}", annotator_id="ann" if number < 5 else "ben", answer=answer, submitted_at=at))
        session.flush()
        session.add(judgement(asked[0], "6", answer={"strength": 1}, supersedes="0", submitted_at=NOON + timedelta(minutes=6)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "6543210"),
        ({"annotator": "ben"}, "5"),
        ({"answer": "tie"}, "1"),
        ({"answer": "both_bad"}, "2"),
        ({"answer": "skip"}, "3"),
        ({"answer": "flag"}, "54"),
        ({"answer": "comment"}, "2"),
        ({"answer": "gold"}, ""),
        ({"flag": "naïve 100%"}, "4"),
        ({"flag": "unsafe"}, "5"),
        ({"flag": "un"}, ""),
        ({"kind": "rating"}, ""),
        ({"words": "GARDEN"}, "650"),  # the first prompt's question, in any case of letters
        ({"words": "g%den"}, ""),  # a percent sign means itself
        ({"since": NOON + timedelta(minutes=2), "until": NOON + timedelta(minutes=4)}, "32"),
    ],
)
def test_the_log_is_filtered(asked: Project, wanted: dict[str, object], found: str) -> None:
    add_log(asked)
    with asked.database.read() as session:
        first_of_garden = session.scalars(select(Question.prompt_id).where(Question.id == questions(asked)[0])).one()
        if wanted.get("words") == "GARDEN":
            words = browse.whole_prompt(session, first_of_garden)
            assert words is not None
            wanted = {"words": words.prompt.text.upper()}
        page = browse.judgements_page(session, browse.Wanted(**wanted))  # type: ignore[arg-type]
        assert "".join(row.id for row in page.rows) == found
        assert page.next is None


def test_pages_of_the_log_follow_each_other(asked: Project) -> None:
    add_log(asked)
    with asked.database.read() as session:
        seen, before = "", ""
        while True:
            page = browse.judgements_page(session, browse.Wanted(), before=before, size=3)
            seen += "".join(row.id for row in page.rows)
            if page.next is None:
                break
            before = page.next
    assert seen == "6543210"


def test_prompts_that_share_a_position_are_all_listed(asked: Project) -> None:
    """A log from another project brings prompts whose positions are taken."""
    with asked.database.write() as session:
        session.add_all(prompt(f"From elsewhere {number}?", position=number // 2) for number in range(16))
    with asked.database.read() as session:
        seen: list[str] = []
        after = ""
        while True:
            page = browse.prompts_page(session, after=after, size=5)  # three share each position
            seen += [row.id for row in page.rows]
            if page.next is None:
                break
            after = page.next
        assert seen == list(session.scalars(select(Prompt.id).order_by(Prompt.position, Prompt.id)))
    assert len(seen) == 24


def test_a_question_keeps_its_history(asked: Project) -> None:
    add_log(asked)
    with asked.database.read() as session:
        whole = browse.whole_question(session, questions(asked)[0])
        assert whole is not None
        assert [(row.id, row.superseded) for row in whole.judgements] == [("0", True), ("5", False), ("6", False)]
        assert [sample.position for sample in whole.samples] == sorted(sample.position for sample in whole.samples) or len(whole.samples) == 2
        assert browse.whole_question(session, "nothing") is None
        assert browse.flags(session) == ["naïve 100%"]


def test_everything_is_counted(asked: Project) -> None:
    with asked.database.write() as session:
        session.get_one(Question, questions(asked)[7]).gold = {"better": 0}
        session.get_one(Question, questions(asked)[0]).answers = 1
        session.get_one(Question, questions(asked)[1]).answers = 3  # one too many counts as two
    with asked.database.read() as session:
        counted = loop.counts(session)
    assert (counted.prompts, counted.held_out, counted.samples, counted.by_people, counted.policies) == (8, 2, 16, 16, 0)
    assert (counted.questions, counted.answered, counted.wanted) == (7, 3, 14)
    assert (counted.sets, counted.open_sets, counted.judgements) == (1, 1, 0)


def test_who_is_at_work_is_who_asked_or_answered_within_ten_minutes(asked: Project) -> None:
    claim(asked, "ann", at=NOON, set_id=None)
    with asked.database.write() as session:
        row = judgement(questions(asked)[3], loop.first_id(NOON + timedelta(minutes=5)), annotator_id="ben", submitted_at=NOON + timedelta(minutes=5))
        session.add(row)
    with asked.database.read() as session:
        now = [loop.people_now(session, NOON + timedelta(minutes=minutes)) for minutes in (0, 6, 12, 20)]
        assert now == [1, 2, 1, 0]
        assert [person.judgements for person in people(session) if person.name in ("Ann", "Ben")] == [1, 0]


def test_pace_is_what_came_in_the_last_hour(asked: Project) -> None:
    at = NOON + timedelta(hours=3)
    with asked.database.write() as session:
        for number, minutes in enumerate((0, 90, 150, 165)):  # the last two within the hour, the first of them half an hour ago
            moment = NOON + timedelta(minutes=minutes)
            session.add(judgement(questions(asked)[number], loop.first_id(moment)[:-1] + str(number + 1), submitted_at=moment))
    with asked.database.read() as session:
        found = loop.pace(session, at)
        assert session.scalar(select(func.count()).select_from(Judgement)) == 4
    assert set(found) == {None, *[key for key in found if key]}
    assert (found[None].answers, found[None].hours) == (2, 0.5)
    assert found[None].each_hour == 4.0


def test_the_newest_run_of_a_stage_speaks_for_it(project: Project) -> None:
    def run(number: int, state: str, minutes: int) -> Run:
        at = NOON + timedelta(minutes=minutes)
        times = {"started_at": at, "heartbeat_at": at, "finished_at": at if state == "done" else None}
        return Run(id=f"r{number}", stage="quality", key=f"k{number}", state=state, seconds=1.0, peak_gb=0.0, progress={}, result={"n": number}, **times)

    with project.database.write() as session:
        session.add_all([run(1, RunState.DONE, 1), run(2, RunState.DONE, 2), run(3, RunState.RUNNING, 3)])
    with project.database.read() as session:
        newest = loop.newest_result(session, "quality")
        assert newest is not None
        assert newest.result == {"n": 2}
        assert loop.latest_runs(session)["quality"].id == "r3"
        assert loop.newest_result(session, "tune") is None
