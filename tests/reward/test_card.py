"""The card: accuracy, ceiling and calibration by hand, and what stands in the artifact."""

import json
from pathlib import Path

import pytest
import torch

from reward.letters import letter_rows, row, write_dataset
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card import card_rows, held_out_scores, human_agreement, judged_accuracy, majority_accuracy, measure, reward_card
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project

SETTINGS = RewardSettings(readings=("last@1.0", "mean@1.0"), members=2)


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def test_majority_accuracy_by_hand() -> None:
    rows = [row("p", "a", "b", 1.0), row("q", "a", "b", 0.2), row("r", "a", "b", 0.5), row("s", "a", "b", 0.9)]
    # right, wrong, a tie of the people's that isn't asked, a tie of the model's that counts half
    found = majority_accuracy(rows, [(2.0, 1.0), (1.0, 0.0), (0.0, 1.0), (3.0, 3.0)])
    assert found.value == 1.5 / 3
    assert found.n == 3
    assert 0 <= found.low < found.value < found.high <= 1


def test_judged_accuracy_counts_single_judgements_of_the_chosen() -> None:
    rows = [
        row("p", "a", "b", 0.7, strengths={"ann": 2, "bob": 1, "eve": -3}),
        row("q", "a", "b", 0.3, strengths={"ann": -1, "bob": 0, "eve": 3}),
    ]
    scores = [(1.0, 0.0), (1.0, 0.0)]  # a both times
    everyone = judged_accuracy(rows, scores)
    assert (everyone.value, everyone.n) == (3 / 5, 5)  # ann right, bob right, eve wrong; ann wrong, bob tied, eve right
    honest = judged_accuracy(rows, scores, {"ann", "bob"})
    assert (honest.value, honest.n) == (2 / 3, 3)
    assert judged_accuracy(rows, scores, {"nobody"}).n == 0


def test_human_agreement_is_over_couples_who_both_took_a_side() -> None:
    rows = [
        row("p", "a", "b", 0.7, strengths={"ann": 2, "bob": 1, "eve": -3}),  # ann-bob agree; ann-eve, bob-eve don't
        row("q", "a", "b", 0.3, strengths={"ann": -1, "bob": 0}),  # a tie is no side
        row("r", "a", "b", 0.3, strengths={"ann": -1, "eve": -2}),  # agree
    ]
    found = human_agreement(rows)
    assert (found.value, found.n) == (2 / 4, 4)


def test_measure_by_hand() -> None:
    rows = [row("p", "aaaa", "b", 1.0), row("q", "aaaa", "b", 0.0), row("r", "a", "bb", 1.0), row("s", "a", "bb", 0.0)]
    log3 = float(torch.log(torch.tensor(3.0)))
    scores = torch.tensor([[log3 / 2, 0], [log3 / 2, 0], [0, 0], [0, log3 / 2]])  # with std 2: 3/4, 3/4, 1/2, 1/4 for a
    reference = torch.tensor([-1.0, 0.0, 1.0])
    facts, card, lines = measure([], rows, scores, reference, [10, 20, 30], std=2.0, seed=0)
    assert facts["accuracy"]["value"] == (1 + 0 + 0.5 + 1) / 4
    assert facts["accuracy"]["n"] == facts["n_test"] == 4
    ln = torch.log(torch.tensor([4 / 3, 4, 2, 4 / 3], dtype=torch.float64))
    assert facts["log_loss"] == pytest.approx(ln.mean().item(), abs=1e-6)
    assert facts["auc"] == 2.5 / 4  # positives 3/4, 1/2 against negatives 3/4, 1/4: one half, one, none, one
    assert facts["length_correlation"] == pytest.approx(1)
    assert card["length_slope"] == pytest.approx(0.1)
    assert card["longer_wins"]["value"] == 2 / 4
    assert sum(card["histogram"]["counts"]) == 3
    assert sum(one["n"] for one in card["reliability"]) == 4
    assert card["ceiling"] == {"value": None, "low": None, "high": None, "n": 0}
    assert [line["question_id"] for line in lines] == [one["question_id"] for one in rows]
    json.dumps([facts, card, lines], allow_nan=False)


def test_swapping_a_and_b_changes_no_accuracy_and_no_log_loss() -> None:
    rows = [row(str(number), "a", "bb", [1.0, 0.3, 0.8][number % 3]) for number in range(9)]
    scores = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    swapped = [one | {"a": one["b"], "b": one["a"], "target": 1 - one["target"]} for one in rows]
    one, other = (measure([], these, given, torch.arange(3.0), [1, 2, 3], std=1.5, seed=0)[0] for these, given in ((rows, scores), (swapped, scores.flip(1))))
    assert one["accuracy"] == other["accuracy"]
    assert one["log_loss"] == pytest.approx(other["log_loss"])
    assert one["auc"] == pytest.approx(other["auc"])


def test_the_card_of_an_artifact_reads_as_a_table(project: Project, trunk: Trunk) -> None:
    made = train_reward_model(project, SETTINGS, write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    card = reward_card(project, made.id)
    assert card["reward"] == made.id
    assert card["accuracy"] == made.facts["accuracy"]
    rows = list(card_rows(card))
    assert rows[0][0] == "right on held-out pairs"
    assert rows[0][2] == "18 pairs, 18 prompts"
    assert rows[1][1] == "not known: no overlap"
    assert rows[-1][1] == "linear, 2 members, reads last of layer 2, mean of layer 2"
    json.dumps(card, allow_nan=False)


def test_held_out_scores_are_what_the_accuracy_was_measured_on(project: Project, trunk: Trunk) -> None:
    made = train_reward_model(project, SETTINGS, write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    rows, scores = held_out_scores(project, made.id)
    assert {one["split"] for one in rows} == {"held-out"}
    assert majority_accuracy(rows, scores).value == made.facts["accuracy"]["value"]
    assert judged_accuracy(rows, scores, {"ann"}).value == made.facts["accuracy"]["value"]
