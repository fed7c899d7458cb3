"""The loop: exact ratios, the same result however it is cut up or cut short, a base that stays as it is, and an artifact that holds what it says."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select
from torch import Tensor

from policy.killed import policies
from truing.artifacts import load_artifact
from truing.errors import SettingError, UserError
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Trunk, open_trunk
from truing.policy.algorithms import ONLINE
from truing.policy.learner import CURVE_POINTS
from truing.policy.online import OnlineLearner
from truing.policy.record import run_folder
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Run
from tuning import PROMPTS, learner_for, settings_for, share_of_third_tokens, tune

pytestmark = pytest.mark.slow

REMAINING = "no adapter is left on the trunk"


def trained(trunk: Trunk, name: str, *, updates: int = 2, **changes: Any) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The rows of a few updates and the adapter after them; the trunk is as it was."""
    learner = learner_for(trunk, settings_for(name, **changes))
    for _ in range(updates):
        learner.update()
    weights = {key: value.clone() for key, value in trunk.adapter_state("policy").items()}
    trunk.drop_adapter("policy")
    return learner.rows, weights


def fails_after(updates: int, error: Exception | KeyboardInterrupt) -> Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[float]]:
    """A reward that gives out in the update after that many."""
    calls = 0

    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls > updates:
            raise error
        return share_of_third_tokens(prompts, responses)

    return score


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# The arithmetic of an update ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("layers", ["all", "top-half"])
def test_the_first_ratio_is_exactly_one(trunk: Trunk, name: str, minibatches: int, layers: str) -> None:
    rows, _ = trained(trunk, name, updates=3, minibatches=minibatches, layers=layers, microbatch=3)
    assert [row["policy/first_ratio_error"] for row in rows] == [0.0, 0.0, 0.0]
    assert all(row["policy/max_ratio"] > 1 for row in rows) or (name == "reinforce" and minibatches == 1), "and it moves within the update"
    assert rows[0]["objective/kl"] == 0.0
    assert rows[2]["objective/kl"] != 0.0
    assert max(row["policy/sampling_gap"] for row in rows) < 1e-9, "what draws is what learns"


def test_a_policy_that_draws_in_bf16_is_told_from_the_one_that_learns(tiny_model: Path) -> None:
    """The adapter is rounded into the weights it is drawn with; the first ratio, of two passes that learn, can't see that."""
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="bf16"))
    rows, _ = trained(trunk, "rloo", updates=3, lr=3e-2)
    assert [row["policy/first_ratio_error"] for row in rows] == [0.0, 0.0, 0.0]
    assert 1e-6 < rows[2]["policy/sampling_gap"] < 0.1


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_size_of_a_microbatch_changes_speed_and_memory_alone(trunk: Trunk, name: str, minibatches: int) -> None:
    rows, expected = trained(trunk, name, microbatch=8, minibatches=minibatches, lr=3e-4)
    start = learner_for(trunk, settings_for(name))
    moved = max(float((expected[key] - value).abs().max()) for key, value in start.trunk.adapter_state("policy").items())
    trunk.drop_adapter("policy")
    assert moved > 1e-4
    for microbatch in (1, 2):
        other_rows, found = trained(trunk, name, microbatch=microbatch, minibatches=minibatches, lr=3e-4)
        assert all((found[key] - expected[key]).abs().max() <= 1e-6 for key in expected)
        for row, other in zip(rows, other_rows, strict=True):
            assert other == pytest.approx(row, rel=1e-3, abs=1e-5)


def test_minibatches_are_steps_of_their_own(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[list[int]] = []
    real = OnlineLearner._step

    def counted(self: OnlineLearner, rollout: Any, targets: Any, parts: list[int]) -> dict[str, float]:
        steps.append(parts)
        return real(self, rollout, targets, parts)

    monkeypatch.setattr(OnlineLearner, "_step", counted)
    trained(trunk, "rloo", updates=1, minibatches=2, epochs=3, microbatch=2, max_kl_old=100.0)
    assert len(steps) == 6
    for epoch in range(3):
        assert sorted(number for parts in steps[2 * epoch : 2 * epoch + 2] for number in parts) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ONLINE)
def test_an_update_stops_early_once_it_has_gone_too_far(trunk: Trunk, name: str) -> None:
    """A huge step; then the answers' KL(old || new) passes the limit, and that step is not taken."""
    rows, weights = trained(trunk, name, updates=1, lr=0.05, epochs=8, max_kl_old=0.01)
    assert rows[0]["policy/kl_old"] > 0.01
    assert rows[0]["policy/skipped_steps"] == 1
    _, one_step = trained(trunk, name, updates=1, lr=0.05, epochs=1)
    assert all(torch.equal(weights[key], one_step[key]) for key in weights)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_refused_and_the_policy_stays(trunk: Trunk, number: float) -> None:
    learner = learner_for(trunk, settings_for("rloo"))
    learner.update()
    before = {name: value.clone() for name, value in trunk.adapter_state("policy").items()}
    for parameter in trunk.adapter_parameters("policy"):
        parameter.grad = torch.full_like(parameter, number)
    with pytest.raises(UserError, match="gradient of update 2 is not a finite number"):
        learner.take_step()
    assert all(torch.equal(value, before[name]) for name, value in trunk.adapter_state("policy").items())


def test_the_learning_rate_falls_linearly_to_zero(trunk: Trunk) -> None:
    rows, _ = trained(trunk, "rloo", updates=4, lr=0.004)
    assert [row["policy/lr"] for row in rows] == pytest.approx([0.004, 0.003, 0.002, 0.001])


def test_while_the_critic_warms_up_the_adapter_stays(trunk: Trunk) -> None:
    learner = learner_for(trunk, settings_for("ppo", critic_warmup=2))
    assert learner.head is not None
    start = {key: value.clone() for key, value in trunk.adapter_state("policy").items()}
    head = learner.head.weight.detach().clone()
    for update in range(3):
        learner.update()
        assert not torch.equal(learner.head.weight, head)
        same = all(torch.equal(value, start[key]) for key, value in trunk.adapter_state("policy").items())
        assert same == (update < 2)
    assert [row["objective/kl"] == 0 for row in learner.rows] == [True, True, True], "the third update's answers are drawn before it learns"


def test_each_prompt_has_its_turn_before_any_has_a_second(trunk: Trunk) -> None:
    learner = learner_for(trunk, settings_for("rloo", samples=6, group_size=2))
    places = [place for update in range(4) for place in learner.chosen_prompts(update)]
    assert places[::2] == places[1::2], "siblings stand together"
    order = places[::2]
    assert len(order) == 12
    assert [sorted(order[turn : turn + 4]) for turn in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert order[:4] != order[4:8] or order[4:8] != order[8:], "in another order each time"
    assert learner.chosen_prompts(2) == places[12:18], "an update's prompts follow from its number alone"


def test_curves_end_at_the_newest_update_however_long_they_are(trunk: Trunk) -> None:
    learner = learner_for(trunk, settings_for("ppo"))
    trunk.drop_adapter("policy")
    for updates in (1, 199, 200, 201, 1000):
        learner.rows = [{"objective/scores": float(update), "objective/kl": update / 10} for update in range(updates)]
        scores, kl = learner.curves().values()
        assert len(scores) == len(kl) <= CURVE_POINTS
        assert scores[-1] == updates - 1
        assert kl[-1] == pytest.approx((updates - 1) / 10)
        assert scores == sorted(scores)
        assert len(scores) == min(updates, len(scores)) >= min(updates, CURVE_POINTS // 2)


def test_every_update_draws_anew(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[list[int]]] = []

    def noted(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        drawn.append(sorted(list(response) for response in responses))
        return share_of_third_tokens(prompts, responses)

    learner = learner_for(trunk, settings_for("rloo", lr=1e-9), score=noted)  # all but the same policy
    monkeypatch.setattr(learner, "chosen_prompts", lambda update: [0] * 8)  # and the same prompt throughout
    learner.update()
    learner.update()
    assert drawn[0] != drawn[1]
    assert len({tuple(response) for response in drawn[0]}) > 4, "and siblings differ"


def test_scores_over_the_clip_are_counted_and_held(trunk: Trunk) -> None:
    def wild(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [50.0] * 2 + [1.0] * (len(responses) - 2)

    learner = learner_for(trunk, settings_for("rloo", score_clip=5.0, beta=0.0), score=wild)
    learner.update()
    assert learner.rows[0]["objective/score_clipped"] == 0.25
    assert learner.rows[0]["objective/scores"] == pytest.approx((2 * 50 + 6) / 8)
    assert learner.rows[0]["objective/reward"] == pytest.approx((2 * 5 + 6) / 8)


# KL ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "grows"), [(1e-6, True), (1e6, False)])
def test_an_adaptive_beta_follows_its_target(trunk: Trunk, target: float, grows: bool) -> None:
    """8 answers and a horizon of 80: a tenth of the largest error, 1/5, so 2 % an update."""
    rows, _ = trained(trunk, "rloo", updates=4, kl_target_nats=target, kl_horizon=80, lr=1e-2)
    betas = [row["objective/beta"] for row in rows]
    assert betas[:2] == pytest.approx([0.05, 0.05 * 0.98]), "the first update's KL is 0"
    assert rows[2]["objective/kl"] > 0
    assert betas[3] == pytest.approx(betas[2] * (1.02 if grows else 0.98))
    assert {row["objective/kl_target"] for row in rows} == {target}


def test_a_fixed_beta_stays(trunk: Trunk) -> None:
    rows, _ = trained(trunk, "rloo", updates=3)
    assert {row["objective/beta"] for row in rows} == {0.05}
    assert all("objective/kl_target" not in row for row in rows)


def test_an_adaptive_beta_holds_the_policy_near_its_target(trunk: Trunk) -> None:
    """Left alone, this run goes past two nats; steered to half a nat, it stays within it, give or take the noise of a batch."""
    common: dict[str, Any] = {"updates": 24, "samples": 32, "group_size": 4, "microbatch": 32, "lr": 2e-2}
    ends = {}
    for target in (None, 0.5):
        steering = {"beta": 0.0} if target is None else {"beta": 0.2, "kl_target_nats": target, "kl_horizon": 32}
        learner = learner_for(trunk, settings_for("rloo", **common, **steering), max_new_tokens=1)
        for _ in range(24):
            learner.update()
        trunk.drop_adapter("policy")
        ends[target] = sum(row["objective/kl"] for row in learner.rows[-8:]) / 8
    assert ends[None] > 1.5
    assert 0.1 < ends[0.5] < 1.0


# The stage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONLINE)
def test_the_artifact_holds_what_it_says(project: Project, trunk: Trunk, name: str) -> None:
    before = Trunk("again", trunk.model, trunk.tokenizer).fingerprint
    artifact = tune(project, trunk, settings_for(name))
    assert not trunk.has_adapter("policy"), REMAINING
    assert Trunk("again", trunk.model, trunk.tokenizer).fingerprint == before, "the base's weights are the same bits"
    assert load_artifact(project.artifacts, artifact.id).kind == "policy"
    assert artifact.parents == ["reward-0123456789abcdef"]
    rows = jsonl(artifact.path / "metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert all(isinstance(value, float) for row in rows for value in row.values())
    assert any(key.startswith("value/") for key in rows[0]) == ONLINE[name].NEEDS_VALUES
    assert (artifact.path / "value_head.safetensors").exists() == ONLINE[name].NEEDS_VALUES
    samples = jsonl(artifact.path / "samples.jsonl")
    assert [row["update"] for row in samples] == [update for update in (1, 2, 3, 4) for _ in range(5)]
    assert {row["prompt_id"] for row in samples} <= PROMPTS.keys()
    assert json.loads((artifact.path / "diagnosis.json").read_text()) == artifact.facts["diagnosis"]
    assert artifact.facts["updates"] == 4
    assert artifact.facts["objective/kl"] == rows[-1]["objective/kl"]
    assert not list((project.root / "runs").iterdir()), "the checkpoints are gone"
    trunk.load_adapter("loaded", artifact.path / "adapter")
    batch = collate([[5, 6, 7]], [[8, 9]], trunk.pad_id)
    with torch.no_grad(), trunk.using("loaded"):
        tuned = trunk.hidden(batch)
    assert not torch.equal(trunk.hidden(batch), tuned)


def test_the_same_inputs_are_answered_from_the_artifact(project: Project, trunk: Trunk) -> None:
    first = tune(project, trunk, settings_for("rloo"))
    again = tune(project, trunk, settings_for("rloo"), score=fails_after(0, AssertionError("nothing is drawn or scored again")))
    assert again.id == first.id
    assert tune(project, trunk, settings_for("rloo"), seed=1).id != first.id
    assert tune(project, trunk, settings_for("rloo", beta=0.06)).id != first.id


def test_what_a_kill_after_the_end_left_goes_when_the_command_is_given_again(project: Project, trunk: Trunk) -> None:
    tune(project, trunk, settings_for("rloo", updates=1))
    with project.database.read() as session:
        left = run_folder(project, session.scalars(select(Run)).one().key)
    assert not left.exists()
    left.mkdir(parents=True)
    tune(project, trunk, settings_for("rloo", updates=1))
    assert not left.exists()


@pytest.mark.parametrize("name", ONLINE)
def test_the_same_inputs_give_the_same_artifact_elsewhere(project: Project, tmp_path: Path, tiny_model: Path, name: str) -> None:
    ids = set()
    for seed, place in enumerate(("one", "two")):
        torch.manual_seed(seed)  # nothing reads the global state
        other = open_project(create_project(tmp_path / place, settings=""))
        ids.add(tune(other, open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), settings_for(name)).id)
    assert len(ids) == 1


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("error", [RuntimeError("the reward model fell over"), KeyboardInterrupt()])
def test_a_run_that_was_interrupted_ends_as_an_unbroken_one(project: Project, tmp_path: Path, trunk: Trunk, name: str, error: Any) -> None:
    settings = settings_for(name, kl_target_nats=1.0, kl_horizon=50, critic_warmup=1) if name == "ppo" else settings_for(name)
    whole = tune(open_project(create_project(tmp_path / "whole", settings="")), trunk, settings)
    with pytest.raises(type(error)):
        tune(project, trunk, settings, score=fails_after(2, error))
    assert not trunk.has_adapter("policy"), REMAINING
    calls = []

    def counted(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        calls.append(len(responses))
        return share_of_third_tokens(prompts, responses)

    assert tune(project, trunk, settings, score=counted).id == whole.id
    assert len(calls) == 2, "updates 3 and 4 alone"


def test_force_begins_again(project: Project, trunk: Trunk) -> None:
    first = tune(project, trunk, settings_for("rloo"))
    with pytest.raises(RuntimeError):
        tune(project, trunk, settings_for("rloo", beta=0.1), score=fails_after(2, RuntimeError()))
    forced = open_project(project.root, force=True)
    with pytest.raises(AssertionError, match="all four"):
        tune(forced, trunk, settings_for("rloo", beta=0.1), score=fails_after(3, AssertionError("all four updates are made again, not the last two")))
    assert tune(forced, trunk, settings_for("rloo")).id == first.id


@pytest.mark.parametrize("name", ONLINE)
def test_a_policy_is_tuned_further(project: Project, trunk: Trunk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune(project, trunk, settings_for(name))
    started: dict[str, Any] = {}
    real = OnlineLearner.start

    def start(self: OnlineLearner, artifacts: Path, parent: str) -> None:
        real(self, artifacts, parent)
        started["head"] = None if self.head is None else self.head.weight.detach().clone()
        started["adapter"] = [value.detach().clone() for value in self.trunk.adapter_parameters("policy")]

    monkeypatch.setattr(OnlineLearner, "start", start)
    second = tune(project, trunk, settings_for(name, updates=2), parent=first.id)
    saved = load_file(first.path / "adapter" / "adapter_model.safetensors")
    assert sorted(float(value.double().sum()) for value in started["adapter"]) == sorted(float(value.double().sum()) for value in saved.values())
    if ONLINE[name].NEEDS_VALUES:
        assert torch.equal(started["head"], load_file(first.path / "value_head.safetensors")["weight"])
    assert second.parents == sorted([first.id, "reward-0123456789abcdef"])
    rows = jsonl(second.path / "metrics.jsonl")
    assert rows[0]["objective/kl"] != 0, "the reference is the base, not the parent"
    assert rows[0]["policy/first_ratio_error"] == 0


@pytest.mark.parametrize(("change", "fix"), [({"rank": 3}, "tune.rank=2"), ({"layers": "top-half"}, "tune.layers=all")])
def test_a_policy_cannot_change_its_adapters_shape_on_the_way(project: Project, trunk: Trunk, change: dict[str, Any], fix: str) -> None:
    first = tune(project, trunk, settings_for("rloo", updates=1))
    with pytest.raises(SettingError) as caught:
        tune(project, trunk, settings_for("rloo", **change), parent=first.id)
    assert fix in caught.value.fix
    assert not trunk.has_adapter("policy"), REMAINING


# ---- every weight ----

FULL: dict[str, Any] = {"weights": "full", "lr": 1e-3}


@pytest.mark.parametrize("name", ["ppo", "rloo"])
@pytest.mark.parametrize("layers", ["all", "top-half"])
def test_every_weight_is_tuned_and_the_reference_stays(trunk: Trunk, name: str, layers: str) -> None:
    """The ratio of the first step is 1, and the size of a microbatch changes nothing."""
    prompt = trunk.rows([[5, 6, 7]], [[8]])
    before = trunk.hidden(prompt)
    rows, weights = trained(trunk, name, updates=3, layers=layers, **FULL)
    assert [row["policy/first_ratio_error"] for row in rows] == [0.0, 0.0, 0.0]
    assert rows[0]["objective/kl"] == 0.0
    assert rows[2]["objective/kl"] != 0.0
    assert torch.equal(trunk.hidden(prompt), before)
    _, others = trained(trunk, name, updates=3, layers=layers, microbatch=2, **FULL)
    assert all((others[key] - weights[key]).abs().max() < 1e-4 for key in weights)


def test_with_every_weight_it_goes_on_from_its_artifact(project: Project, trunk: Trunk) -> None:
    first = tune(project, trunk, settings_for("ppo", updates=4, **FULL))
    second = tune(project, trunk, settings_for("ppo", updates=1, **FULL), parent=first.id)
    row, = jsonl(second.path / "metrics.jsonl")  # fmt: skip
    assert row["objective/kl"] != 0, "the reference is the base, not the parent"
    assert row["policy/first_ratio_error"] == 0
    assert not trunk.has_adapter("policy"), REMAINING
    with pytest.raises(SettingError) as caught:
        tune(project, trunk, settings_for("ppo", updates=1), parent=first.id)
    assert "tune.weights=full" in caught.value.fix


# ---- watched ----


def fewer_tokens(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """A reward under which silence is best."""
    return [-float(len(response)) for response in responses]


@pytest.mark.parametrize("killed_at", [None, 4])
def test_a_watched_run_stops_and_goes_back_to_its_best(project: Project, trunk: Trunk, killed_at: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"updates": 60, "samples": 16, "lr": 3e-2, "beta": 0.0, "epochs": 4, "max_kl_old": 10.0, "watch": True}
    if killed_at is not None:
        real = OnlineLearner.update

        def update(self: OnlineLearner) -> None:
            if self.done == killed_at:
                monkeypatch.setattr(OnlineLearner, "update", real)
                raise KeyboardInterrupt
            real(self)

        monkeypatch.setattr(OnlineLearner, "update", update)
        with pytest.raises(KeyboardInterrupt):
            tune(project, trunk, settings_for("rloo", **changes), score=fewer_tokens, max_new_tokens=24)
    artifact = tune(project, trunk, settings_for("rloo", **changes), score=fewer_tokens, max_new_tokens=24)
    stopped, kept = artifact.facts["stopped"], artifact.facts["updates"]
    rows = jsonl(artifact.path / "metrics.jsonl")
    assert stopped == {"failure": "KL blow-up", "after": len(rows)}
    assert 0 < kept < len(rows) < 60
    assert artifact.facts["response/length"] == rows[kept - 1]["response/length"]
    learner = learner_for(trunk, settings_for("rloo", **changes), score=fewer_tokens, max_new_tokens=24)
    for _ in range(kept):
        learner.update()
    trunk.save_adapter("policy", project.root / "expected")
    learner.close()
    assert (artifact.path / "adapter" / "adapter_model.safetensors").read_bytes() == (project.root / "expected" / "adapter_model.safetensors").read_bytes()


def test_an_unwatched_run_goes_on(project: Project, trunk: Trunk) -> None:
    changes: dict[str, Any] = {"updates": 10, "samples": 16, "lr": 3e-2, "beta": 0.0, "epochs": 4, "max_kl_old": 10.0}
    artifact = tune(project, trunk, settings_for("rloo", **changes), score=fewer_tokens, max_new_tokens=24)
    assert [found["failure"] for found in artifact.facts["diagnosis"]] == ["KL blow-up"]
    assert artifact.facts["updates"] == 10
    assert "stopped" not in artifact.facts


# ---- killed ----


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path, tiny_model: Path, algorithm: str) -> None:
    """kill -9, then the same command: the same artifact. `benchmarks/policy_kills.py` does it fifty times."""
    found, moments = policies(tmp_path, tiny_model, algorithm, 4)
    assert len(found) >= 2, "the unbroken one, and the last try at least"
    assert set(found) == {found[0]}, f"killed after {moments} s"
