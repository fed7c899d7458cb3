"""The card as it is measured at training: its numbers by hand, and what stands in the artifact."""

import json
from pathlib import Path

import pytest
import torch

from reward.letters import letter_rows, row, write_dataset
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card.accuracy import judged_accuracy, majority_accuracy
from truing.reward.card.measure import held_out_scores, measure, reward_card
from truing.reward.card.table import card_rows
from truing.reward.features import Item
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

SETTINGS = RewardSettings(readings=("last@1.0", "mean@1.0"), members=2)


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def items(*lengths: int) -> list[Item]:
    """Reference responses of these lengths, each of a prompt of its own."""
    return [((number,), (7,) * length) for number, length in enumerate(lengths)]


def test_measure_by_hand() -> None:
    rows = [row("p", "aaaa", "b", 1.0), row("q", "aaaa", "b", 0.0), row("r", "a", "bb", 1.0), row("s", "a", "bb", 0.0)]
    log3 = float(torch.log(torch.tensor(3.0)))
    scores = torch.tensor([[log3 / 2, 0], [log3 / 2, 0], [0, 0], [0, log3 / 2]])  # with std 2: 3/4, 3/4, 1/2, 1/4 for a
    reference = torch.tensor([-1.0, 0.0, 1.0])
    facts, card, lines = measure([], rows, scores, reference, items(10, 20, 30), std=2.0, seed=0)
    assert facts["accuracy"]["value"] == (1 + 0 + 0.5 + 1) / 4
    assert facts["accuracy"]["n"] == facts["n_test"] == 4
    ln = torch.log(torch.tensor([4 / 3, 4, 2, 4 / 3], dtype=torch.float64))
    assert facts["log_loss"] == pytest.approx(ln.mean().item(), abs=1e-6)
    assert facts["auc"] == 2.5 / 4  # positives 3/4, 1/2 against negatives 3/4, 1/4: one half, one, none, one
    assert facts["length_correlation"] == pytest.approx(1)
    assert card["length_slope"] == pytest.approx(0.1)
    longer, shorter = card["rules"]
    assert (longer["accuracy"]["value"], shorter["accuracy"]["value"]) == (2 / 4, 2 / 4)
    assert longer["lead"]["value"] == (0 + 0 + 0.5 + 0) / 4  # p both right, q both wrong, r a half against none, s both right
    assert facts["fitness"]["verdict"] == "not fit"
    assert {reason["rule"] for reason in facts["fitness"]["reasons"]} >= {"few", "chance", "trivial"}
    assert sum(card["histogram"]["counts"]) == 3
    assert sum(one["n"] for one in card["reliability"]) == 4
    assert card["ceiling"] == {"value": None, "low": None, "high": None, "n": 0}
    assert [line["question_id"] for line in lines] == [one["question_id"] for one in rows]
    json.dumps([facts, card, lines], allow_nan=False)


def test_swapping_a_and_b_changes_no_accuracy_and_no_log_loss() -> None:
    rows = [row(str(number), "a", "bb", [1.0, 0.3, 0.8][number % 3]) for number in range(9)]
    scores = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    swapped = [one | {"a": one["b"], "b": one["a"], "target": 1 - one["target"]} for one in rows]
    one, other = (
        measure([], these, given, torch.arange(3.0), items(1, 2, 3), std=1.5, seed=0)[0] for these, given in ((rows, scores), (swapped, scores.flip(1)))
    )
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
    assert made.facts["fitness"] == card["fitness"]
    assert card["distribution"]["std_before"] == made.facts["std"]
    json.dumps(card, allow_nan=False)


def test_held_out_scores_are_what_the_accuracy_was_measured_on(project: Project, trunk: Trunk) -> None:
    made = train_reward_model(project, SETTINGS, write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    rows, scores = held_out_scores(project, made.id)
    assert {one["split"] for one in rows} == {"held-out"}
    assert majority_accuracy(rows, scores).value == made.facts["accuracy"]["value"]
    assert judged_accuracy(rows, scores, {"ann"}).value == made.facts["accuracy"]["value"]
