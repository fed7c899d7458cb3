"""Quality control: trust of every kind of judgement and against three spoilers; agreement; repeats; and what the store says."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from asked import BATCH, SUBJECTS, WISHES, add_people, add_samples, made_up
from stored import NOON, judgement
from truing.feedback.assignment import claim, submit
from truing.feedback.quality import Quality, QualitySettings, assess, measure_quality
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.said import Log, Said, Vote, Who, left_of, votes_of
from truing.feedback.simulated import CHECK_LOGPROB, CrowdSettings, Shown, Text, annotate_simulated, judge, make_crowd
from truing.feedback.taste import features
from truing.store.ids import seed_from
from truing.store.project import Project
from truing.store.tables import Question, QuestionSample, Sample

pytestmark = pytest.mark.slow  # crowds of simulated people, judged whole

SETTINGS = QualitySettings()
A, B, TIE = 1, -1, 0


def said(question: str, who: str, strength: int, *, left: str = "", **rest: Any) -> Said:
    """An answer to a pair, with A or B on the left, or nobody knows."""
    order = {"": (), "A": (0, 1), "B": (1, 0)}[left]
    return Said(question, who, "pair", (f"{question}-a", f"{question}-b"), {"strength": strength}, order, **rest)


def answers(who: str, choices: Sequence[int], *, first: int = 0) -> list[Said]:
    """Answers to pairs q000, q001, ..."""
    return [said(f"q{first + i:03d}", who, choice) for i, choice in enumerate(choices)]


def other(kind: str, question: str, who: str, answer: Mapping[str, Any], n: int = 1, **rest: Any) -> Said:
    """An answer to another kind of question."""
    return Said(question, who, kind, tuple(f"{question}-{place}" for place in range(n)), answer, **rest)


def log_of(rows: Sequence[Said], gold: Mapping[str, Mapping[str, Any]] | None = None) -> Log:
    people = [Who(who, who.title(), "human") for who in sorted({row.annotator for row in rows})]
    return Log(list(rows), {name: dict(right) for name, right in (gold or {}).items()}, people, 0, 0)


def measured(rows: Sequence[Said], gold: Mapping[str, Mapping[str, Any]] | None = None) -> Quality:
    return assess(log_of(rows, gold), SETTINGS)


def trust(found: Quality) -> dict[str, float]:
    return {one.id: one.trust for one in found.annotators}


# ---- trust ----


def test_checks_speak_for_and_against() -> None:
    """Ann passes ten checks, Bob fails them; nobody shares another question with them."""
    gold = {f"q{i:03d}": {"better": i % 2} for i in range(10)}
    right = [A if i % 2 == 0 else B for i in range(10)]
    found = {one.id: one for one in measured(answers("ann", right) + answers("bob", [-choice for choice in right]), gold).annotators}
    assert found["ann"].trust_low > 0.2
    assert found["bob"].trust == SETTINGS.least_trust
    assert [(one.gold_right, one.gold_n) for one in (found["ann"], found["bob"])] == [(10, 10), (0, 10)]


def test_ties_on_checks_are_no_pass() -> None:
    gold = {f"q{i:03d}": {"better": 0} for i in range(10)}
    found = {one.id: one for one in measured(answers("ann", [A] * 10) + answers("bob", [TIE] * 10), gold).annotators}
    assert found["bob"].gold_right == 0
    assert found["bob"].trust < 0.15 < found["ann"].trust


def test_checks_of_every_kind_count() -> None:
    """Thumbs, ratings and rankings whose right answer is known: Ann gives it, Bob its opposite."""
    rows: list[Any] = []
    gold: dict[str, Any] = {}
    for i in range(12):
        up = bool(i % 2)
        gold |= {f"t{i}": {"answer": {"up": up}}, f"r{i}": {"answer": {"aspects": {"overall": 5 if up else 1}}}, f"k{i}": {"answer": {"ranks": [1, 2, 3]}}}
        for who, agrees in (("ann", True), ("bob", False)):
            rows += [
                other("thumbs", f"t{i}", who, {"up": up is agrees}),
                other("rating", f"r{i}", who, {"aspects": {"overall": 5 if up is agrees else 1}}),
                other("ranking", f"k{i}", who, {"ranks": [1, 2, 3] if agrees else [3, 2, 1]}, 3),
            ]
    found = {one.id: one for one in measured(rows, gold).annotators}
    assert [(one.gold_right, one.gold_n) for one in (found["ann"], found["bob"])] == [(36, 36), (0, 36)]
    assert found["ann"].trust_low > 0.4
    assert found["bob"].trust == SETTINGS.least_trust


def test_every_kind_vouches() -> None:
    """One who ranks, rates and thumbs at random against three who agree."""
    draw, rows = random.Random(0), []
    for i in range(40):
        ranks, points, up = draw.sample([1, 2, 3], 3), draw.choice((1, 5)), draw.choice((True, False))
        for who in ("ann", "bob", "cy", "coin"):
            blind = who == "coin"
            rows += [
                other("ranking", f"k{i}", who, {"ranks": draw.sample([1, 2, 3], 3) if blind else ranks}, 3),
                other("rating", f"r{i}", who, {"aspects": {"overall": draw.choice((1, 5)) if blind else points}}),
                other("thumbs", f"t{i}", who, {"up": draw.choice((True, False)) if blind else up}),
            ]
    found = measured(rows)
    assert found.annotators[0].id == "coin"
    assert found.annotators[0].trust_high < found.annotators[1].trust_low
    assert list(found.alpha_by_kind) == ["ranking", "rating", "thumbs"]
    assert found.alpha == found.alpha_by_kind["ranking"]
    assert math.isnan(found.annotators[0].tie_rate)
    assert found.annotators[1].agreement > 0.9


def coins(skills: Sequence[float], n: int, overlap: int, seed: int) -> list[Said]:
    """Answers of annotators who are right with these probabilities, on questions whose truth is drawn."""
    draw = random.Random(seed)
    rows = []
    for question in range(n):
        truth = draw.choice((A, B))
        for who in draw.sample(range(len(skills)), overlap):
            rows.append(said(f"q{question:05d}", f"p{who}", truth if draw.random() < skills[who] else -truth))
    return rows


def test_it_orders_people_by_how_often_they_are_right() -> None:
    skills = (0.95, 0.85, 0.75, 0.65, 0.5)
    found = trust(measured(coins(skills, 1200, 3, seed=0)))
    ordered = [found[f"p{who}"] for who in range(len(skills))]
    assert ordered == sorted(ordered, reverse=True)
    assert ordered[-1] < 0.1
    assert ordered[0] > 0.7


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_judgements_doesnt_matter(shuffler: random.Random) -> None:
    rows = coins((0.9, 0.8, 0.6, 0.5), 30, 2, seed=1)
    assert measured(rows).as_dict() == measured(shuffler.sample(rows, len(rows))).as_dict()


def test_which_response_is_called_a_doesnt_matter() -> None:
    rows = coins((0.9, 0.8, 0.6, 0.5), 30, 2, seed=1)
    turned = [row._replace(answer={"strength": -row.answer["strength"]}) for row in rows]
    assert trust(measured(turned)) == pytest.approx(trust(measured(rows)), abs=1e-4)


# ---- the default crowd's spoilers ----


def simulate(seed: int) -> tuple[Log, set[str]]:
    """A default crowd on 240 made-up pairs and 10 checks: what it said, and who the spoilers are."""
    crowd, draw = make_crowd(CrowdSettings(), seed), random.Random(seed)
    rows, gold = [], {}
    for number in range(250):
        subject = SUBJECTS[number % len(SUBJECTS)]
        asked = f"{WISHES[number % len(WISHES)]} {subject}?"
        check = number >= 240
        texts = []
        for place in range(2):
            if check:  # a whole answer against half of another's
                words = f"The {subject} is a friend to me, so keep it warm and dry." if place == 0 else "Some people say that in the"
                text, finished, logprob = words, place == 0, -1.5 if place == 0 else CHECK_LOGPROB
            else:
                text, finished, logprob = made_up(seed_from(seed, number, place), asked, subject)
            texts.append(Text(features(asked, text, finished=finished, base_logprob=logprob), len(text.split())))
        shown = Shown(6, (texts[0], texts[1]))
        if check:
            gold[f"q{number}"] = {"better": 0}
        for person in crowd if check else draw.sample(crowd, 2 + (draw.random() < 0.15)):
            order = draw.sample([0, 1], 2)
            strength = judge(person.facts, shown, order, draw)["strength"]
            rows.append(said(f"q{number}", person.id, strength, left="AB"[order[0]]))
    people = [Who(one.id, one.name, "simulated") for one in crowd]
    return Log(rows, gold, people, 0, 0), {one.id for one in crowd if one.facts["vice"]}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_three_spoilers_are_the_three_least_trusted(seed: int) -> None:
    log, spoilers = simulate(seed)
    found = assess(log, SETTINGS).annotators
    assert {one.id for one in found[:3]} == spoilers
    assert max(one.trust_high for one in found[:3]) < min(one.trust_low for one in found[3:])


# ---- agreement, repeats, side, ties ----


def test_agreement_by_hand() -> None:
    """Krippendorff's own way: q0 AA, q1 BB, q2 AB. Observed disagreement 2/6, expected 2 * 3 * 3 / (6 * 5); alpha = 1 - (1/3) / (3/5) = 4/9."""
    found = measured(answers("ann", [A, B, A]) + answers("bob", [A, B, B]))
    assert found.alpha.value == pytest.approx(4 / 9)
    assert found.alpha.n == 3
    assert found.alpha_by_kind == {"pair": found.alpha}
    assert found.raw_agreement.value == pytest.approx(2 / 3)
    assert [one.agreement for one in found.annotators] == pytest.approx([2 / 3] * 2)
    assert [one.agreement_n for one in found.annotators] == [3, 3]


def agreement_by_definition(who: str, weights: Mapping[str, float], votes: Sequence[Vote]) -> tuple[float, int]:
    """How often they side with the trust-weighted majority of the others, which is added up anew for each of them."""
    others: dict[str, float] = {}
    for vote in votes:
        if vote.annotator != who:
            others[vote.unit] = others.get(vote.unit, 0.0) + vote.choice * weights[vote.annotator]
    mine = [(vote.choice, others[vote.unit]) for vote in votes if vote.annotator == who and abs(others.get(vote.unit, 0.0)) > 1e-9]
    agreed = sum(0.5 if choice == 0 else float(choice * majority > 0) for choice, majority in mine)
    return (agreed / len(mine) if mine else math.nan), len(mine)


@pytest.mark.parametrize("seed", range(4))
def test_a_crowd_s_numbers_are_those_of_each_one_alone(seed: int) -> None:
    """Pairs with ties, rankings and thumbs of a crowd of which many said little, with trusts that cancel out: equal to what each one's rows alone give."""
    draw, rows = random.Random(seed), []
    people = [f"p{number:02d}" for number in range(30)]
    for question in range(60):
        for who in draw.sample(people, draw.randint(1, 5)):
            kind = ("pair", "pair", "ranking", "thumbs")[question % 4]
            if kind == "pair":
                rows.append(said(f"q{question}", who, draw.choice((A, B, TIE, 2 * A, 3 * B)), left=draw.choice(("", "A", "B")), active_s=draw.random()))
            elif kind == "ranking":
                rows.append(other(kind, f"q{question}", who, {"ranks": draw.choice(([1, 2, 3], [1, 1, 2], [3, 1, 2]))}, 3))
            else:
                rows.append(other(kind, f"q{question}", who, {"up": draw.random() < 0.5}))
    found = measured(rows)
    weights, votes = trust(found), [vote for row in rows for vote in votes_of(row)]
    for one in found.annotators:
        mine = [row for row in rows if row.annotator == one.id]
        lefts = [left for row in mine if (left := left_of(row)) is not None]
        assert str((one.agreement, one.agreement_n)) == str(agreement_by_definition(one.id, weights, votes))
        assert one.n == len(mine)
        assert one.side_bias == pytest.approx(sum(lefts) / len(lefts) if lefts else math.nan, nan_ok=True)


def test_checks_and_repeats_stay_out_of_agreement() -> None:
    rows = answers("ann", [A, B, A, A]) + answers("bob", [A, B, A, B])
    rows += [said("again", who, choice, repeat_of="q000") for who, choice in (("ann", A), ("bob", B))]
    found = measured(rows, {"q003": {"better": 0}})
    assert found.alpha.value == pytest.approx(1.0)
    assert found.alpha.n == 3


def test_repeats_are_oneself_again() -> None:
    """The same side is the same, however strong; a tie is a tie; a rating may be a point off; a repeat of what wasn't answered says nothing."""
    rows = [
        *answers("ann", [2, 1, TIE, B]),
        said("q000 again", "ann", 1, repeat_of="q000"), said("q001 again", "ann", B, repeat_of="q001"),
        said("q002 again", "ann", TIE, repeat_of="q002"), said("q003 again", "ann", TIE, repeat_of="q003"),
        other("rating", "r", "ann", {"aspects": {"overall": 4}}), other("rating", "r again", "ann", {"aspects": {"overall": 5}}, repeat_of="r"),
        said("else", "ann", A, repeat_of="never answered"),
    ]  # fmt: skip
    ann, = measured(rows).annotators  # fmt: skip
    assert (ann.repeat_same, ann.repeat_n, ann.n) == (3, 5, 11)


def test_repeats_move_no_trust() -> None:
    rows = coins((0.9, 0.8, 0.6), 60, 2, seed=2)
    again = [row._replace(question=f"{row.question} again", repeat_of=row.question) for row in rows]
    assert trust(measured(rows + again)) == trust(measured(rows))


def test_the_majority_is_that_of_the_others_weighed_by_trust() -> None:
    """Two coins outvote nobody: against one who is known to be right they lose."""
    gold = {f"g{i}": {"better": 0} for i in range(30)}
    checks = [said(q, who, A if who == "sage" or i % 2 else B) for who in ("sage", "coin", "dice") for i, q in enumerate(gold)]
    rows = [said("q", "sage", A), said("q", "coin", B), said("q", "dice", B), said("q", "ann", A), *checks]
    found = {one.id: one for one in measured(rows, gold).annotators}
    assert (found["ann"].agreement, found["ann"].agreement_n) == (1.0, 1)


def test_side_bias_and_ties() -> None:
    rows = [said(f"q{i}", "ann", A, left="A" if i < 3 else "B", active_s=10.0 + i, reading_s=20.0) for i in range(4)]
    ann, = measured([*rows, said("q9", "ann", TIE, left="A"), said("q8", "ann", B)]).annotators  # fmt: skip
    assert (ann.n, ann.side_bias, ann.tie_rate, ann.median_active_s, ann.median_reading_s) == (6, 0.75, 1 / 6, 11.5, 20.0)
    assert ann.side_bias_low < 0.5 < ann.side_bias_high  # four answers prove nothing
    assert math.isnan(ann.agreement)


def test_what_was_measured_survives_json() -> None:
    found = assess(log_of(answers("ann", [A, B, TIE]))._replace(n_skipped=2), SETTINGS)
    plain = found.as_dict()
    assert plain["alpha"] == {"value": None, "low": None, "high": None, "n": 0}
    assert plain["annotators"][0]["agreement"] is None
    assert plain["n_skipped"] == 2
    assert Quality.from_dict(plain).as_dict() == plain


def test_no_judgements_at_all() -> None:
    found = measured([])
    assert found.annotators == ()
    assert found.alpha.n == 0
    assert found.notes == ("There are no judgements yet.",)


def test_a_second_opinion_on_demand() -> None:
    log = log_of(coins((0.9, 0.9, 0.5), 40, 2, seed=0))
    found = assess(log, SETTINGS, second_opinion=True)
    assert found.second_opinion is not None
    assert found.second_opinion["alpha"] == pytest.approx(found.alpha.value)
    assert Quality.from_dict(found.as_dict()).second_opinion == found.second_opinion
    assert assess(log, SETTINGS).second_opinion is None


# ---- from the store ----


def test_the_store_is_read_as_it_stands(project: Project) -> None:
    """Skips and both-bads are counted apart, of a changed answer the last is taken, the left is where the preferred one stood."""
    add_samples(project, prompts=8, per_prompt=2)
    ask_pairs(project, FeedbackSettings(pairs=6, gold_rate=0), batch=BATCH, round_id=1, seed=1)
    add_people(project, "Ann", "Bob")
    lefts = 0
    answers: list[dict[str, Any]] = [{"strength": 3}, {"strength": 1}, {"skip": "?"}, {"both_bad": True}, {"strength": 0}, {"strength": -1}]
    for number, answer in enumerate(answers):
        lent = claim(project, "ann", at=NOON)
        assert lent is not None
        submit(
            project,
            lent.id,
            {"strength": -3},
            annotator_id="ann",
            guideline_version=1,
            started_at=NOON,
            at=NOON,
            active_ms=1,
            idempotency_key=f"first {number}",
        )
        submit(project, lent.id, answer, annotator_id="ann", guideline_version=1, started_at=NOON, at=NOON, active_ms=9000, idempotency_key=f"{number}")
        strength = answer.get("strength", 0)
        lefts += strength != 0 and lent.order_shown[0] == (0 if strength > 0 else 1)
    found = measure_quality(project, SETTINGS, round_ids=[1])
    assert (found.n_judgements, found.n_skipped, found.n_both_bad) == (4, 1, 1)
    ann, = found.annotators  # fmt: skip
    assert (ann.name, ann.n, ann.tie_rate, ann.side_bias, ann.median_active_s) == ("Ann", 4, 0.25, lefts / 3, 9.0)
    assert ann.trust_low < 0.3 < ann.trust < 0.6 < ann.trust_high  # nobody else answered: the prior's doubt
    assert found.notes[0].startswith("No question was answered by two people")
    assert measure_quality(project, SETTINGS, round_ids=[9]).n_judgements == 0


def test_a_simulated_round(project: Project) -> None:
    add_samples(project, prompts=24, per_prompt=2)
    crowd = CrowdSettings(annotators=6, spoilers=0, taste_spread=0.1, noise=0.2)
    feedback = FeedbackSettings(pairs=20, gold_each=4, gold_overlap=6)
    ask_pairs(project, feedback, batch=BATCH, round_id=1, seed=1)
    annotate_simulated(project, crowd, round_id=1, seed=1, feedback=feedback)
    found = measure_quality(project, SETTINGS, round_ids=[1])
    assert found == measure_quality(project, SETTINGS, round_ids=[1])  # the second from the finished run
    assert sum(one.gold_n for one in found.annotators) == 24
    assert found.alpha.value > 0.3
    assert all(one.trust > 0.4 and one.median_active_s > 0 for one in found.annotators)


def test_the_store_gives_every_kind_and_the_orders_it_knows(project: Project) -> None:
    """A ranking, a repeat of it, and a pair from an import, whose order nobody knows."""
    add_samples(project, prompts=2, per_prompt=3)
    add_people(project, "Ann")
    with project.database.write() as session:
        samples = list(session.scalars(select(Sample).order_by(Sample.prompt_id, Sample.position)))[:3]
        given: dict[str, Any] = {"prompt_id": samples[0].prompt_id, "gold": None, "overlap": 1, "position": 0, "created_at": NOON, "round_id": 1}
        for name, kind, repeat_of, facts in (("k", "ranking", None, {}), ("k2", "ranking", "k", {}), ("p", "pair", None, {"order_shown": "unknown"})):
            session.add(Question(id=name, kind=kind, repeat_of=repeat_of, facts=facts, **given))
            session.flush()
            session.add_all(QuestionSample(question_id=name, position=i, sample_id=sample.id) for i, sample in enumerate(samples[: 2 if kind == "pair" else 3]))
            answer = {"strength": 2} if kind == "pair" else {"ranks": [1, 3, 2]}
            session.add(judgement(name, name, answer=answer, order_shown=[0, 1] if kind == "pair" else [2, 0, 1]))
    found = measure_quality(project, SETTINGS, round_ids=[1])
    ann, = found.annotators  # fmt: skip
    assert (ann.n, ann.repeat_same, ann.repeat_n, found.n_questions) == (3, 1, 1, 3)
    assert math.isnan(ann.side_bias)
