"""Several objectives in one reward model: the sum and the price by hand, bounds that go through, parts of any kind, and the parts as parents."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward.classifiers import make_classifier
from reward.letters import letter_rows, write_dataset
from truing.artifacts import Artifact
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card.page import write_page
from truing.reward.card.stage import make_card, read_card
from truing.reward.eval_files import _fitted
from truing.reward.objectives.model import CombinedModel, open_parts
from truing.reward.objectives.stage import combine_reward_models, nats_of
from truing.reward.objectives.weighing import Floor, Objective, parse_floor, parse_objective, require_sound, weighed
from truing.reward.outside.source import Function, parse
from truing.reward.outside.stage import use_reward_model
from truing.reward.score import Answer, load_reward_model, load_trained_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project, create_project, open_project

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

ASKED = [{"role": "user", "content": "a song?"}]
ANSWERS = [Answer(ASKED, text) for text in ("bird zzz", "www", "a long tree and a lake zzz", "moon", "")]
LENGTH = "def brief(prompt, responses): return [-float(len(r)) for r in responses]\n"


# ---- arithmetic ----


def test_a_weighted_sum_and_a_price_by_hand() -> None:
    scores = {"helpful": torch.tensor([1.0, 2.0, 0.0]), "harmless": torch.tensor([0.5, -1.5, -0.5])}
    objectives = [Objective("helpful", "reward-a", 2.0), Objective("harmless", "reward-b", 1.0)]
    assert weighed(scores, objectives, []).tolist() == [2.5, 2.5, -0.5]
    # under -0.5 by 1 in the second answer alone, at a price of 4
    assert weighed(scores, objectives, [Floor("harmless", -0.5, 4.0)]).tolist() == [2.5, -1.5, -0.5]


numbers = st.floats(-5, 5)


@given(st.tuples(numbers, numbers), st.tuples(st.floats(0, 3), st.floats(0, 3)), numbers, st.floats(0.1, 9), st.tuples(st.floats(0, 5), st.floats(0, 5)))
def test_it_never_falls_when_a_part_rises(
    scores: tuple[float, float], weights: tuple[float, float], threshold: float, price: float, rise: tuple[float, float]
) -> None:
    objectives = [Objective(name, "reward-a", weight) for name, weight in zip("ab", weights, strict=True)]
    before, after = (
        weighed(
            {name: torch.tensor([value], dtype=torch.float64) for name, value in zip("ab", values, strict=True)}, objectives, [Floor("b", threshold, price)]
        )
        for values in (scores, [one + more for one, more in zip(scores, rise, strict=True)])
    )
    assert after.item() >= before.item() - 1e-9


# ---- what is typed ----


def test_an_objective_as_it_is_typed() -> None:
    assert parse_objective("helpful=reward-0123456789abcdef") == Objective("helpful", "reward-0123456789abcdef", 1.0)
    assert parse_objective("so-so_2=reward-0123456789abcdef:0.25") == Objective("so-so_2", "reward-0123456789abcdef", 0.25)
    assert parse_floor("harmless:-0.5:4") == Floor("harmless", -0.5, 4.0)


@pytest.mark.parametrize(
    "words", ["helpful", "=reward-a", "helpful=", "Helpful=reward-a", "a b=reward-a", "a=reward-a:", "a=reward-a:x", "a=reward-a:-1", "a=r:nan"]
)
def test_an_objective_of_another_form_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form NAME=ARTIFACT:WEIGHT"):
        parse_objective(words)


@pytest.mark.parametrize("words", ["a", "a:1", "a:1:0", "a:1:-2", "a:x:1", "a:1:inf", "a:1:1:1"])
def test_a_floor_of_another_form_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form NAME:THRESHOLD:PRICE"):
        parse_floor(words)


A, B = Objective("a", "reward-a", 1.0), Objective("b", "reward-b", 0.0)


@pytest.mark.parametrize(
    ("objectives", "floors", "told"),
    [
        ([A, A], [], "two objectives are called a"),
        ([A], [], "a single objective"),
        ([B, B._replace(name="c")], [], "no objective has a weight above 0"),
        ([A, B], [Floor("c", 0.0, 1.0)], "--at-least is about c, and no objective is called so"),
    ],
)
def test_what_makes_no_score_is_refused(objectives: list[Objective], floors: list[Floor], told: str) -> None:
    with pytest.raises(UserError, match=told):
        require_sound(objectives, floors)


def test_one_objective_with_a_floor_is_enough() -> None:
    require_sound([A], [Floor("a", 0.0, 1.0)])


# ---- models ----


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return open_project(create_project(tmp_path_factory.mktemp("objectives") / "p", settings=""))


@pytest.fixture(scope="module")
def dataset(shared: Project) -> Artifact:
    return write_dataset(shared, letter_rows(60))


@pytest.fixture(scope="module")
def objectives(shared: Project, trunk: Trunk, dataset: Artifact, tmp_path_factory: pytest.TempPathFactory) -> list[Objective]:
    """An ensemble on frozen features, an ensemble that has an adapter, a model of somebody's and a function."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "brief.py").write_text(LENGTH)
    adapter = RewardSettings(head="adapter", members=2, trunk_epochs=1, batch_pairs=8, adapter_learning_rate=1e-2, max_tokens=64)
    made = {
        "kind": train_reward_model(shared, RewardSettings(readings=("last@1.0", "mean@1.0"), members=3, l2=0.1), dataset.id, trunk, seed=1),
        "clear": train_reward_model(shared, adapter, dataset.id, trunk, seed=2),
        "theirs": use_reward_model(shared, parse(str(make_classifier(folder / "m"))), trunk, dataset_id=dataset.id, seed=1),
        "brief": use_reward_model(shared, Function(folder / "brief.py", "brief"), trunk, dataset_id=dataset.id, seed=1),
    }
    return [Objective(name, artifact.id, weight) for (name, artifact), weight in zip(made.items(), (1.0, 0.5, 0.25, 0.0), strict=True)]


FLOORS = [Floor("brief", -0.5, 2.0), Floor("kind", 0.0, 1.0)]


@pytest.fixture(scope="module")
def combined(shared: Project, trunk: Trunk, dataset: Artifact, objectives: list[Objective]) -> Artifact:
    return combine_reward_models(shared, objectives, FLOORS, trunk, dataset_id=dataset.id, seed=1)


def test_it_says_what_its_parts_come_to(shared: Project, trunk: Trunk, objectives: list[Objective], combined: Artifact) -> None:
    assert combined.parents == sorted([*(one.reward for one in objectives), *(parent for parent in combined.parents if parent.startswith("dataset-"))])
    parts = {one.name: torch.tensor(load_reward_model(shared, one.reward, trunk).score_answers(ANSWERS)[0]).double() for one in objectives}
    by_hand = parts["kind"] + 0.5 * parts["clear"] + 0.25 * parts["theirs"] - 2 * (-0.5 - parts["brief"]).clamp(min=0) - (-parts["kind"]).clamp(min=0)
    model = load_reward_model(shared, combined.id, trunk)
    expected = ((by_hand - combined.facts["mean"]) / combined.facts["std"]).tolist()
    assert model.score_answers(ANSWERS)[0] == pytest.approx(expected, abs=1e-5)
    assert model.score_answers(ANSWERS[::-1])[0][::-1] == pytest.approx(expected, abs=1e-5)
    assert [model.score_answers([answer])[0][0] for answer in ANSWERS] == pytest.approx(expected, abs=1e-5)
    model.close()
    assert not any(trunk.has_adapter(one.reward) for one in objectives)


def test_scores_have_mean_0_and_deviation_1_on_what_the_parts_were_normalised_on(shared: Project, trunk: Trunk, combined: Artifact) -> None:
    rows = [one for one in letter_rows(60) if one["split"] == "train"]
    sides = {one[side]["sample_id"]: Answer(one["turns"], one[side]["text"]) for one in rows for side in ("a", "b")}
    scores = torch.tensor(load_reward_model(shared, combined.id, trunk).score_answers(list(sides.values()))[0])
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_bounds_of_the_parts_give_bounds_of_the_whole(shared: Project, trunk: Trunk, objectives: list[Objective], combined: Artifact) -> None:
    facts = combined.facts
    means, stds = load_reward_model(shared, combined.id, trunk).score_answers(ANSWERS)
    for by in ("lower", "worst"):
        parts = {one.name: torch.tensor(load_reward_model(shared, one.reward, trunk, by=by).score_answers(ANSWERS)[0]).double() for one in objectives}
        found, doubts = load_reward_model(shared, combined.id, trunk, by=by).score_answers(ANSWERS)
        assert found == pytest.approx(((weighed(parts, objectives, FLOORS) - facts["mean"]) / facts["std"]).tolist(), abs=1e-5)
        assert all(one < mean for one, mean in zip(found, means, strict=True))
        assert doubts == stds
    lower = load_reward_model(shared, combined.id, trunk, by="lower").score_answers(ANSWERS)[0]
    assert lower == pytest.approx([mean - std for mean, std in zip(means, stds, strict=True)], abs=1e-6)


def test_each_objective_is_told_beside_the_score(shared: Project, trunk: Trunk, objectives: list[Objective]) -> None:
    trained = [one for one in objectives if one.name in ("kind", "clear")]  # which need no prompt of the store
    model = CombinedModel("reward-of-two", open_parts(shared, trained, trunk), trained, [], by="lower")
    prompts, responses = [trunk.prompt_ids(ASKED)] * 2, [trunk.response_ids(text) for text in ("bird zzz", "www")]
    scores, doubts, each = model.score_objectives(prompts, responses)
    assert (scores, doubts) == model.score_with_std(prompts, responses)
    assert list(each) == ["kind", "clear"]
    assert scores == pytest.approx([kind + 0.5 * clear for kind, clear in zip(each["kind"], each["clear"], strict=True)])
    assert each["kind"] == pytest.approx(load_reward_model(shared, trained[0].reward, trunk, by="lower").score(prompts, responses), abs=1e-6)
    model.close()


def test_its_unit_is_the_parts_own(shared: Project, trunk: Trunk, objectives: list[Objective], combined: Artifact) -> None:
    """A part twice, with weights 1 and 3, is that part: chances don't change. With parts that learned nothing here, the unit is fitted."""
    kind = objectives[0]._replace(weight=1.0)
    twice = [kind, kind._replace(name="again", weight=3.0)]
    whole = combine_reward_models(shared, twice, [], trunk, dataset_id=combined.parents[0], seed=1)
    own = load_trained_model(shared, kind.reward, trunk)
    assert whole.facts["nats"] == pytest.approx(own.nats, rel=1e-5)
    assert load_reward_model(shared, whole.id, trunk).score_answers(ANSWERS)[0] == pytest.approx(own.score_answers(ANSWERS)[0], abs=1e-4)
    outside = [one for one in objectives if one.name in ("theirs", "brief")]
    assert nats_of(outside, open_parts(shared, outside, trunk)) is None
    mixed = [kind, outside[1]._replace(weight=1.0)]
    parts = open_parts(shared, mixed, trunk)
    assert parts["brief"].nats is not None
    assert own.nats is not None
    assert nats_of(mixed, parts) == pytest.approx((own.nats + parts["brief"].nats) / 2 / 2)


def test_it_may_be_a_part_itself(shared: Project, trunk: Trunk, objectives: list[Objective], combined: Artifact) -> None:
    whole = combine_reward_models(shared, [Objective("all", combined.id, 1.0), objectives[0]], [], trunk, seed=1)
    assert load_reward_model(shared, whole.id, trunk).score_answers([]) == ([], [])
    assert len(load_reward_model(shared, whole.id, trunk).score_answers(ANSWERS)[0]) == len(ANSWERS)
    assert {parent for one in _fitted(shared, whole.id) for parent in one.parents} == {parent for parent in combined.parents if parent.startswith("dataset-")}


def test_it_is_measured_by_the_rules_of_every_card(shared: Project, combined: Artifact) -> None:
    facts = combined.facts
    assert facts["n_test"] == 18
    assert facts["accuracy"]["value"] is not None
    assert facts["members"] == 3
    assert facts["fitness"]["reasons"][0]["rule"] == "few"  # 18 held-out prompts
    assert math.isfinite(facts["nats"])


@pytest.mark.usefixtures("short_audits")
def test_its_card_says_what_its_parts_can_be_asked(shared: Project, trunk: Trunk, objectives: list[Objective]) -> None:
    some = [one._replace(weight=1.0) for one in objectives if one.name in ("kind", "brief")]
    dataset_id = write_dataset(shared, letter_rows(60)).id
    made = combine_reward_models(shared, some, FLOORS, trunk, dataset_id=dataset_id, seed=1)
    card = make_card(shared, made.id, trunk)
    assert all(row["largest"] < 1e-4 for row in read_card(card)["invariance"]["rows"][:3])
    assert "Not measured: its parts have ensembles of their own" in write_page(shared, card.id).read_text(encoding="utf-8")


def test_a_part_that_is_no_reward_model_is_refused(shared: Project, trunk: Trunk, dataset: Artifact, objectives: list[Objective]) -> None:
    with pytest.raises(UserError, match="is no reward model"):
        combine_reward_models(shared, [objectives[0], Objective("other", dataset.id, 1.0)], [], trunk, seed=1)
