"""Sets of questions: what is asked of which samples, by which rules, and how far a set is."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select

from asked import BATCH, add_people, add_samples, add_set
from door import give, question, take
from stored import NOON, judgement
from truing.errors import UserError
from truing.feedback.answers import gold_of, is_right
from truing.feedback.assignment import claim
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.pairs import groups_of
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.sets import EVERYBODY, Aspect, Rules, SetReport, add_gold, create_set, new_guideline, newest_guideline, rules_of, set_state, sets_of
from truing.store.judgements import count_answers
from truing.store.project import Project
from truing.store.tables import Question, QuestionSample, QuestionSet, Sample


def make(project: Project, kind: str = "pair", **changes: Any) -> SetReport:
    """A set about the batch that `add_samples` makes."""
    given: dict[str, Any] = {"name": f"Some {kind}", "guideline": "Be fair.", "rules": Rules(), "seed": 1, "at": NOON} | changes
    if "sample_ids" not in given:
        given.setdefault("batch", BATCH)
    return create_set(project, kind=kind, **given)


class Asked:
    """The questions of a set, read back in their order."""

    def __init__(self, project: Project, set_id: str) -> None:
        with project.database.read() as session:
            self.questions = list(session.scalars(select(Question).where(Question.set_id == set_id).order_by(Question.position)))
            places = session.execute(select(QuestionSample.question_id, Sample).join(Sample).order_by(QuestionSample.position)).all()
        self.samples = {row.id: [sample for asked, sample in places if asked == row.id] for row in self.questions}
        self.plain = [row for row in self.questions if row.gold is None]


def distinct_texts(project: Project) -> dict[str, set[str]]:
    """Prompt → the different texts of its samples."""
    found: dict[str, set[str]] = {}
    with project.database.read() as session:
        for sample in session.scalars(select(Sample).where(Sample.batch == BATCH)):
            found.setdefault(sample.prompt_id, set()).add(sample.text.strip())
    return found


# ---- making one ----


def test_pairs_are_all_pairs_of_different_texts(project: Project) -> None:
    add_samples(project, prompts=6, per_prompt=4)
    report = make(project, rules=Rules(overlap=3))
    asked = Asked(project, report.id)
    texts = distinct_texts(project)
    assert report.questions == len(asked.questions) == sum(len(list(combinations(some, 2))) for some in texts.values())
    pairs = {(row.prompt_id, frozenset(sample.text for sample in asked.samples[row.id])) for row in asked.questions}
    assert len(pairs) == report.questions
    assert all(len(pair) == 2 for _, pair in pairs)
    assert {row.prompt_id for row in asked.questions[:6]} == texts.keys()  # each prompt once before any twice
    assert {(row.kind, row.overlap, row.open, row.answers, row.gold) for row in asked.questions} == {("pair", 3, True, 0, None)}


def test_which_of_two_is_a_is_drawn(project: Project) -> None:
    add_samples(project, prompts=40, per_prompt=2)
    asked = Asked(project, make(project).id)
    first = [asked.samples[row.id][0].position for row in asked.questions]
    assert 8 <= sum(first) <= 32  # 1 in 10,000 falls outside


def test_rankings_are_groups_of_one_prompt(project: Project) -> None:
    add_samples(project, prompts=5, per_prompt=7)
    report = make(project, "ranking", rules=Rules(samples_per_question=3))
    asked = Asked(project, report.id)
    for prompt, texts in distinct_texts(project).items():
        mine = [asked.samples[row.id] for row in asked.questions if row.prompt_id == prompt]
        assert [len(group) for group in mine] == [min(3, len(texts))] * (len(texts) // min(3, len(texts)))
        assert len({sample.text for group in mine for sample in group}) == sum(map(len, mine))


@given(st.integers(0, 12), st.integers(2, 9), st.integers())
def test_groups_share_nothing_and_leave_less_than_a_group_over(n: int, size: int, seed: int) -> None:
    samples = [Sample(id=f"{i}", text=f"{i}") for i in range(n)]
    groups = groups_of(samples, size, seed)
    used = [sample.id for group in groups for sample in group]
    assert len(set(used)) == len(used)
    assert {len(group) for group in groups} <= {min(size, n)}
    assert n - len(used) < max(2, min(size, n))


@pytest.mark.parametrize("kind", ["rating", "thumbs", "edit"])
def test_single_responses_are_asked_about_one_by_one(project: Project, kind: str) -> None:
    add_samples(project, prompts=6, per_prompt=3)
    report = make(project, kind)
    asked = Asked(project, report.id)
    assert {len(samples) for samples in asked.samples.values()} == {1}
    assert len(asked.questions) == report.questions == sum(map(len, distinct_texts(project).values()))
    assert report.passed_over.get("same text", 0) == 18 - report.questions


def test_a_list_of_samples_is_asked_about_in_its_order(project: Project) -> None:
    add_samples(project, prompts=6, per_prompt=1)
    with project.database.read() as session:
        ids = sorted(session.scalars(select(Sample.id)))
    asked = Asked(project, make(project, "thumbs", sample_ids=ids[::-1][:4]).id)
    assert [asked.samples[row.id][0].id for row in asked.questions] == ids[::-1][:4]


def test_a_random_order_is_drawn_by_the_seed(project: Project) -> None:
    add_samples(project, prompts=20, per_prompt=1)
    orders = []
    for i, (seed, order) in enumerate([(1, "listed"), (1, "random"), (1, "random"), (2, "random")]):
        asked = Asked(project, make(project, "thumbs", name=f"{i}", seed=seed, rules=Rules(order=order)).id)
        orders.append([asked.samples[row.id][0].id for row in asked.questions])
    assert orders[1] == orders[2] != orders[0] != orders[3] != orders[1]
    assert sorted(orders[0]) == sorted(orders[3])


def test_a_split_and_a_limit_are_kept(project: Project) -> None:
    ids = add_samples(project, prompts=12, per_prompt=1)
    held_out = set(ids[::4])
    report = make(project, "thumbs", split="held-out", limit=2)
    assert report.questions == 2
    assert report.passed_over == {"not needed": 1}
    assert {row.prompt_id for row in Asked(project, report.id).questions} <= held_out


def test_blank_texts_are_passed_over(project: Project) -> None:
    add_samples(project, prompts=3, per_prompt=1)
    with project.database.write() as session:
        session.scalars(select(Sample)).first().text = " \n"  # type: ignore[union-attr]
    assert make(project, "edit")[1:] == (2, 0, {"blank": 1})


def test_two_sets_may_ask_about_the_same(project: Project) -> None:
    add_samples(project, prompts=3, per_prompt=2)
    first, second = (make(project, name=name) for name in ("Warmth", "Truth"))
    assert first.questions == second.questions
    assert not {row.id for row in Asked(project, first.id).questions} & {row.id for row in Asked(project, second.id).questions}


def test_check_questions_can_be_asked_for(project: Project) -> None:
    add_samples(project, prompts=12, per_prompt=2)
    report = make(project, checks=3)
    asked = Asked(project, report.id)
    gold = [row for row in asked.questions if row.gold is not None]
    assert (report.gold, len(gold), len(asked.plain)) == (3, 3, report.questions)
    for row in gold:
        assert row.gold is not None
        assert asked.samples[row.id][1 - row.gold["better"]].author == CHECK_AUTHOR
        assert row.overlap == EVERYBODY


def test_what_doesnt_fit_is_refused_in_words(project: Project) -> None:
    add_samples(project, prompts=3, per_prompt=1)
    add_people(project, "Ann")
    refused: list[tuple[str, dict[str, Any]]] = [
        ("about the samples of a batch, or about a list", {"sample_ids": [], "batch": BATCH}),
        ("no sample nowhere", {"sample_ids": ["nowhere"]}),
        ("give no pair question", {}),
        ("give no thumbs question", {"kind": "thumbs", "batch": "nowhere"}),
        ("needs a name", {"name": " "}),
        ("need a guideline", {"kind": "thumbs", "guideline": " \n"}),
        ("no annotator bob", {"kind": "thumbs", "rules": Rules(who=["ann", "bob"])}),
        ("made for pairs of a batch alone", {"kind": "thumbs", "checks": 2}),
    ]
    for words, changes in refused:
        with pytest.raises(UserError, match=words):
            make(project, **changes)
    make(project, "thumbs", name="Taken")
    with pytest.raises(UserError, match="called 'Taken' already"):
        make(project, "thumbs", name=" Taken ")
    with project.database.read() as session:
        assert len(session.scalars(select(QuestionSet)).all()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 0}, {"scale": 6}, {"samples_per_question": 10}, {"gold_first": 0.9}, {"aspects": []}, {"flags": ["rude", "rude"]}, {"flags": [" "]},
        {"aspects": [Aspect(name="a"), Aspect(name="a")]}, {"completion_url": "javascript:alert(1)"}, {"order": "best"}, {"colour": "red"},
    ],
)  # fmt: skip
def test_rules_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rules(**wrong)


def test_rules_come_back_from_the_store(project: Project) -> None:
    add_samples(project, prompts=3, per_prompt=1)
    rules = Rules(
        aspects=[Aspect(name="warmth", ask="How warm?", points={"1": "cold", "5": "warm"})], flags=["rude"], completion_url="https://example.org/done"
    )
    report = make(project, "rating", rules=rules)
    with project.database.read() as session:
        assert rules_of(session.get_one(QuestionSet, report.id)) == rules


# ---- guidelines, states, gold ----


def test_a_guideline_has_a_new_version_when_its_text_is_new(project: Project) -> None:
    add_set(project, [1])
    assert new_guideline(project, "A set", "How to answer A set.", NOON) == 1
    assert new_guideline(project, "A set", "Otherwise.", NOON) == 2
    assert new_guideline(project, "A set", "How to answer A set.", NOON) == 3
    with project.database.read() as session:
        newest = newest_guideline(session, "A set")
    assert newest is not None
    assert (newest.version, newest.text) == (3, "How to answer A set.")
    with pytest.raises(UserError, match="no set of questions Other"):
        new_guideline(project, "Other", "Hello.", NOON)


def test_a_state_is_one_of_three(project: Project) -> None:
    add_set(project, [1])
    set_state(project, "A set", "archived")
    with pytest.raises(ValueError, match="asleep"):
        set_state(project, "A set", "asleep")
    with project.database.read() as session:
        assert [one.state for one in sets_of(session)] == ["archived"]


def test_a_question_becomes_a_check_and_a_plain_one_again(project: Project) -> None:
    first, _ = add_set(project, [1, 1], gold="scheduled")
    add_people(project, "Ann")
    give(project, take(project, "ann"))
    assert not question(project, first).open
    add_gold(project, "A set", first, {"strength": -2, "comment": "plain to see"})
    assert (question(project, first).gold, question(project, first).overlap, question(project, first).open) == ({"better": 1}, EVERYBODY, True)
    add_gold(project, "A set", first, None)
    assert (question(project, first).gold, question(project, first).overlap, question(project, first).open) == (None, 2, True)  # as the rules say
    with pytest.raises(UserError, match="no answer to a pair"):
        add_gold(project, "A set", first, {"up": True})
    with pytest.raises(UserError, match="can't be the known answer"):
        add_gold(project, "A set", first, {"skip": "who knows"})
    with pytest.raises(UserError, match="no question elsewhere in this set"):
        add_gold(project, "A set", "elsewhere", {"strength": 1})


@pytest.mark.parametrize(
    ("kind", "known", "right", "wrong"),
    [
        ("pair", {"strength": 3}, [{"strength": 1}], [{"strength": -1}, {"strength": 0}, {"both_bad": True}, {"skip": "?"}]),
        ("pair", {"strength": -1}, [{"strength": -3}], [{"strength": 2}]),
        ("pair", {"strength": 0}, [{"strength": 0, "comment": "even"}], [{"strength": 1}, {"both_bad": True}]),
        ("pair", {"both_bad": True}, [{"both_bad": True}], [{"strength": 0}]),
        ("thumbs", {"up": False}, [{"up": False}], [{"up": True}, {"skip": "?"}]),
        ("rating", {"aspects": {"overall": 4}}, [{"aspects": {"overall": 3}}, {"aspects": {"overall": 5}}], [{"aspects": {"overall": 2}}]),
        ("ranking", {"ranks": [1, 2, 3]}, [{"ranks": [1, 2, 3]}, {"ranks": [1, 1, 2]}], [{"ranks": [2, 1, 3]}, {"ranks": [3, 2, 1]}]),
        ("ranking", {"ranks": [1, 2, 2]}, [{"ranks": [1, 3, 2]}], [{"ranks": [2, 1, 3]}]),
    ],
)
def test_which_answers_to_a_check_are_right(kind: str, known: dict[str, Any], right: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> None:
    gold = gold_of(kind, known)
    assert [is_right(kind, gold, answer) for answer in right] == [True] * len(right)
    assert [is_right(kind, gold, answer) for answer in wrong] == [False] * len(wrong)


def test_an_edit_has_no_known_answer() -> None:
    with pytest.raises(UserError, match="can't be the known answer"):
        gold_of("edit", {"text": "Better."})


# ---- how far ----


def test_how_far_the_sets_are(project: Project) -> None:
    first, _ = add_set(project, [2, 1])
    add_set(project, [3], name="Other", kind="thumbs", n_samples=1)
    add_people(project, "Ann", "Bob")
    give(project, take(project, "ann"))
    give(project, take(project, "bob"), {"skip": "no idea"})
    claim(project, "bob", at=NOON)
    with project.database.read() as session:
        one, other = sets_of(session)
    assert one == ("A set", "A set", "pair", "open", None, 2, 1, 3, 1, 2)
    assert other == ("Other", "Other", "thumbs", "open", None, 1, 0, 3, 0, 0)
    add_gold(project, "A set", first, {"strength": 1})
    with project.database.read() as session:
        assert sets_of(session)[0] == ("A set", "A set", "pair", "open", None, 1, 0, 1, 1, 2)


def test_imported_judgements_are_counted_in_bulk(project: Project) -> None:
    ids = add_set(project, [1] * 3)
    add_people(project, "Ann", "Bob")
    with project.database.write() as session:
        session.add(judgement(ids[0], "a"))
        session.flush()
        session.add(judgement(ids[0], "b", supersedes="a"))
        session.add(judgement(ids[0], "c", annotator_id="bob"))
        session.add(judgement(ids[1], "d", answer={"skip": "?"}))
        session.add(judgement(ids[2], "e", extra=True))
        count_answers(session, (question for question in ids))
    assert [(question(project, one).answers, question(project, one).open) for one in ids] == [(2, False), (0, True), (0, True)]


# ---- the questions of a round ----


def test_a_round_has_a_set_under_its_guideline(project: Project) -> None:
    add_samples(project)
    settings = FeedbackSettings(pairs=10, gold_each=3, gold_overlap=4, lease_minutes=12)
    told = ask_pairs(project, settings, batch=BATCH, round_id=1, seed=1, gold="scheduled")
    with project.database.read() as session:
        row = session.get_one(QuestionSet, told["set"])
        assert (row.name, row.kind, row.round_id, row.state) == ("Round 1", "pair", 1, "open")
        assert (rules_of(row).overlap, rules_of(row).lease_minutes, rules_of(row).gold) == (2, 12, "scheduled")
        assert {question.set_id for question in session.scalars(select(Question))} == {row.id}
    add_people(project, "Ann")
    assert take(project, "ann", round_id=1).set_id == told["set"]
    changed = settings.model_copy(update={"guideline": "Be brief."})
    assert ask_pairs(project, changed, batch=BATCH, round_id=1, seed=1, gold="scheduled")["set"] == told["set"]
    with project.database.read() as session:
        newest = newest_guideline(session, told["set"])
    assert newest is not None
    assert (newest.version, newest.text) == (2, "Be brief.")


def test_a_simulated_round_asks_in_order_and_repeats_nothing(project: Project) -> None:
    add_samples(project)
    told = ask_pairs(project, FeedbackSettings(pairs=10), batch=BATCH, round_id=1, seed=1)
    with project.database.read() as session:
        rules = rules_of(session.get_one(QuestionSet, told["set"]))
    assert (rules.gold, rules.repeat_rate) == ("interleaved", 0.0)


def test_questions_from_before_there_were_sets_join_one(project: Project) -> None:
    add_samples(project)
    ask_pairs(project, FeedbackSettings(pairs=10), batch=BATCH, round_id=1, seed=1)
    with project.database.write() as session:
        for row in session.scalars(select(Question)):
            row.set_id = None
    project.force = True
    told = ask_pairs(project, FeedbackSettings(pairs=10), batch=BATCH, round_id=1, seed=1)
    with project.database.read() as session:
        assert set(session.scalars(select(Question.set_id))) == {told["set"]}
