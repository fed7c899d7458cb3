"""Spread against error, and scores against ratings, where the answer is known."""

from typing import Any

import numpy as np
import pytest

from reward.letters import letter_rows, said_of, write_dataset
from truing.reward.card.ensemble import spread_against_error
from truing.reward.card.ratings import against_ratings, rated_responses
from truing.store.project import Project


def test_a_spread_that_knows_its_errors_by_hand() -> None:
    # the mean margin is 1 of each pair; of the last two a is not the better one, and there the members differ most
    margins = np.array([[1.0 - spread, 1.0 + spread] for spread in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
    found: Any = spread_against_error(margins, [1, 1, 1, 1, 0, 0], list("abcdef"), seed=0)
    assert found["auc"]["value"] == 1
    assert found["auc_of_lead"]["value"] == 0.5  # all leads are alike
    assert [third["accuracy"]["value"] for third in found["thirds"]] == [1, 1, 0]
    assert [third["spread"] for third in found["thirds"]] == pytest.approx([0.15, 0.35, 0.55])
    assert [third["accuracy"]["n"] for third in found["thirds"]] == [2, 2, 2]


def test_a_lead_that_knows_its_errors() -> None:
    margins = np.array([[lead, lead + 0.25] for lead in (2.0, 3.0, -0.5, 0.25)])
    found: Any = spread_against_error(margins, [1, 1, 1, 0], list("abcd"), seed=0)
    assert found["auc_of_lead"]["value"] == 1
    assert found["auc"]["value"] == 0.5


def test_a_single_member_has_no_spread() -> None:
    assert spread_against_error(np.ones((4, 1)), [1, 1, 0, 0], list("abcd"), seed=0) is None


@pytest.mark.slow
def test_ratings_are_read_as_means_over_people_and_ranked_against_scores(project: Project) -> None:
    rows = letter_rows(40)
    said = said_of(rows, "rating")  # 5 for the better answer, 2 for the other
    for line in said:
        line["said"].append(line["said"][0] | {"id": "second", "annotator_id": "bob", "answer": {"aspects": {"warmth": 1, "use": 4}}})  # 2.5 in the mean
    rated = rated_responses(write_dataset(project, rows, said))
    assert len(rated) == 2 * sum(one["split"] == "held-out" for one in rows)
    assert {one.points for one in rated} == {(5 + 2.5) / 2, (2 + 2.5) / 2}
    assert all(one.people == 2 for one in rated)
    found: Any = against_ratings(rated, [one.points for one in rated], seed=0)
    assert found["spearman"]["value"] == pytest.approx(1)
    assert found["kendall"]["value"] == pytest.approx(1)
    assert (found["spearman"]["n"], found["ratings"]) == (len(rated), 2 * len(rated))
    turned: Any = against_ratings(rated, [-one.points for one in rated], seed=0)
    assert turned["spearman"]["value"] == pytest.approx(-1)
    assert against_ratings(rated[:9], [1.0] * 9, seed=0) is None


def test_a_dataset_of_pairs_has_no_ratings(project: Project) -> None:
    assert rated_responses(write_dataset(project, letter_rows(10))) == []
