"""The student: it recovers what a reward is made of, and is measured on prompts that it didn't learn from."""

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from truing.reward.probe.distil import DEPTH, distil, r_squared, ridge

PROMPTS = [f"p{number // 2}" for number in range(160)]


def table(seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    """words, warmth, exclamations, and a column that never varies."""
    generator = np.random.default_rng(seed)
    x = np.column_stack([generator.integers(5, 60, 160), generator.normal(size=160), generator.integers(0, 4, 160), np.full(160, 2.0)])
    return x.astype(float), generator


NAMES = ["words", "warmth", "exclamations", "emoji"]


def test_a_sum_of_attributes_is_recovered() -> None:
    x, generator = table()
    y = 0.05 * x[:, 0] - 2 * x[:, 1] + 0.02 * generator.normal(size=160)
    student = distil(NAMES, x.tolist(), y.tolist(), PROMPTS, seed=1)
    rows = {row["attribute"]: row["effect"] for row in student.facts["ridge"]["coefficients"]}
    assert list(rows) == ["warmth", "words", "exclamations"]  # the largest first
    assert rows["warmth"]["value"] == pytest.approx(-2 * x[:, 1].std(), rel=1e-2)
    assert rows["warmth"]["high"] < 0 < rows["words"]["low"]
    assert rows["exclamations"]["low"] < 0 < rows["exclamations"]["high"]
    assert rows["words"]["n"] == 80
    assert student.slope_per_word == pytest.approx(0.05, rel=1e-2)
    assert student.facts["constant"] == ["emoji"]
    r2 = student.facts["ridge"]["r2"]
    assert 0.99 < r2["low"] < r2["value"] < r2["high"] < 1
    assert np.mean(np.square(np.array(student.expected) - y)) < 0.02
    json.dumps(student.facts, allow_nan=False)


def test_the_tree_says_a_step_in_words() -> None:
    x, generator = table()
    y = np.where(x[:, 0] > 30.5, 1.0, -1.0) + 0.01 * generator.normal(size=160)
    facts = distil(NAMES, x.tolist(), y.tolist(), PROMPTS, seed=1).facts
    rules = facts["tree"]["rules"]
    assert sum(rule["n"] for rule in rules) == 160
    assert len(rules) <= 2**DEPTH
    assert rules[0]["score"]["value"] == pytest.approx(1, abs=1e-2)
    assert any(condition.startswith("words more than 30.") for condition in rules[0]["conditions"])
    assert any(condition.startswith("words at most 30.") for condition in rules[-1]["conditions"])
    assert facts["tree"]["r2"]["value"] > facts["ridge"]["r2"]["value"]  # a step is no slope


def test_a_bound_is_said_once_and_at_its_tightest() -> None:
    x, _ = table()
    y = np.digitize(x[:, 0], [15.5, 30.5, 45.5]).astype(float)
    for rule in distil(NAMES, x.tolist(), y.tolist(), PROMPTS, seed=1).facts["tree"]["rules"]:
        sides = [condition.rsplit(" ", 1)[0] for condition in rule["conditions"]]
        assert len(sides) == len(set(sides))


def test_a_yes_or_no_is_said_as_one() -> None:
    x, _ = table()
    yes = (x[:, 1] > 0).astype(float)[:, None]
    rules = distil(["finished"], yes.tolist(), yes[:, 0].tolist(), PROMPTS, seed=1).facts["tree"]["rules"]
    assert [rule["conditions"] for rule in rules] == [["ended by itself: yes"], ["ended by itself: no"]]


def test_a_prompt_that_is_known_by_heart_explains_nothing() -> None:
    """Both samples of a prompt share a number and a score: whoever learned from one knows the other. Left-out prompts must not be known."""
    generator = np.random.default_rng(3)
    number, score = generator.normal(size=80), generator.normal(size=80)
    x = np.repeat(number, 2)[:, None]
    y = np.repeat(score, 2)
    facts = distil(["warmth"], x.tolist(), y.tolist(), PROMPTS, seed=1).facts
    assert facts["ridge"]["r2"]["value"] < 0.05
    assert facts["tree"]["r2"]["value"] < 0.05


def test_the_samples_that_it_misses_most_are_named() -> None:
    x, _ = table()
    y = 0.05 * x[:, 0]
    y[7] += 5
    y[11] -= 4
    worst = distil(NAMES, x.tolist(), y.tolist(), PROMPTS, seed=1).facts["worst"]
    assert worst["higher"][0]["sample"] == 7
    assert worst["lower"][0]["sample"] == 11
    assert worst["higher"][0]["score"] == y[7] > worst["higher"][0]["expected"]


def test_scores_that_do_not_vary_have_no_fidelity() -> None:
    x, _ = table()
    facts = distil(NAMES, x.tolist(), [1.0] * 160, PROMPTS, seed=1).facts
    assert facts["ridge"]["r2"]["value"] is None
    assert all(row["effect"]["value"] == 0 for row in facts["ridge"]["coefficients"])
    with pytest.raises(ValueError, match="two are the least"):
        distil(NAMES, x.tolist(), [1.0] * 160, ["p"] * 160, seed=1)


def test_r_squared_by_hand() -> None:
    # around the mean 2: 4 + 0 + 4 = 8; missed: 1 + 0 + 1 = 2
    found = r_squared([0, 2, 4], [1, 2, 3], ["a", "b", "c"], seed=0)
    assert found.value == 1 - 2 / 8
    assert found.n == 3
    assert r_squared([0, 2, 4], [2, 2, 2], ["a", "b", "c"], seed=0).value == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student() -> None:
    x, _ = table()
    y = (x[:, 1] * 2).tolist()
    one, other = (distil(NAMES, x.tolist(), y, PROMPTS, seed=5) for _ in range(2))
    assert one == other


def test_the_ridge_is_scikit_learns() -> None:
    x, generator = table()
    y = generator.normal(size=160) + x[:, 1]
    z = (x[:, :3] - x[:, :3].mean(axis=0)) / x[:, :3].std(axis=0)
    theirs = Ridge(alpha=3.0).fit(z, y)
    start, weights = ridge(x, y, 3.0)
    assert weights * x.std(axis=0) == pytest.approx([*theirs.coef_, 0.0])
    assert x @ weights + start == pytest.approx(theirs.predict(z))


def test_a_row_of_emoji_that_was_never_seen_is_not_foreseen_to_be_absurd() -> None:
    """One sample has 30 where others have 0 or, here and there, 1: a slope per emoji that three samples gave must not be multiplied by 30."""
    generator = np.random.default_rng(3)
    prompts = [f"p{row // 4}" for row in range(160)]
    rows = np.stack([generator.normal(size=160), np.zeros(160)], 1)
    rows[[5, 57, 133], 1], rows[90, 1] = 1.0, 30.0
    scores = rows[:, 0] + generator.normal(0, 0.5, 160) + rows[:, 1].clip(0, 1)
    fidelity = distil(["words", "emoji"], rows.tolist(), scores.tolist(), prompts, seed=1).facts["ridge"]["r2"]
    assert fidelity["value"] > 0.7
