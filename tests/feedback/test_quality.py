"""Quality control: trust by hand, in the limit, and against three spoilers; agreement; and what the store says."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import BATCH, SUBJECTS, WISHES, add_people, add_samples, made_up
from stored import NOON
from truing.feedback.assignment import claim, submit
from truing.feedback.quality import Quality, QualitySettings, Who, assess, measure_quality
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.simulated import CHECK_LOGPROB, CrowdSettings, Shown, Text, annotate_simulated, judge, make_crowd
from truing.feedback.taste import features
from truing.feedback.trust import Vote, infer_accuracy
from truing.store.ids import seed_from
from truing.store.project import Project

SETTINGS = QualitySettings()
A, B, TIE = 1, -1, 0


def accuracy(votes: Sequence[Vote], gold: dict[str, int] | None = None, *, mean: float = 0.8, strength: float = 8.0) -> dict[str, float]:
    """Posterior means of p."""
    people = sorted({vote.annotator for vote in votes})
    return {who: found.mean for who, found in infer_accuracy(votes, gold or {}, people, prior_accuracy=mean, prior_strength=strength).items()}


def votes_of(who: str, choices: Sequence[int], *, first: int = 0) -> list[Vote]:
    return [Vote(f"q{first + i:03d}", who, choice) for i, choice in enumerate(choices)]


def people_of(votes: Sequence[Vote]) -> list[Who]:
    return [Who(who, who.title(), "human") for who in sorted({vote.annotator for vote in votes})]


# ---- trust ----


def test_check_questions_make_a_beta_posterior() -> None:
    """Prior Beta(6.4, 1.6), 9 of 10 right: the mean of Beta(15.4, 2.6) is 15.4 / 18."""
    gold = {f"q{i:03d}": A for i in range(10)}
    assert accuracy(votes_of("ann", [A] * 9 + [B]), gold)["ann"] == pytest.approx(15.4 / 18, abs=1e-3)


def test_a_tie_on_a_check_is_wrong() -> None:
    gold = {f"q{i:03d}": A for i in range(10)}
    assert accuracy(votes_of("ann", [TIE] * 10), gold)["ann"] == pytest.approx(6.4 / 18, abs=1e-3)


def test_nothing_to_go_by_leaves_the_prior() -> None:
    """Imported judgements, one to a question: whatever was said, everyone has the prior's trust, ties or not."""
    found = accuracy(votes_of("ann", [A, B, TIE, A]) + votes_of("bob", [TIE] * 4, first=10))
    assert found["ann"] == pytest.approx(0.8, abs=1e-3)
    assert found["bob"] == pytest.approx(found["ann"])


def test_one_answer_moves_little_and_many_move_much() -> None:
    sure = [vote for name in ("x", "y", "z") for vote in votes_of(name, [A] * 40)]
    few, many = accuracy([*sure, *votes_of("ann", [B])])["ann"], accuracy([*sure, *votes_of("ann", [B] * 40)])["ann"]
    assert many < 0.4 < 0.65 < few < 0.8


def test_nobody_vouches_for_themselves() -> None:
    """Two who always contradict each other, and no one else: neither can be told from the other."""
    found = accuracy(votes_of("ann", [A] * 20) + votes_of("bob", [B] * 20))
    assert found["ann"] == pytest.approx(found["bob"], abs=1e-6)


def test_check_questions_break_the_draw() -> None:
    gold = {f"g{i}": A for i in range(6)}
    checks = [Vote(question, "ann", A) for question in gold] + [Vote(question, "bob", B) for question in gold]
    found = accuracy([*votes_of("ann", [A] * 20), *votes_of("bob", [B] * 20), *checks], gold)
    assert found["ann"] > 0.8
    assert found["bob"] < 0.4


def test_a_tie_counts_as_much_as_the_others_are_sure() -> None:
    """Always tying where all others agree is being a coin; where they are split, it tells nothing."""
    agreed = [vote for name in "wxyz" for vote in votes_of(name, [A] * 60)]
    split = [vote for name, choice in zip("wxyz", (A, A, B, B), strict=True) for vote in votes_of(name, [choice] * 60)]
    assert accuracy([*agreed, *votes_of("ann", [TIE] * 60)])["ann"] < 0.55
    assert accuracy([*split, *votes_of("ann", [TIE] * 60)])["ann"] == pytest.approx(0.8, abs=0.01)


def coins(skills: Sequence[float], n: int, overlap: int, seed: int) -> list[Vote]:
    """Votes of annotators who are right with these probabilities, on questions whose truth is drawn."""
    draw = random.Random(seed)
    votes = []
    for question in range(n):
        truth = draw.choice((A, B))
        for who in draw.sample(range(len(skills)), overlap):
            votes.append(Vote(f"q{question:05d}", f"p{who}", truth if draw.random() < skills[who] else -truth))
    return votes


def test_it_finds_the_skills_that_made_the_votes() -> None:
    skills = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    found = accuracy(coins(skills, 3000, 3, seed=0), strength=2.0)
    for who, skill in enumerate(skills):
        assert abs(found[f"p{who}"] - skill) < 4 * (0.25 / 1500) ** 0.5  # four standard errors of 1,500 answers


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_votes_doesnt_matter(shuffler: random.Random) -> None:
    votes = coins((0.9, 0.8, 0.6, 0.5), 30, 2, seed=1)
    shuffled = shuffler.sample(votes, len(votes))
    people = people_of(votes)
    assert assess(votes, {}, people, SETTINGS).as_dict() == assess(shuffled, {}, people, SETTINGS).as_dict()


def test_which_response_is_called_a_doesnt_matter() -> None:
    votes = coins((0.9, 0.8, 0.6, 0.5), 30, 2, seed=1)
    assert accuracy([vote._replace(choice=-vote.choice) for vote in votes]) == pytest.approx(accuracy(votes))


def test_trust_is_twice_p_less_one_and_never_nothing() -> None:
    gold = {f"q{i:03d}": A for i in range(40)}
    votes = votes_of("ann", [A] * 40) + votes_of("bob", [B] * 40)
    found = {one.id: one for one in assess(votes, gold, people_of(votes), SETTINGS).annotators}
    assert found["ann"].trust == pytest.approx(2 * 46.4 / 48 - 1, abs=2e-3)
    assert found["bob"].trust == SETTINGS.least_trust
    assert 0 < found["ann"].trust_low < found["ann"].trust < found["ann"].trust_high <= 1


# ---- the default crowd's spoilers ----


def simulate(seed: int) -> tuple[list[Vote], dict[str, int], list[str], set[str]]:
    """A default crowd on 240 made-up pairs and 10 checks: votes, right answers, ids, and who the spoilers are."""
    crowd, draw = make_crowd(CrowdSettings(), seed), random.Random(seed)
    votes, gold = [], {}
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
            gold[f"q{number}"] = A
        who_answers = crowd if check else draw.sample(crowd, 2 + (draw.random() < 0.15))
        for person in who_answers:
            order = draw.sample([0, 1], 2)
            strength = judge(person.facts, shown, order, draw)["strength"]
            votes.append(Vote(f"q{number}", person.id, (strength > 0) - (strength < 0)))
    return votes, gold, [one.id for one in crowd], {one.id for one in crowd if one.facts["vice"]}


def test_the_three_spoilers_are_the_three_least_trusted() -> None:
    """For 20 of 20 seeds."""
    for seed in range(20):
        votes, gold, everyone, spoilers = simulate(seed)
        found = assess(votes, gold, [Who(who, who, "simulated") for who in everyone], SETTINGS)
        assert {one.id for one in found.annotators[:3]} == spoilers, f"seed {seed}"
        worst_honest, best_spoiler = found.annotators[3].trust, found.annotators[2].trust
        assert worst_honest > best_spoiler + 0.05, f"seed {seed}"


# ---- agreement, side, ties ----


def test_agreement_by_hand() -> None:
    """Krippendorff's own way: q0 AA, q1 BB, q2 AB. Observed disagreement 2/6, expected 2 * 3 * 3 / (6 * 5); alpha = 1 - (1/3) / (3/5) = 4/9."""
    votes = votes_of("ann", [A, B, A]) + votes_of("bob", [A, B, B])
    found = assess(votes, {}, people_of(votes), SETTINGS)
    assert found.alpha.value == pytest.approx(4 / 9)
    assert found.alpha.n == 3
    assert found.raw_agreement.value == pytest.approx(2 / 3)
    assert [one.agreement for one in found.annotators] == pytest.approx([2 / 3] * 2)
    assert [one.agreement_n for one in found.annotators] == [3, 3]


def test_checks_stay_out_of_agreement() -> None:
    votes = votes_of("ann", [A, B, A, A]) + votes_of("bob", [A, B, A, B])
    assert assess(votes, {"q003": A}, people_of(votes), SETTINGS).alpha.value == pytest.approx(1.0)


def test_the_majority_is_that_of_the_others_weighed_by_trust() -> None:
    """Two coins outvote nobody: against one who is known to be right they lose."""
    gold = {f"g{i}": A for i in range(30)}
    checks = [Vote(q, who, A if who == "sage" or i % 2 else B) for who in ("sage", "coin", "dice") for i, q in enumerate(gold)]
    votes = [Vote("q", "sage", A), Vote("q", "coin", B), Vote("q", "dice", B), Vote("q", "ann", A), *checks]
    found = {one.id: one for one in assess(votes, gold, people_of(votes), SETTINGS).annotators}
    assert (found["ann"].agreement, found["ann"].agreement_n) == (1.0, 1)


def test_side_bias_and_ties() -> None:
    votes = [Vote(f"q{i}", "ann", A, left=i < 3, active_s=10.0 + i, reading_s=20.0) for i in range(4)] + [Vote("q9", "ann", TIE)]
    ann, = assess(votes, {}, people_of(votes), SETTINGS).annotators  # fmt: skip
    assert (ann.n, ann.side_bias, ann.tie_rate, ann.median_active_s, ann.median_reading_s) == (5, 0.75, 0.2, 11.5, 20.0)
    assert ann.side_bias_low < 0.5 < ann.side_bias_high  # four answers prove nothing
    assert math.isnan(ann.agreement)


def test_what_was_measured_survives_json() -> None:
    votes = votes_of("ann", [A, B, TIE])
    found = assess(votes, {}, people_of(votes), SETTINGS, n_skipped=2)
    plain = found.as_dict()
    assert plain["alpha"] == {"value": None, "low": None, "high": None, "n": 0}
    assert plain["annotators"][0]["agreement"] is None
    assert Quality.from_dict(plain).as_dict() == plain


def test_no_judgements_at_all() -> None:
    found = assess([], {}, [], SETTINGS)
    assert found.annotators == ()
    assert found.notes == ("There are no judgements of pairs yet.",)


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
        submit(project, lent.id, {"strength": -3}, started_at=NOON, at=NOON, active_ms=1, idempotency_key=f"first {number}")
        submit(project, lent.id, answer, started_at=NOON, at=NOON, active_ms=9000, idempotency_key=f"{number}")
        strength = answer.get("strength", 0)
        lefts += strength != 0 and lent.order_shown[0] == (0 if strength > 0 else 1)
    found = measure_quality(project, SETTINGS, round_ids=[1])
    assert (found.n_judgements, found.n_skipped, found.n_both_bad) == (4, 1, 1)
    ann, = found.annotators  # fmt: skip
    assert (ann.name, ann.n, ann.tie_rate, ann.side_bias, ann.median_active_s) == ("Ann", 4, 0.25, lefts / 3, 9.0)
    assert ann.trust == pytest.approx(0.6, abs=2e-3)
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
