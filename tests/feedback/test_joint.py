"""The joint model: likelihoods by hand, Bradley-Terry as its limit, gradients, and the skills, sides and ties that made the answers."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.feedback.descent import descend
from truing.feedback.evidence import ORACLE, PAIR, RANKING, Choice, Evidence, Known, Level, choices_of_ranking, gather
from truing.feedback.joint import Fit, fit, likeliest_rewards
from truing.feedback.joint_model import DEFAULT, RATIOS, Model, Priors, skill_of_accuracy, typical_pull
from truing.feedback.likelihoods import cumulative_logit, davidson, davidson_log_p, pairs_of_ranking
from truing.feedback.rewards_posterior import NO_ONE, Rewards, gauss_hermite
from truing.feedback.said import Said, evidence_of

LN2, LN3 = math.log(2), math.log(3)


# ---- likelihoods ----


def choice_of(lead: float, tie: float) -> list[float]:
    """P(first), P(tie), P(second)."""
    return [float(np.exp(davidson_log_p(np.array(lead), np.array(tie), np.array(choice)))) for choice in (1, 0, -1)]


def test_a_choice_by_hand() -> None:
    """A lead of 2 ln 2 weighs 2 : 1 : 1/2 at tie width 0, of 3.5 in all; and without ties 4 : 1."""
    assert choice_of(2 * LN2, 0.0) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert choice_of(2 * LN2, -math.inf) == pytest.approx([4 / 5, 0.0, 1 / 5])


def test_a_level_by_hand() -> None:
    """Cut-points -ln 3 and ln 3, no lead: 1/4, 1/2, 1/4. With a lead of ln 3 the lowest is s(-2 ln 3) = 1/10, the highest s(0) = 1/2."""
    cuts = [-math.inf, -LN3, LN3, math.inf]

    def levels(lead: float) -> list[float]:
        return [float(np.exp(cumulative_logit(np.array(lead), np.array(low), np.array(high)).log_p)) for low, high in itertools.pairwise(cuts)]

    assert levels(0.0) == pytest.approx([1 / 4, 1 / 2, 1 / 4])
    assert levels(LN3) == pytest.approx([1 / 10, 4 / 10, 1 / 2])


leads = st.floats(-30, 30)


@given(leads, st.floats(-8, 8))
def test_choices_add_up_and_mirror(lead: float, tie: float) -> None:
    first, even, second = choice_of(lead, tie)
    assert first + even + second == pytest.approx(1.0)
    assert choice_of(-lead, tie) == pytest.approx([second, even, first])
    assert math.log(first) - math.log(second) == pytest.approx(lead)


def slope(f: Any, at: float, step: float = 1e-5) -> float:
    return float((f(np.array(at + step)) - f(np.array(at - step))) / (2 * step))


@given(st.floats(-8, 8), st.floats(-4, 4), st.sampled_from([1, 0, -1]))
def test_the_slopes_of_a_choice(lead: float, tie: float, choice: int) -> None:
    which, width, at = np.array(choice), np.array(tie), np.array(lead)
    terms = davidson(at, width, which)
    assert terms.by_lead == pytest.approx(slope(lambda x: davidson(x, width, which).log_p, lead), abs=1e-6)
    assert terms.by_lead_twice == pytest.approx(slope(lambda x: davidson(x, width, which).by_lead, lead), abs=1e-6)
    assert terms.by_tie == pytest.approx(slope(lambda x: davidson(at, x, which).log_p, tie), abs=1e-6)


@given(st.floats(-8, 8), st.floats(-4, 4), st.floats(0.05, 5), st.sampled_from(["lowest", "middle", "highest"]))
def test_the_slopes_of_a_level(lead: float, low: float, gap: float, which: str) -> None:
    bottom = np.array(-math.inf if which == "lowest" else low)
    top, at = np.array(math.inf if which == "highest" else low + gap), np.array(lead)
    terms = cumulative_logit(at, bottom, top)
    assert terms.by_lead == pytest.approx(slope(lambda x: cumulative_logit(x, bottom, top).log_p, lead), abs=1e-6)
    assert terms.by_lead_twice == pytest.approx(slope(lambda x: cumulative_logit(x, bottom, top).by_lead, lead), abs=1e-6)
    if which != "lowest":
        assert terms.by_low == pytest.approx(slope(lambda x: cumulative_logit(at, x, top).log_p, low), rel=1e-4, abs=1e-5)
    if which != "highest":
        assert terms.by_high == pytest.approx(slope(lambda x: cumulative_logit(at, bottom, x).log_p, low + gap), rel=1e-4, abs=1e-5)


# ---- rankings ----


def test_a_ranking_by_hand() -> None:
    """b > a = c: b is chosen from two others, half each; then one of the two tied from the other."""
    assert sorted(pairs_of_ranking([2, 1, 2])) == [(0, 2, 0, 1.0), (1, 0, 1, 0.5), (1, 2, 1, 0.5)]
    assert sorted(pairs_of_ranking([1, 2, 3])) == [(0, 1, 1, 0.5), (0, 2, 1, 0.5), (1, 2, 1, 1.0)]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=9))
def test_a_ranking_weighs_its_choices(ranks: list[int]) -> None:
    found = list(pairs_of_ranking(ranks))
    assert sum(weight for *_, weight in found) == pytest.approx(len(ranks) - 1)
    assert len(found) == len(ranks) * (len(ranks) - 1) // 2
    assert all((ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) == choice for i, j, choice, _ in found)


# ---- Bradley and Terry ----


def bradley_terry(wins: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Hunter's MM algorithm (2004, doi:10.1214/aos/1079120141): log strengths with mean 0 from (S, S) wins of the row over the column."""
    games, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(20_000):
        strength = wins.sum(1) / (games / (strength[:, None] + strength)).sum(1)
        strength /= np.exp(np.log(strength).mean())
    return np.log(strength)


def duels(seed: int, n: int = 6, games: int = 400) -> list[tuple[int, int]]:
    """(winner, loser) of duels among n with strengths a third apart."""
    draw = random.Random(seed)
    found = []
    for _ in range(games):
        i, j = draw.sample(range(n), 2)
        found.append((i, j) if draw.random() < 1 / (1 + math.exp((j - i) / -3)) else (j, i))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_equal_skills_and_pairs_alone_are_bradley_terry(seed: int) -> None:
    won = duels(seed)
    wins = np.zeros((6, 6))
    for i, j in won:
        wins[i, j] += 1
    said = [Choice(f"p{k % 5}", f"s{i}", f"s{j}", 1) if k % 2 else Choice(f"p{k % 5}", f"s{j}", f"s{i}", -1) for k, (i, j) in enumerate(won)]
    evidence = gather(said, [], [], [])
    found = likeliest_rewards(evidence, np.ones(5), prior_sd=3e4)
    assert evidence.samples == tuple(f"s{i}" for i in range(6))
    assert found - found.mean() == pytest.approx(bradley_terry(wins), abs=1e-6)


def test_davidsons_ties_are_half_a_win_each_way() -> None:
    """The likelihood's sufficient statistics: a tie moves rewards as half a win and half a loss, whatever the fixed width."""
    tied = gather([Choice("ann", "a", "b", c) for c in (1, 1, 0, 0, -1)], [], [], [])
    assert np.ptp(likeliest_rewards(tied, np.ones(1), prior_sd=1e4, tie=0.0)) > 0
    even = gather([Choice("ann", "a", "b", c) for c in (1, 0, 0, -1)], [], [], [])
    assert likeliest_rewards(even, np.ones(1), prior_sd=1.0, tie=0.0) == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_guesser_moves_no_reward() -> None:
    evidence = gather([Choice("ann", "a", "b", 1), Choice("bob", "a", "b", -1)], [], [], [])
    with_bob = likeliest_rewards(evidence, np.array([1.0, 0.0]), prior_sd=1.0)
    alone = likeliest_rewards(gather([Choice("ann", "a", "b", 1)], [], [], []), np.ones(1), prior_sd=1.0)
    assert with_bob == pytest.approx(alone, abs=1e-9)


# ---- the fit's parts ----


def mixed(seed: int, n: int = 60) -> Evidence:
    """Answers of every kind by four people about eight responses."""
    draw = random.Random(seed)
    said: list[Choice] = []
    rated: list[Level] = []
    for _ in range(n):
        who, (a, b, c) = f"p{draw.randrange(4)}", draw.sample("abcdefgh", 3)
        choice = draw.choice((1, 0, -1))
        said.append(Choice(who, a, b, choice, draw.choice((1, -1, 0)), draw.randint(1, 3) * abs(choice)))
        said += choices_of_ranking(who, (a, b, c), draw.choice(([1, 2, 3], [2, 1, 1], [1, 1, 1])))
        rated += [Level(who, a, "warm", draw.randrange(5)), Level(who, b, "clear", draw.randrange(3)), Level(who, c, "thumbs", draw.randrange(2))]
    return gather(said, rated, [Known("a", "b")], [])


def test_the_gradient_is_the_slope() -> None:
    model = Model(mixed(0), Priors())
    generator = np.random.default_rng(0)
    parameters = model.mean + 0.3 * generator.normal(size=model.layout.size)
    ratio, x = np.array([0.0, 0.5, 1.0, 2.0]), generator.normal(size=(int(model.look.max()) + 1, 5))[model.look]
    _, average = gauss_hermite(5)
    _, gradient = model.objective(parameters, ratio, x, average)
    for place in range(model.layout.size):
        step = np.zeros_like(parameters)
        step[place] = 1e-5
        up, down = (model.objective(parameters + sign * step, ratio, x, average)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6), place


def test_the_belief_of_others_is_that_without_ones_own_answers() -> None:
    """Three responses in a chain, two annotators: what is left when ann's sites are taken away is what bob's alone make."""
    first, second, who = np.array([0, 1, 0, 1]), np.array([1, 2, 2, NO_ONE]), np.array([0, 0, 1, 1])

    def rewards(rows: Sequence[int]) -> Rewards:
        at = list(rows)
        found = Rewards(first[at], second[at], who[at], prior_mean=np.array([0.0, 0.5, -0.5]), prior_sd=1.0)
        pull, sharpness = np.array([1.0, -2.0, 0.5, 1.5])[at][:, None], np.array([0.5, 1.0, 2.0, 0.25])[at][:, None]
        assert found.step(lambda x: (pull - sharpness * x, np.broadcast_to(-sharpness, x.shape)), nodes=1) > 0
        return found

    everyone, bobs, anns = rewards(range(4)), rewards([2, 3]), rewards([0, 1])
    others = everyone.of_others()
    for rows, alone in (([0, 1], bobs), ([2, 3], anns)):
        mean = [alone.mean[first[i]] - (alone.mean[second[i]] if second[i] != NO_ONE else 0.0) for i in rows]
        assert others.mean[rows] == pytest.approx(mean)
    spread = bobs.pairs(np.array([0]), np.array([2])).variance  # what bob's answers leave of it
    assert everyone.pairs(np.array([0]), np.array([2])).variance < spread


def test_the_order_of_judgements_doesnt_matter_at_all() -> None:
    choices, levels = (
        [*choices_of_ranking("ann", "abc", [1, 2, 3]), Choice("bob", "a", "b", -1, 1, 2), Choice("bob", "c", "b", 0)],
        [Level("cy", "a", "warm", 2)],
    )
    one, other = fit(gather(choices, levels, [], [])), fit(gather(choices[::-1], levels, [], ["cy", "ann"]))
    assert one.reward() == other.reward()
    assert [one.skill_of(who) for who in ("ann", "bob", "cy")] == [other.skill_of(who) for who in ("ann", "bob", "cy")]


def test_trust_by_hand() -> None:
    """Without skill nothing pulls; with endless skill all; a lead that ties drown pulls little; sides cancel."""
    assert typical_pull(np.array([0.0, 1e6]), 0.0, -math.inf) == pytest.approx([0.0, 1.0], abs=1e-3)
    assert typical_pull(np.array([0.0]), 3.0, 0.0) == pytest.approx([0.0], abs=1e-12)
    assert typical_pull(np.array([2.0]), 0.0, 4.0)[0] < 0.1 < typical_pull(np.array([2.0]), 0.0, 0.0)[0]
    assert typical_pull(np.array([2.0]), 4.0, 0.0) == pytest.approx(typical_pull(np.array([2.0]), -4.0, 0.0))
    assert typical_pull(np.array([2.0]), 4.0, 0.0)[0] < typical_pull(np.array([2.0]), 0.0, 0.0)[0] / 2
    assert typical_pull(np.array([skill_of_accuracy(0.8)]), 0.0, -math.inf) == pytest.approx([0.6], abs=1e-3)


# ---- what made the answers is found ----


class Person:
    """Someone with a skill, a leaning and a tie width, who answers as the model says."""

    def __init__(self, name: str, skill: float, side: float = 0.0, tie: float = -1.0) -> None:
        self.name, self.skill, self.side, self.tie = name, skill, side, tie

    def choose(self, a: str, b: str, rewards: dict[str, float], draw: random.Random) -> Choice:
        """A choice between two, shown in an order that is drawn."""
        side = draw.choice((1, -1))
        odds = choice_of(self.skill * (rewards[a] - rewards[b]) + self.side * side, self.tie)
        return Choice(self.name, a, b, draw.choices((1, 0, -1), odds)[0], side)


def crowd_fit(people: Sequence[Person], *, n: int, overlap: int, seed: int) -> tuple[Fit, dict[str, float]]:
    draw = random.Random(seed)
    rewards = {f"s{i}": draw.gauss(0, 1) for i in range(n)}
    said = []
    for i in range(0, n - 2, 3):
        for a, b in itertools.combinations((f"s{i}", f"s{i + 1}", f"s{i + 2}"), 2):
            said += [person.choose(a, b, rewards, draw) for person in draw.sample(list(people), overlap)]
    return fit(gather(said, [], [], [])), rewards


def test_it_finds_what_made_the_choices() -> None:
    """Eight people, about 450 answers each: skills, sides and ties within what such a sample can tell."""
    people = [
        Person("sharp", 5.0), Person("good", 3.0), Person("fair", 1.5), Person("blind", 0.0),
        Person("left", 2.0, side=2.0), Person("right", 3.0, side=-1.0), Person("ties", 3.0, tie=2.0), Person("decided", 3.0, tie=-3.0),
    ]  # fmt: skip
    found, rewards = crowd_fit(people, n=900, overlap=4, seed=0)
    skills = {person.name: found.skill_of(person.name) for person in people}
    for person in people:
        assert abs(skills[person.name].skill - person.skill) < 0.25 * person.skill + 0.15, person.name
        assert abs(skills[person.name].side_bias - person.side) < 0.4, person.name
        assert abs(skills[person.name].tie_width - person.tie) < 0.8, person.name
        assert skills[person.name].low <= skills[person.name].trust <= skills[person.name].high
    assert skills["blind"].high < 0.15 < skills["fair"].low
    estimates, pairs = found.reward(), [(f"s{i}", f"s{i + 1}") for i in range(0, 900, 3)]
    leads = [[values[a] - values[b] for a, b in pairs] for values in ({name: mean for name, (mean, _) in estimates.items()}, rewards)]
    assert float(np.asarray(np.corrcoef(leads))[0, 1]) > 0.85


def test_nobody_vouches_for_themselves() -> None:
    """Two hundred answers that nobody else gave leave the skill where the prior has it, and as unsure."""
    draw = random.Random(0)
    alone = fit(gather([Choice("ann", f"a{i}", f"b{i}", draw.choice((1, -1)), draw.choice((1, -1))) for i in range(200)], [], [], []))
    nothing = fit(gather([], [], [], ["ann"]), Priors())
    assert alone.skill_of("ann").low == pytest.approx(0.0, abs=1e-9)
    assert alone.skill_of("ann").high > nothing.skill_of("ann").high


@pytest.mark.slow
def test_a_lone_persons_answers_fit_together_or_dont() -> None:
    """All six pairs of four responses, by one person: in line with an order, or at random. The crowd's skill shows it; theirs is as unsure as ever."""
    draw = random.Random(0)
    fits = []
    for blind in (False, True):
        said = []
        for i in range(80):
            for k, (a, b) in enumerate(itertools.combinations(range(4), 2)):
                said.append(Choice("ann", f"{i}/{a}", f"{i}/{b}", draw.choice((1, -1)) if blind else 1, (-1) ** k))
        fits.append(fit(gather(said, [], [], [])))
    in_line, blind_fit = fits
    assert in_line.crowd_skill > 3 * blind_fit.crowd_skill
    for found in fits:  # without ties and sides, which may tell a guesser too, of their own skill they have shown nothing
        parameters = found.parameters.copy()
        parameters[found.model.layout.side], parameters[found.model.layout.forms] = 0.0, -30.0
        points, average = gauss_hermite(7)
        posterior = found.model.grid(parameters, found.rewards.of_others().at(points), average)[0]
        assert posterior[0] == pytest.approx(DEFAULT.guessers, abs=1e-6)
        assert posterior[1:] @ np.log(RATIOS) == pytest.approx(0.0, abs=0.01)


def test_without_a_look_is_without_its_sites() -> None:
    """Two answers of one look at (0, 1) and one at (1, 2): without the look, 0 and 1 are as the third alone leaves them."""
    first, second = np.array([0, 0, 1]), np.array([1, 1, 2])
    pull, sharpness = np.array([1.0, 0.5, -2.0])[:, None], np.array([0.5, 0.25, 1.0])[:, None]
    alone = Rewards(first[2:], second[2:], np.array([0]), prior_mean=np.zeros(3), prior_sd=1.0)
    alone.step(lambda x: (pull[2:] - sharpness[2:] * x, np.broadcast_to(-sharpness[2:], x.shape)), nodes=1)
    everything = Rewards(first, second, np.array([0, 0, 1]), prior_mean=np.zeros(3), prior_sd=1.0)
    everything.step(lambda x: (pull - sharpness * x, np.broadcast_to(-sharpness, x.shape)), nodes=1)
    left = everything.without(np.array([0, 0, 1]))
    assert left.mean[:2] == pytest.approx([alone.mean[0] - alone.mean[1]] * 2)
    assert left.variance[2] == pytest.approx(everything.without(np.array([0, 0, 1])).variance[2])
    assert left.mean[2] != pytest.approx(alone.mean[1] - alone.mean[2])


def test_the_gaussian_stays_the_product_of_prior_and_sites() -> None:
    """However far Newton's step would lead: of someone alone nothing is left when what they said is taken away, at every step."""
    first, second = np.arange(30), np.arange(1, 31)

    def slopes(x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        terms = davidson(40.0 * x, np.array(-math.inf), np.array(1))
        return 40.0 * terms.by_lead, 1600.0 * terms.by_lead_twice

    rewards = Rewards(first, second, np.zeros(30, dtype=np.intp), prior_mean=np.zeros(31), prior_sd=1.0)
    moves = []
    for _ in range(60):
        moves.append(rewards.step(slopes))
        left = rewards.of_others()
        assert left.mean == pytest.approx(0.0, abs=1e-6)
        assert left.variance == pytest.approx(2.0)
    assert max(moves) > 3
    assert moves[-1] < 0.01


def test_slopes_are_averaged_over_the_belief() -> None:
    """One answer of skill 3 on a reward: the Gaussian's mean and precision hold where 200 nodes say so."""

    def slopes(x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        terms = davidson(3.0 * x, np.array(-math.inf), np.array(1))
        return 3.0 * terms.by_lead, 9.0 * terms.by_lead_twice

    rewards = Rewards(np.array([0]), np.array([NO_ONE]), np.array([0]), prior_mean=np.zeros(1), prior_sd=1.0)
    for _ in range(60):
        rewards.step(slopes, nodes=9)
    (mean,), (variance,) = rewards.belief()
    points, weights = gauss_hermite(200)
    by_x, curve = (terms @ weights for terms in slopes(mean + math.sqrt(variance) * points))
    assert mean == pytest.approx(by_x, rel=0.01)
    assert 1 / variance == pytest.approx(1 - curve, rel=0.01)


@pytest.mark.parametrize("people", [1, 3, 6])
def test_a_crowd_that_agrees_in_everything_settles(people: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond doubt is where the fit used to swing: twice the rounds, and answers in another order, find the same."""
    pairs = [(f"{i}/{a}", f"{i}/{b}", (-1) ** (a + b)) for i in range(30) for a, b in itertools.combinations(range(3), 2)]
    said = [Choice(f"p{who}", first, second, 1, side) for first, second, side in pairs for who in range(people)]
    found = fit(gather(said, [], [], []))
    monkeypatch.setattr("truing.feedback.joint.ROUNDS", 80)
    again = fit(gather(said[::-1], [], [], []))
    assert again.skill_of("p0").trust == pytest.approx(found.skill_of("p0").trust, abs=1e-3)
    assert again.crowd_skill == pytest.approx(found.crowd_skill, rel=0.01)


def test_downhill_to_the_bottom() -> None:
    """A bowl with its bottom at (1, -2, 3), and Rosenbrock's bent valley at (1, 1)."""
    bottom, widths = np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 0.5])

    def bowl(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return float(widths @ (x - bottom) ** 2) / 2, widths * (x - bottom)

    def valley(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        bend = x[1] - x[0] ** 2
        return float(100 * bend**2 + (1 - x[0]) ** 2), np.array([-400 * x[0] * bend - 2 * (1 - x[0]), 200 * bend])

    assert descend(bowl, np.zeros(3), 50, np.full(3, 10.0)) == pytest.approx(bottom, abs=1e-6)
    assert descend(valley, np.array([-1.2, 1.0]), 200, np.full(2, 1.0)) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert np.abs(descend(bowl, np.zeros(3), 1, np.full(3, 0.25))).max() <= 0.25


def test_nobodys_word_is_reversed() -> None:
    """Someone who always says the opposite of five others comes to nothing, never below."""
    said = [Choice(who, f"a{i}", f"b{i}", 1 if who != "contrary" else -1, side=(-1) ** i) for i in range(60) for who in ("u", "v", "w", "x", "y", "contrary")]
    found = fit(gather(said, [], [], []))
    assert 0 <= found.skill_of("contrary").trust < 0.05
    assert found.skill_of("u").low > 0.4


def test_check_questions_tell_two_contraries_apart() -> None:
    said = [Choice(who, f"a{i}", f"b{i}", 1 if who == "ann" else -1, side=(-1) ** i) for i in range(20) for who in ("ann", "bob")]
    unknown = fit(gather(said, [], [], []))
    assert unknown.skill_of("ann").trust == pytest.approx(unknown.skill_of("bob").trust, abs=1e-6)
    checked = fit(gather(said, [], [Known(f"a{i}", f"b{i}") for i in range(6)], []))
    assert checked.skill_of("ann").trust > 0.5 > 0.1 > checked.skill_of("bob").trust


def rated(people: dict[str, tuple[float, float]], *, scale: str = "overall", points: int = 5, n: int = 150, seed: int = 0) -> list[Level]:
    """Ratings by people with (skill, offset) of n responses, with cut-points at -3, -1, 1, 3."""
    draw, cuts = random.Random(seed), np.arange(points - 1) * 2.0 - (points - 2)
    found = []
    for i in range(n):
        reward = draw.gauss(0, 1)
        for who, (skill, offset) in people.items():
            uniform = draw.random()
            latent = skill * reward + offset + math.log(uniform / (1 - uniform))
            found.append(Level(who, f"s{i:03d}", scale, int((latent > cuts).sum())))
    return found


def test_ratings_find_skills_and_the_mild_and_the_strict() -> None:
    found = fit(gather([], rated({"sharp": (4.0, 0.0), "mild": (2.0, 2.0), "strict": (2.0, -2.0), "blind": (0.0, 0.0)}), [], []))
    evidence, offsets = found.model.evidence, found.parameters[found.model.layout.offsets]
    offset = {evidence.annotators[who]: float(offsets[place]) for place, (who, _) in enumerate(evidence.offsets)}
    assert abs(offset["mild"] - offset["strict"] - 4.0) < 0.9
    assert found.skill_of("blind").high < 0.3 < found.skill_of("mild").low
    assert found.skill_of("sharp").skill > found.skill_of("mild").skill


def test_thumbs_are_a_scale_of_two() -> None:
    found = fit(gather([], rated({"sharp": (4.0, 0.0), "good": (3.0, 0.0), "fair": (2.0, 1.0), "blind": (0.0, 0.0)}, scale="thumbs", points=2, n=250), [], []))
    assert found.model.evidence.points == (2,)
    assert found.skill_of("blind").trust < 0.1 < found.skill_of("fair").low


def test_kinds_vouch_for_each_other() -> None:
    """Someone whose pairs nobody else compared is known by the ratings of the same responses."""
    ratings = rated({"sharp": (4.0, 0.0), "good": (3.0, 0.0), "fair": (3.0, 0.0)}, n=120)
    score = {f"s{i:03d}": sum(row.level for row in ratings if row.sample == f"s{i:03d}") for i in range(120)}
    pairs = [(f"s{i:03d}", f"s{i + 1:03d}") for i in range(0, 120, 2)]
    said = [
        Choice(who, a, b, (1 if score[a] >= score[b] else -1) * (1 if who == "seer" else -1), (-1) ** i) for i, (a, b) in enumerate(pairs) for who in ("seer",)
    ]
    said += [Choice("coin", a, b, random.Random(i).choice((1, -1)), (-1) ** i) for i, (a, b) in enumerate(pairs)]
    found = fit(gather(said, ratings, [], []))
    assert found.skill_of("seer").low > found.skill_of("coin").high


def test_rankings_find_the_blind() -> None:
    draw = random.Random(0)
    said: list[Choice] = []
    for i in range(60):
        rewards = [draw.gauss(0, 1) for _ in range(4)]
        names = [f"{i}/{place}" for place in range(4)]
        for who, noise in (("ann", 0.2), ("bob", 0.3), ("blind", 50.0)):
            seen = [reward + draw.gauss(0, noise) for reward in rewards]
            said += choices_of_ranking(who, names, [1 + sum(other > one for other in seen) for one in seen])
    found = fit(gather(said, [], [], []))
    assert found.model.evidence.forms == (RANKING,)
    assert found.skill_of("blind").high < 0.2 < 0.6 < found.skill_of("ann").low


def test_how_strong_it_was_called_says_something() -> None:
    """Two pairs that all prefer the same way, one of them strongly: the stronger has the larger lead."""
    strong = [Choice(f"p{k}", "a", "b", 1, strength=3 - (k == 3)) for k in range(4)]
    weak = [Choice(f"p{k}", "c", "d", 1, strength=1) for k in range(4)]
    reward = {name: mean for name, (mean, _) in fit(gather([*strong, *weak], [], [], [])).reward().items()}
    assert reward["a"] - reward["b"] > reward["c"] - reward["d"] + 0.05


def test_who_knows_one_strength_only_says_no_strength() -> None:
    """An import that calls everything a one."""
    assert gather([Choice("ann", "a", "b", 1, strength=1), Choice("ann", "c", "d", -1, strength=1)], [], [], []).scales == ()
    assert gather([Choice("ann", "a", "b", 1, strength=1), Choice("ann", "c", "d", -1, strength=2)], [], [], []).scales == ("strength",)


def test_predictions_add_up_and_see_the_side() -> None:
    found, _ = crowd_fit([Person("sharp", 5.0), Person("left", 2.0, side=2.0), Person("good", 3.0)], n=150, overlap=3, seed=1)
    belief = found.rewards.pairs(np.array([0, 0]), np.array([1, 1]))
    chances = found.probabilities("left", belief, np.array([1.0, -1.0]))
    assert chances.sum(1) == pytest.approx([1.0, 1.0])
    assert chances[0, 0] > chances[1, 0]


# ---- from what was said ----


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 5), st.integers(-3, 3)), max_size=25))
def test_anything_said_gives_a_trust_within_bounds(said: list[tuple[str, int, int]]) -> None:
    rows = [Said(f"q{q}", who, "pair", (f"a{q}", f"b{q}"), {"strength": strength}, (0, 1)) for who, q, strength in said]
    found = fit(evidence_of(rows, {"q0": {"better": 1}}, "uvw"))
    for who in "uvw":
        skill = found.skill_of(who)
        assert 0 <= skill.low <= skill.trust + 1e-9 <= skill.high + 2e-2 <= 1.02
        assert all(map(math.isfinite, skill))


def test_what_is_read_of_each_kind() -> None:
    rows = [
        Said("p", "ann", "pair", ("a", "b"), {"strength": -2}, (1, 0)),
        Said("again", "ann", "pair", ("a", "b"), {"strength": -2}, (1, 0), repeat_of="p"),
        Said("t", "ann", "thumbs", ("a",), {"up": True}),
        Said("g", "ann", "rating", ("b",), {"aspects": {"overall": 4}}),
        Said("e", "ann", "edit", ("a",), {"text": "mine"}),
        Said("r", "ann", "ranking", ("a", "b"), {"ranks": [2, 1]}),
        Said("u", "ann", "pair", ("a", "b"), {"strength": 1}),
    ]
    found = evidence_of(rows, {"g": {"answer": {"aspects": {"overall": 5}}}, "r": {"answer": {"ranks": [2, 1]}}}, ["ann"])
    assert found.annotators == (ORACLE, "ann")
    assert found.forms == (PAIR, RANKING)
    assert found.scales == ("overall", "strength", "thumbs")
    assert sorted(zip(found.choices.choice.tolist(), found.choices.side.tolist(), strict=True)) == [(-1, -1.0), (1, 0.0), (1, 0.0)]  # b is ranked above a
    assert found.points == (5, 2, 2)
    assert [(found.samples[one], found.samples[other]) for one, other in zip(found.better, found.worse, strict=True)] == [("b", "a")]
