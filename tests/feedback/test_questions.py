"""Questions: what an answer may be, which pairs are asked about, and check questions known by construction."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from asked import BATCH, add_people, add_samples
from stored import judgement
from truing.errors import UserError
from truing.feedback.answers import answer_from_screen, check_answer
from truing.feedback.assignment import still_wanted
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.store.ids import content_id
from truing.store.judgements import count_answers
from truing.store.project import Project
from truing.store.tables import Prompt, Question, QuestionSample, Round, Sample

SMALL = FeedbackSettings(pairs=10, gold_each=3, gold_overlap=4)

GOOD: list[tuple[str, dict[str, Any], int]] = [
    ("pair", {"strength": -3}, 2),
    ("pair", {"strength": 0, "flags": ["unsafe", "off-topic"], "comment": "both fine"}, 2),
    ("pair", {"both_bad": True}, 2),
    ("ranking", {"ranks": [1, 2, 2]}, 3),
    ("rating", {"aspects": {"overall": 4, "warmth": 7}}, 1),
    ("thumbs", {"up": False}, 1),
    ("edit", {"text": "Better so."}, 1),
    ("edit", {"unchanged": True}, 1),
    ("edit", {"skip": "I don't know the language"}, 1),
]
BAD: list[tuple[str, Any, int]] = [
    ("pair", {"strength": 4}, 2),
    ("pair", {"strength": 1.0}, 2),
    ("pair", {"strength": True}, 2),
    ("pair", {"both_bad": False}, 2),
    ("pair", {"strength": 1, "both_bad": True}, 2),
    ("pair", {"strength": 1, "skip": "why not"}, 2),
    ("pair", {"left": 1}, 2),
    ("pair", {"strength": 1, "side": "left"}, 2),
    ("pair", {}, 2),
    ("pair", "A", 2),
    ("pair", {"skip": "  "}, 2),
    ("pair", {"strength": 1, "flags": ["unsafe", "unsafe"]}, 2),
    ("pair", {"strength": 1, "flags": "unsafe"}, 2),
    ("pair", {"strength": 1, "comment": "a NUL \0"}, 2),
    ("pair", {"strength": 1, "comment": "half a pair \ud800"}, 2),
    ("ranking", {"ranks": [1, 2]}, 3),
    ("ranking", {"ranks": [2, 3, 3]}, 3),
    ("ranking", {"ranks": [0, 1, 2]}, 3),
    ("rating", {"aspects": {}}, 1),
    ("rating", {"aspects": {"overall": 8}}, 1),
    ("thumbs", {"up": 1}, 1),
    ("edit", {"text": " \n"}, 1),
    ("edit", {"unchanged": False}, 1),
    ("edit", {"text": "Better so.", "unchanged": True}, 1),
]


@pytest.mark.parametrize(("kind", "answer", "n"), GOOD)
def test_an_answer_is_kept_as_it_is(kind: str, answer: dict[str, Any], n: int) -> None:
    assert check_answer(kind, answer, n) == answer


@pytest.mark.parametrize(("kind", "answer", "n"), BAD)
def test_what_is_no_answer_is_refused_in_words(kind: str, answer: Any, n: int) -> None:
    with pytest.raises(UserError) as caught:
        check_answer(kind, answer, n)
    assert "this is no answer" in caught.value.what
    assert "answer with one of" in caught.value.fix


@given(st.integers(-3, 3))
def test_the_side_of_the_screen_doesnt_matter(leaning: int) -> None:
    """Leaning to the left with A on the left says the same as leaning to the right with A on the right."""
    assert answer_from_screen(leaning, [0, 1]) == answer_from_screen(-leaning, [1, 0]) == {"strength": leaning}


class Asked:
    """The questions of a project, read back."""

    def __init__(self, project: Project) -> None:
        with project.database.read() as session:
            self.questions = list(session.scalars(select(Question).order_by(Question.position)))
            places = session.execute(select(QuestionSample.question_id, Sample).join(Sample).order_by(QuestionSample.position)).all()
            self.splits = {row.id: row.split for row in session.scalars(select(Prompt))}
        self.samples = {q.id: [sample for question, sample in places if question == q.id] for q in self.questions}
        self.gold = [q for q in self.questions if q.gold is not None]
        self.plain = [q for q in self.questions if q.gold is None]


def test_pairs_are_of_one_prompt_and_of_different_texts(project: Project) -> None:
    add_samples(project)
    told = ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    asked = Asked(project)
    assert told.pop("set") == asked.questions[0].set_id
    assert told == {"n": 13, "train": 7, "held_out": 3, "gold": 3, "judgements": 10 * 2 + 2 + 3 * 4}  # 15 % of 10 questions are 2
    assert [q.position for q in asked.questions] == list(range(13))
    for question in asked.questions:
        a, b = asked.samples[question.id]
        assert a.prompt_id == b.prompt_id == question.prompt_id
        assert a.text != b.text
        assert question.id == content_id("question", "pair", [a.id, b.id])
    assert sorted(q.overlap for q in asked.plain) == [2] * 8 + [3] * 2
    assert sum(asked.splits[q.prompt_id] == "held-out" for q in asked.plain) == 3


def test_a_check_question_is_a_whole_answer_against_half_of_anothers(project: Project) -> None:
    add_samples(project)
    ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    asked = Asked(project)
    with project.database.read() as session:
        drawn = {sample.text: sample for sample in session.scalars(select(Sample).where(Sample.batch == BATCH))}
    assert len(asked.gold) == 3
    for question in asked.gold:
        assert question.gold is not None
        good, bad = asked.samples[question.id][question.gold["better"]], asked.samples[question.id][1 - question.gold["better"]]
        assert (good.batch, good.finished, bad.author) == (BATCH, True, CHECK_AUTHOR)
        assert (bad.policy_id, bad.token_ids, bad.finished, bad.base_logprob) == (None, None, False, None)
        assert bad.batch != BATCH
        source = next(sample for text, sample in drawn.items() if " ".join(text.split()).startswith(bad.text))
        assert source.prompt_id != question.prompt_id
        assert len(bad.text.split()) == len(source.text.split()) // 2
        assert question.overlap == 4


def test_the_right_answer_of_a_check_stands_on_either_place(project: Project) -> None:
    add_samples(project, prompts=40)
    ask_pairs(project, FeedbackSettings(pairs=40, gold_each=30), batch=BATCH, round_id=1, seed=1)
    better = [q.gold["better"] for q in Asked(project).gold if q.gold]
    assert len(better) == 30
    assert 8 <= sum(better) <= 22  # 1 in 10,000 falls outside


def test_asking_twice_adds_nothing(project: Project) -> None:
    add_samples(project)
    first = ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    before = [(q.id, q.position, q.overlap) for q in Asked(project).questions]
    project.force = True  # the finished run doesn't answer: the work is done again
    assert ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1) == first
    assert [(q.id, q.position, q.overlap) for q in Asked(project).questions] == before


def test_a_smaller_crowd_is_waited_for_no_longer_than_there_are_people(project: Project) -> None:
    """One person can't answer for two: with feedback.overlap lowered, questions that are there already want one answer, and close with it."""
    add_samples(project)
    ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    add_people(project, "Ann")
    with project.database.write() as session:
        plain = list(session.scalars(select(Question.id).where(Question.gold.is_(None)).order_by(Question.position)))
        session.add_all(judgement(question, f"ann-{question}") for question in plain[:4])
        count_answers(session, plain)
        assert still_wanted(session, 1) == 22 - 4
    alone = SMALL.model_copy(update={"overlap": 1, "overlap_share": 0.0})
    ask_pairs(project, alone, batch=BATCH, round_id=1, seed=1)
    with project.database.read() as session:
        assert still_wanted(session, 1) == 6
        assert set(session.scalars(select(Question.id).where(Question.gold.is_(None), ~Question.open))) == set(plain[:4])
        assert set(session.scalars(select(Question.overlap).where(Question.gold.is_not(None)))) == {4}
    ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    assert sorted(q.overlap for q in Asked(project).plain) == [2] * 8 + [3] * 2, "and back, though that was asked before"


def test_another_round_asks_about_other_pairs(project: Project) -> None:
    add_samples(project, prompts=8)
    ask_pairs(project, FeedbackSettings(pairs=8, gold_rate=0), batch=BATCH, round_id=1, seed=1)
    with project.database.write() as session:
        first = session.get_one(Round, 1)
        session.add(Round(id=2, number=2, parent_id=1, seed=1, made={}, created_at=first.created_at, sealed_at=None))
    told = ask_pairs(project, FeedbackSettings(pairs=100, gold_rate=0), batch=BATCH, round_id=2, seed=1)
    asked = Asked(project)
    pairs = [frozenset(sample.id for sample in asked.samples[q.id]) for q in asked.questions]
    assert len(set(pairs)) == len(pairs) == 8 + told["n"]
    assert [q.round_id for q in asked.questions] == [1] * 8 + [2] * told["n"]  # in order of position: the new ones come after


def test_every_prompt_is_asked_about_before_any_twice(project: Project) -> None:
    add_samples(project, prompts=12)
    ask_pairs(project, FeedbackSettings(pairs=12, gold_rate=0, held_out_share=0.25), batch=BATCH, round_id=1, seed=3)
    assert len({q.prompt_id for q in Asked(project).questions}) == 12


def test_an_order_says_who_comes_first_and_leaves_a_share_to_chance(project: Project) -> None:
    ids = add_samples(project, prompts=20)
    train = [prompt for i, prompt in enumerate(ids) if i % 4]
    settings = FeedbackSettings(pairs=10, gold_rate=0, held_out_share=0, random_share=0.3)
    ask_pairs(project, settings, batch=BATCH, round_id=1, seed=1, prompt_order=train)
    asked = Asked(project)
    weak = [q.prompt_id for q in asked.questions if q.facts["why"] == "weak"]
    assert weak == train[:7]
    assert [q.facts["why"] for q in asked.questions].count("random") == 3


def test_a_limit_is_kept(project: Project) -> None:
    add_samples(project)
    assert ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1, limit=4)["n"] == 4 + 3


def test_other_seeds_ask_otherwise(project: Project) -> None:
    add_samples(project)
    ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=1)
    first = {q.id for q in Asked(project).questions}
    ask_pairs(project, SMALL, batch=BATCH, round_id=1, seed=2)
    assert {q.id for q in Asked(project).questions} - first


def test_an_empty_batch_says_what_to_do(project: Project) -> None:
    with pytest.raises(UserError, match="truing sample"):
        ask_pairs(project, SMALL, batch="nowhere", round_id=None, seed=1)


def test_identical_texts_are_never_paired(project: Project) -> None:
    add_samples(project, prompts=2, per_prompt=3)
    with project.database.write() as session:
        for sample in session.scalars(select(Sample).where(Sample.position > 0)):
            sample.text = "the same words, twice over"
    ask_pairs(project, FeedbackSettings(pairs=9, gold_rate=0), batch=BATCH, round_id=1, seed=1)
    asked = Asked(project)
    assert len(asked.questions) == 2 * 2  # of the three pairs of a prompt, one is of twins
    assert all(a.text != b.text for samples in asked.samples.values() for a, b in combinations(samples, 2))
