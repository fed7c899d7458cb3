"""Learning from what others said and wrote: it learns what it is told, however it is cut up or cut short, and the reference is the base."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from reward.letters import letter_rows, row, write_dataset
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.policy.algorithms import OFFLINE
from truing.policy.examples import Example, Examples, preferences, to_imitate
from truing.policy.offline import OfflineLearner, in_memory, logprobs_of, plan, rows_of
from truing.policy.settings import OfflineSettings
from truing.policy.train import imitate
from truing.store.project import Project, create_project, open_project

NOWHERE = Path("no-artifacts-are-read-when-the-parent-is-the-base")


def settings_for(name: str, **changes: Any) -> OfflineSettings:
    """Small settings of an algorithm."""
    kind: type[OfflineSettings] = OFFLINE[name].Settings
    return kind.model_validate({"algorithm": name, "epochs": 2, "batch": 8, "rank": 2, "lr": 3e-3} | changes)


def examples_for(project: Project, trunk: Trunk, name: str, pairs: int = 40) -> Examples:
    """Preferences for what ends with zzz; to be imitated, the preferred ones alone."""
    found = preferences(write_dataset(project, letter_rows(pairs)), trunk, 512)
    return found if name == "dpo" else Examples([_best(one) for one in found.train], [_best(one) for one in found.held_out], 0)


def _best(example: Example) -> Example:
    return example._replace(responses=(example.responses[0 if example.target > 0.5 else 1],), target=1.0)


def learner_for(trunk: Trunk, examples: Examples, name: str, **changes: Any) -> OfflineLearner:
    learner = OfflineLearner(trunk, settings_for(name, **changes), examples.train, seed=0)
    learner.start(NOWHERE, "base")
    return learner


# ---- what is learned ----


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_it_learns_what_it_is_told(project: Project, trunk: Trunk, name: str) -> None:
    examples = examples_for(project, trunk, name)
    learner = learner_for(trunk, examples, name, epochs=6, lr=1e-2)
    before = learner.through(examples.held_out, learn=False)
    for _ in range(learner.updates):
        learner.update()
    after = learner.through(examples.held_out, learn=False)
    assert after["policy/loss"] < 0.8 * before["policy/loss"]
    if name == "dpo":
        assert after["policy/accuracy"] > 0.9
        assert after["policy/margin"] > 0.2
        assert after["policy/chosen_reward"] > after["policy/rejected_reward"]
    trunk.drop_adapter("policy")


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_before_it_learns_the_policy_is_the_reference(project: Project, trunk: Trunk, loss: str) -> None:
    examples = examples_for(project, trunk, "dpo")
    learner = learner_for(trunk, examples, "dpo", loss=loss, beta=0.1)
    seen = learner.through(examples.train, learn=False)
    assert seen["policy/loss"] == pytest.approx(math.log(2) if loss == "sigmoid" else 25, rel=1e-4)
    assert seen["policy/margin"] == pytest.approx(0, abs=1e-4)
    trunk.drop_adapter("policy")


@pytest.mark.parametrize("name", OFFLINE)
def test_the_tokens_in_memory_change_speed_and_memory_alone(project: Project, trunk: Trunk, name: str) -> None:
    examples = examples_for(project, trunk, name)
    found = []
    for tokens in (1, 100, 4096):
        learner = learner_for(trunk, examples, name, row_tokens=tokens, lr=3e-4)
        for _ in range(3):
            learner.update()
        found.append(({key: value.clone() for key, value in trunk.adapter_state("policy").items()}, learner.rows))
        trunk.drop_adapter("policy")
    (expected, rows), *others = found
    for weights, other_rows in others:
        assert all((weights[key] - expected[key]).abs().max() <= 1e-6 for key in expected)
        for one, other in zip(rows, other_rows, strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-5)


def test_a_weight_of_two_is_an_example_twice(project: Project, trunk: Trunk) -> None:
    first, second = examples_for(project, trunk, "dpo").train[:2]
    losses = []
    for examples in ([first._replace(weight=2.0), second], [first, first, second]):
        learner = learner_for(trunk, Examples(examples, [], 0), "dpo")
        learner.update()
        losses.append(learner.through([first, second], learn=False)["policy/loss"])
        trunk.drop_adapter("policy")
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_label_that_is_turned_round_turns_the_pair(project: Project, trunk: Trunk) -> None:
    one = examples_for(project, trunk, "dpo").train[0]
    turned = one._replace(responses=one.responses[::-1], target=1 - one.target)
    rows = []
    for example in (one, turned):
        learner = learner_for(trunk, Examples([example], [], 0), "dpo")
        learner.update()
        rows.append(learner.through([example], learn=False))
        trunk.drop_adapter("policy")
    assert rows[0] == pytest.approx(rows[1], rel=1e-4, abs=1e-6)
    assert rows[0]["policy/margin"] > 0


# ---- how it is cut up ----


def test_every_epoch_has_every_prompt_once_in_an_order_of_its_own() -> None:
    steps = plan({"a": 3, "b": 1, "c": 1, "d": 4}, settings_for("dpo", epochs=2, batch=4), seed=1)
    names = [prompt for step in steps for prompt in step]
    assert sorted(names[:4]) == sorted(names[4:]) == ["a", "b", "c", "d"]
    assert all(step for step in steps)
    assert plan({"a": 3, "b": 1}, settings_for("dpo", batch=4), seed=1) != [] == plan({}, settings_for("dpo"), seed=1)


def test_a_prompt_stays_together_and_is_read_once(trunk: Trunk) -> None:
    examples = [Example("p", (5, 6), ((7, 8), (9,))), Example("q", (10,), ((11, 12, 13), (7,))), Example("p", (5, 6), ((9,), (14, 15)))]
    parts = list(in_memory(examples, 1))
    assert sorted([one.prompt_id for one in part] for part in parts) == [["p", "p"], ["q"]]
    together = logprobs_of(trunk, examples, rows_of(trunk, examples), None)
    for example, own in zip(examples, together, strict=True):
        for response, found in zip(example.responses, own, strict=True):
            by_itself = [example._replace(responses=(response,))]
            ((alone,),) = logprobs_of(trunk, by_itself, rows_of(trunk, by_itself), None)
            assert torch.allclose(found, alone, atol=1e-5)
    assert torch.allclose(together[0][1], together[2][0], atol=0)


# ---- what there is to learn from ----


def test_preferences_keep_what_people_said(project: Project, trunk: Trunk) -> None:
    rows = [
        row("a?", "one", "two", 0.9, weight=0.5),
        row("b?", "one", "two", 0.5),
        row("c?", "one", "two", 0.2, split="held-out"),
        row("d?", "x" * 600, "y", 1.0),
    ]
    found = preferences(write_dataset(project, rows), trunk, 200)
    (train,), (held_out,) = found.train, found.held_out
    assert (train.target, train.weight, held_out.target, found.too_long) == (0.9, 0.5, 0.2, 1)
    assert train.responses == (tuple(trunk.response_ids("one")), tuple(trunk.response_ids("two")))
    assert train.prompt == tuple(trunk.prompt_ids([{"role": "user", "content": "a?"}]))


def test_what_people_wrote_is_read_as_the_model_reads_it(trunk: Trunk) -> None:
    turns = [{"role": "user", "content": "a?"}]
    written = [("a", "train", turns, "mine"), ("b", "held-out", turns, "held out"), ("c", "train", turns, "long" * 300)]
    found = to_imitate(written, trunk, 512)
    (train,), (held_out,) = found.train, found.held_out
    assert (train.prompt, train.responses) == (tuple(trunk.prompt_ids(turns)), (tuple(trunk.response_ids("mine")),))
    assert (held_out.prompt_id, found.too_long) == ("b", 1)


# ---- the stage ----


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_run_that_was_interrupted_ends_as_an_unbroken_one(project: Project, tmp_path: Path, trunk: Trunk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_for(project, trunk, name)

    def run(into: Project) -> Any:
        return imitate(into, settings_for(name), examples, trunk=trunk, dataset_id=None, parent="base", seed=1)

    whole = run(open_project(create_project(tmp_path / "whole", settings="")))
    real = OfflineLearner.update

    def stopping(self: OfflineLearner) -> None:
        if self.done == 3:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(OfflineLearner, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(project)
    assert not trunk.has_adapter("policy")
    monkeypatch.setattr(OfflineLearner, "update", real)
    found = run(project)
    assert found.id == whole.id
    rows = [json.loads(line) for line in (found.path / "metrics.jsonl").read_text().splitlines()]
    assert [one["update"] for one in rows] == [float(n) for n in range(1, len(rows) + 1)]
    assert found.facts["policy/loss"] == rows[-1]["policy/loss"]
    assert run(project).id == found.id


@pytest.mark.parametrize("name", OFFLINE)
def test_without_examples_it_says_what_to_do(project: Project, trunk: Trunk, name: str) -> None:
    with pytest.raises(UserError, match=r"nothing to learn from: no example on a train prompt \(2 are longer"):
        imitate(project, settings_for(name), Examples([], [], 2), trunk=trunk, dataset_id=None, parent="base", seed=1)
