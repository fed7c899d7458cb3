"""Training: it learns what can be learned, heeds weights, gives the same bits, goes on after a kill, and says what is missing."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

from reward.letters import letter_rows, row, said_of, write_dataset
from truing.artifacts import Artifact
from truing.errors import SettingError, UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward import train_trunk
from truing.reward.card.measure import reward_card
from truing.reward.card.stage import make_card
from truing.reward.card.table import card_rows
from truing.reward.features import FeatureCache, Item
from truing.reward.heads import LinearHead, load_head, normalisation
from truing.reward.lessons import PairLesson, require_said
from truing.reward.score import load_reward_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.reward.train_frozen import Frozen, past_the_best, solve_linear
from truing.reward.train_mlp import fit_mlp
from truing.reward.train_pairs import Pairs, bootstrap_weights, folds_by_prompt, tokenised
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Run

pytestmark = pytest.mark.slow

Make = Callable[[str], Project]
LINEAR = RewardSettings(readings=("last@1.0", "mean@1.0"), members=2)
MLP = RewardSettings(head="mlp", readings=("last@1.0", "mean@1.0"), members=2, units=8, learning_rate=1e-2, epochs=100)
ADAPTER = RewardSettings(
    head="adapter", members=2, trunk_epochs=3, batch_pairs=8, rank=4, adapter_learning_rate=5e-3, learning_rate=5e-2,
    check_every=4, checkpoint_every=2, patience=20,
)  # fmt: skip


FULL = ADAPTER.model_copy(update={"head": "full", "full_learning_rate": 3e-3})


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda name: open_project(create_project(tmp_path / name, settings=""))


def train(project: Project, trunk: Trunk, rows: list[dict[str, Any]], settings: RewardSettings, *, seed: int = 1) -> Artifact:
    return train_reward_model(project, settings, write_dataset(project, rows).id, trunk, seed=seed)


# ---- learning ----


@pytest.mark.parametrize("kinds", [["pair"], ["ranking"], ["rating"], ["thumbs"], ["pair", "ranking", "rating", "thumbs"]], ids=" ".join)
def test_a_taste_is_learned_from_every_kind_of_judgement_and_from_a_mixture(make: Make, trunk: Trunk, kinds: list[str]) -> None:
    project, rows = make("p"), letter_rows(120)
    said = [line for place, kind in enumerate(kinds) for line in said_of(rows[place :: len(kinds)], kind)]
    settings = RewardSettings(learn_from="judgements", readings=("last@1.0", "mean@1.0"), members=2, l2=None if kinds == ["pair"] else 0.1)
    made = train_reward_model(project, settings, write_dataset(project, rows, said).id, trunk, seed=1)
    assert made.facts["accuracy"]["value"] > 0.9
    surprise = made.facts["held_out_surprise"]
    assert sorted(surprise) == sorted(kinds)
    of_a_coin = {"pair": math.log(2), "ranking": math.log(2), "rating": math.log(2), "thumbs": math.log(2)}  # two ratings are in use
    assert all(found["nats"] < of_a_coin[kind] - 0.05 for kind, found in surprise.items())
    assert sum(found["n"] for found in surprise.values()) == sum(line["split"] == "held-out" for line in said)
    assert any("held-out" in question and "nats" in question for question, _, _ in card_rows(reward_card(project, made.id)))


def thumbs(prompts: int) -> list[dict[str, Any]]:
    """A thumb about one answer to each prompt: nothing that two answers could be compared by."""
    return [line for place, line in enumerate(said_of(letter_rows(prompts), "thumbs")) if place % 4 in (0, 3)]


@pytest.mark.parametrize("settings", [LINEAR, MLP, ADAPTER], ids=["linear", "mlp", "adapter"])
def test_thumbs_alone_are_learned_from_and_the_model_counts_as_unmeasured(make: Make, trunk: Trunk, settings: RewardSettings) -> None:
    project = make("p")
    dataset = write_dataset(project, [], thumbs(120))
    made = train_reward_model(project, settings.model_copy(update={"learn_from": "judgements", "l2": 0.1}), dataset.id, trunk, seed=1)
    found = made.facts["held_out_surprise"]["thumbs"]
    assert found["n"] == 36
    assert 0.6 < found["alike"] < 0.75  # a coin's is 0.69
    assert found["nats"] < found["alike"] - 0.1
    assert made.facts["n_held_out"] == 0
    assert made.facts["fitness"]["verdict"] == "not fit"
    assert not (made.path / "card.json").exists()
    with pytest.raises(UserError, match="measured on none") as caught:
        make_card(project, made.id, trunk)
    assert "truing reward train" in caught.value.fix
    good, bad = ([next(one for one in thumbs(120) if one["said"][0]["answer"]["up"] is up)["responses"][0]["text"]] for up in (True, False))
    model = load_reward_model(project, made.id, trunk)
    scores = model.score([trunk.prompt_ids([{"role": "user", "content": "Moon?"}])] * 2, [trunk.response_ids(text) for text in (*good, *bad)])
    model.close()
    assert scores[0] > scores[1]


def test_too_few_thumbs_or_none_to_choose_readings_by_are_refused_in_words(make: Make, trunk: Trunk) -> None:
    project = make("p")
    few, many = write_dataset(project, [], thumbs(20)).id, write_dataset(project, [], thumbs(120)).id
    learning = LINEAR.model_copy(update={"learn_from": "judgements"})
    with pytest.raises(UserError, match="14 train judgements"):
        train_reward_model(project, learning, few, trunk, seed=1)
    with pytest.raises(UserError, match="0 train preferences"):
        train_reward_model(project, learning.model_copy(update={"readings": "choose"}), many, trunk, seed=1)
    with pytest.raises(UserError, match="0 train preferences") as caught:
        train_reward_model(project, LINEAR, many, trunk, seed=1)
    assert "reward.learn_from=judgements" in caught.value.fix


@pytest.mark.parametrize("kind", ["pair", "ranking", "rating", "thumbs"])
def test_judgements_that_all_say_the_same_are_refused_in_words(make: Make, trunk: Trunk, kind: str) -> None:
    alike = {"pair": {"strength": 0}, "ranking": {"ranks": [1, 1]}, "rating": {"aspects": {"overall": 4}}, "thumbs": {"up": True}}
    said = said_of(letter_rows(60), kind)
    for line in said:
        line["said"][0]["answer"] = alike[kind]
    project = make("p")
    settings = LINEAR.model_copy(update={"learn_from": "judgements"})
    with pytest.raises(UserError, match="say the same"):
        train_reward_model(project, settings, write_dataset(project, [], said).id, trunk, seed=1)
    first = next(line for line in said if line["split"] == "train")
    first["said"][0]["answer"] = {"pair": {"strength": 1}, "ranking": {"ranks": [2, 1]}, "rating": {"aspects": {"overall": 1}}, "thumbs": {"up": False}}[kind]
    require_said(said, 20)  # one that differs is enough to begin with


@pytest.mark.parametrize("readings", ["choose", ("last@1.0",)])
def test_rankings_of_more_than_nine_are_refused_in_words(make: Make, trunk: Trunk, readings: Any) -> None:
    project, rows = make("p"), letter_rows(60)
    said = said_of(rows, "ranking")
    said[0] = said[0] | {"responses": said[0]["responses"] * 5, "said": [said[0]["said"][0] | {"answer": {"ranks": list(range(1, 11))}}]}
    settings = RewardSettings(learn_from="judgements", readings=readings)
    with pytest.raises(UserError, match="rankings of up to 10 responses") as caught:
        train_reward_model(project, settings, write_dataset(project, rows, said).id, trunk, seed=1)
    assert "reward.learn_from=pairs" in caught.value.fix


@pytest.mark.parametrize("settings", [MLP, ADAPTER, FULL], ids=["mlp", "adapter", "full"])
def test_every_head_learns_from_judgements(make: Make, trunk: Trunk, settings: RewardSettings) -> None:
    project, rows = make("p"), letter_rows(120)
    kinds = ["pair", "ranking", "rating", "thumbs"]
    said = [line for place, kind in enumerate(kinds) for line in said_of(rows[place::4], kind)]
    made = train_reward_model(project, settings.model_copy(update={"learn_from": "judgements"}), write_dataset(project, rows, said).id, trunk, seed=1)
    assert made.facts["accuracy"]["value"] > 0.9
    assert all(found["nats"] < math.log(2) - 0.05 for found in made.facts["held_out_surprise"].values())


@pytest.mark.parametrize("settings", [LINEAR, MLP, ADAPTER, FULL], ids=["linear", "mlp", "adapter", "full"])
def test_every_head_learns_a_taste_for_a_letter(make: Make, trunk: Trunk, settings: RewardSettings) -> None:
    made = train(make("p"), trunk, letter_rows(120), settings)
    facts = made.facts
    assert facts["accuracy"]["value"] > 0.9
    assert facts["accuracy"]["low"] > 0.75
    assert facts["accuracy"]["n"] == facts["n_test"] == 36
    assert facts["n_train"] == 84
    assert 0 <= facts["ece"] < 0.4
    assert facts["log_loss"] < 0.5
    assert not trunk.has_adapter(train_trunk.ROLE)


def test_the_readings_can_be_chosen(make: Make, trunk: Trunk) -> None:
    project = make("p")
    made = train(project, trunk, letter_rows(120), RewardSettings(readings="choose", members=2))
    chosen = made.facts["readings"]
    assert [row["reading"] for row in made.facts["readings_path"]] == chosen
    assert 1 <= len(chosen) <= 4
    assert made.facts["accuracy"]["value"] > 0.9
    fixed = train(project, trunk, letter_rows(120), RewardSettings(readings=("last@0.5", "mean@0.5"), members=2))
    assert fixed.facts["readings_path"] == []
    with pytest.raises(ValueError, match="no reading"):
        RewardSettings(readings=())


def test_trusted_minority_overrules_a_careless_majority(make: Make, trunk: Trunk) -> None:
    # two in three train labels are turned round, at a hundredth of the weight
    rows = letter_rows(120)
    for number, one in enumerate(rows):
        if one["split"] == "train" and number % 3:
            one["target"], one["weight"] = 1 - one["target"], 0.01
    assert train(make("p"), trunk, rows, LINEAR).facts["accuracy"]["value"] > 0.9
    for one in rows:
        one["weight"] = 1.0
    assert train(make("q"), trunk, rows, LINEAR).facts["accuracy"]["value"] < 0.4


def test_soft_labels_set_the_odds() -> None:
    # one feature that differs by 1 in every pair; three of four judged for a: the odds must become 3 : 1
    ones, zeros = torch.ones(4, 1), torch.zeros(4, 1)
    soft = Frozen(ones, zeros, torch.full((4,), 0.75), torch.ones(4), list("pqrs"))
    hard = soft._replace(target=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    weighed = soft._replace(target=torch.tensor([1.0, 0.0, 1.0, 0.0]), weight=torch.tensor([2.0, 0.5, 1.0, 0.5]))
    for data in (soft, hard, weighed):
        assert solve_linear(data, 1e-9, 0.0).item() == pytest.approx(torch.log(torch.tensor(3.0)).item(), abs=1e-4)


def test_the_strength_of_l2_is_looked_for_until_it_has_been_worse_twice() -> None:
    def past(*losses: float) -> bool:
        return past_the_best([{"log_loss": loss} for loss in losses])

    assert [past(3), past(3, 4), past(3, 4, 5), past(3, 2, 4), past(3, 2, 4, 5), past(3, 2, 4, 2), past(2, 2, 2)] == [
        False, False, True, False, True, False, False,
    ]  # fmt: skip


def test_linear_fit_does_not_depend_on_where_it_starts() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 30, 5, generator=generator)
    data = Frozen(a, b, torch.rand(30, generator=generator), torch.ones(30), [str(n) for n in range(30)])
    cold = solve_linear(data, 0.1, 0.01)
    warm = solve_linear(data, 0.1, 0.01, start=torch.full((5,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(cold, warm, atol=1e-5, rtol=1e-4)


def test_swapping_the_pairs_turns_nothing_round() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 30, 5, generator=generator)
    data = Frozen(a, b, torch.rand(30, generator=generator), torch.ones(30), [str(n) for n in range(30)])
    swapped = data._replace(a=b, b=a, target=1 - data.target)
    torch.testing.assert_close(solve_linear(swapped, 0.1, 0.0), solve_linear(data, 0.1, 0.0), atol=1e-5, rtol=1e-4)


def test_members_differ_and_a_single_one_heeds_all_alike() -> None:
    weights = bootstrap_weights(["p", "q", "p", "r"], 3, seed=5)
    assert weights.shape == (3, 4)
    assert torch.equal(weights[:, 0], weights[:, 2])  # pairs of one prompt stay together
    assert len(set(weights[:, 0].tolist())) == 3
    assert torch.equal(bootstrap_weights(["p", "q"], 1, seed=5), torch.ones(1, 2))


def test_folds_keep_prompts_together_and_are_even() -> None:
    prompts = [f"p{number % 10}" for number in range(30)]
    fold = folds_by_prompt(prompts, 5, seed=0)
    assert all(len({int(fold[place]) for place in range(30) if prompts[place] == prompt}) == 1 for prompt in prompts)
    assert fold.bincount().tolist() == [6] * 5
    assert not torch.equal(fold, folds_by_prompt(prompts, 5, seed=1))


def test_mlp_keeps_each_members_best_step() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, 6, generator=generator)
    sides: list[list[Item]] = [[((n,), (side, n)) for n in range(40)] for side in (0, 1)]
    pairs = Pairs(sides[0], sides[1], torch.rand(40, generator=generator).round(), torch.ones(40), [str(n) for n in range(40)])  # nothing to learn
    settings = RewardSettings(head="mlp", members=3, units=16, learning_rate=0.05, epochs=60, patience=5)
    fit, _ = fit_mlp(PairLesson(pairs, 0.01), torch.cat([a, b]), settings, 0, lambda **facts: None)
    assert len(fit.curve) < 60
    assert max(fit.facts["best_epochs"]) < len(fit.curve) - 4


def test_an_adapter_is_fitted_to_a_model_with_layer_norms_in_bf16(make: Make, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "gpt2")
    torch.manual_seed(0)
    common = {"vocab_size": AutoConfig.from_pretrained(tiny_model).vocab_size, "bos_token_id": 0, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.3, **common)).save_pretrained(folder)
    half = open_trunk(ModelSettings(name=str(folder), dtype="bf16"))
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    by_hand = (states - states.mean(1, keepdim=True)) / (states.var(1, keepdim=True, correction=0) + 1e-5).sqrt()  # a fresh norm multiplies by 1
    torch.testing.assert_close(half.normed(states), by_hand, atol=1e-5, rtol=1e-5)
    assert half.normed(states.bfloat16()).dtype == torch.bfloat16
    made = train(make("p"), half, letter_rows(40), ADAPTER.model_copy(update={"trunk_epochs": 1}))
    assert made.facts["accuracy"]["value"] is not None


def test_a_step_weighs_what_its_prompts_weigh(make: Make, trunk: Trunk) -> None:
    """One prompt in each step: what a distrusted person says of one moves the weights as much less as it is trusted less."""
    rows = [one for place in range(8) for one in letter_rows(4, seed=place, held_out=0)]
    for place, one in enumerate(rows):
        one["prompt_id"], one["weight"] = f"p{place // 4}", 0.01 if place // 4 % 2 else 1.0
    lesson = PairLesson(tokenised(rows, trunk), 0.01)
    training = train_trunk.Training(trunk, lesson, ADAPTER.model_copy(update={"batch_pairs": 1, "members": 1, "trunk_epochs": 1, "clip_gradient": 1e9}), 1)
    slopes = {}
    for prompts in training.plan:
        training.learn()
        assert training.head.weight.grad is not None
        slopes[prompts[0]] = training.head.weight.grad.norm().item()
    training.trunk.drop_adapter(train_trunk.ROLE)
    heavy, light = ([slope for prompt, slope in slopes.items() if int(prompt[1:]) % 2 is odd] for odd in (0, 1))
    assert max(light) < 0.1 * min(heavy)
    assert sum(training.losses) / len(training.losses) < 2.0  # in nats of a judgement, in the mean over the steps


def test_features_of_a_response_are_held_once(make: Make, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    get = FeatureCache.get

    def counted(cache: FeatureCache, items: list[Item], **settings: Any) -> torch.Tensor:
        asked.append(len(items))
        return get(cache, items, **settings)

    monkeypatch.setattr(FeatureCache, "get", counted)
    made = train(make("p"), trunk, letter_rows(40), LINEAR)
    assert asked == [2 * 28 + 2 * 12 + made.facts["n_reference"]]


# ---- normalisation ----


def test_normalisation_by_hand() -> None:
    # means of the two members' scores: 1, 2, 3, 6; mean 3, variance (4 + 1 + 0 + 9) / 4
    raw = torch.tensor([[0.0, 2.0], [2.0, 2.0], [1.0, 5.0], [5.0, 7.0]])
    member_mean, std = normalisation(raw)
    assert member_mean.tolist() == [2.0, 4.0]
    assert std.item() == pytest.approx((14 / 4) ** 0.5)
    head = LinearHead(1, 2)
    head.weight.data = torch.tensor([[1.0], [3.0]])
    head.normalise_on(torch.tensor([[0.0], [2.0]]))  # raw 0, 0 and 2, 6: member means 1 and 3, their mean 0 and 4, std 2
    scores = head.scores(torch.tensor([[0.0], [2.0], [1.0], [3.0]]))
    assert scores.mean.tolist() == scores.by("mean").tolist() == [-1.0, 1.0, 0.0, 2.0]
    assert scores.std.tolist() == [0.5, 0.5, 0.0, 1.0]
    assert scores.by("lower").tolist() == [-1.5, 0.5, 0.0, 1.0]
    assert scores.worst.tolist() == scores.by("worst").tolist() == [-1.5, 0.5, 0.0, 1.0]  # of two members, mean less deviation is the worse one


def test_reference_samples_score_mean_0_and_deviation_1(make: Make, trunk: Trunk) -> None:
    project = make("p")
    dataset = write_dataset(project, letter_rows(60))
    reference = [(trunk.prompt_ids([{"role": "user", "content": f"{n}"}]), trunk.response_ids("z" * n)) for n in range(1, 9)]
    made = train_reward_model(project, LINEAR, dataset.id, trunk, seed=1, reference=reference)
    card = json.loads((made.path / "card.json").read_text())
    assert made.facts["n_reference"] == sum(card["histogram"]["counts"]) == 8
    from truing.reward.score import load_reward_model

    scores = torch.tensor(load_reward_model(project, made.id, trunk).score(*zip(*reference, strict=True)))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_a_model_that_scores_all_alike_is_refused() -> None:
    with pytest.raises(UserError, match="learned nothing"):
        normalisation(torch.ones(5, 2))


# ---- the same inputs ----


@pytest.mark.parametrize("settings", [LINEAR, MLP, ADAPTER, FULL], ids=["linear", "mlp", "adapter", "full"])
def test_same_inputs_and_seed_give_the_same_artifact(make: Make, tiny_model: Path, settings: RewardSettings) -> None:
    rows = letter_rows(40)
    ids = [train(make(name), open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), rows, settings, seed=3).id for name in "pq"]
    assert ids[0] == ids[1]
    assert train(make("r"), open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), rows, settings, seed=4).id != ids[0]


def test_a_finished_run_answers(make: Make, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    project, rows = make("p"), letter_rows(40)
    made = train(project, trunk, rows, LINEAR)
    monkeypatch.setattr("truing.reward.train._make", lambda work: pytest.fail("made again"))
    assert train(project, trunk, rows, LINEAR).id == made.id
    with project.database.read() as session:
        assert len(list(session.scalars(select(Run).where(Run.stage == "reward")))) == 1


def test_parents_settings_and_head_are_in_the_artifact(make: Make, trunk: Trunk) -> None:
    project = make("p")
    made = train(project, trunk, letter_rows(40), MLP)
    assert made.parents == [write_dataset(project, letter_rows(40)).id]
    assert made.manifest["settings"] == MLP.model_dump(mode="json")
    assert load_head(made.path / "head.safetensors").member_mean.shape == (2,)
    assert [entry["epoch"] for entry in json.loads((made.path / "card.json").read_text())["training"]][:2] == [0, 1]


# ---- killed and taken up again ----


@pytest.mark.parametrize("kills", [[1], [5], [3, 4, 11]])
def test_a_resumed_adapter_run_equals_an_unbroken_one_to_the_bit(make: Make, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kills: list[int]) -> None:
    rows = letter_rows(60)
    whole = train(make("whole"), open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), rows, ADAPTER)
    project, learn = make("cut"), train_trunk.Training.learn
    for kill in kills:

        def stop(training: train_trunk.Training, kill: int = kill) -> None:
            if training.step == kill:
                raise KeyboardInterrupt
            learn(training)

        monkeypatch.setattr(train_trunk.Training, "learn", stop)
        with pytest.raises(KeyboardInterrupt):
            train(project, open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), rows, ADAPTER)
    monkeypatch.setattr(train_trunk.Training, "learn", learn)
    assert train(project, open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32")), rows, ADAPTER).id == whole.id
    assert not list((project.root / "cache" / "reward").glob("*"))  # the checkpoint has done its work


@pytest.mark.parametrize("learn_from", ["pairs", "judgements"])
def test_tokens_in_memory_at_a_time_change_nothing(make: Make, tiny_model: Path, learn_from: str) -> None:
    rows, held_out = letter_rows(40), []
    kinds = [line for place, kind in enumerate(("pair", "ranking", "rating", "thumbs")) for line in said_of(rows[place::4], kind)]
    for row_tokens in (30, 4096):
        project = make(f"p{row_tokens}")
        settings = ADAPTER.model_copy(update={"row_tokens": row_tokens, "learn_from": learn_from, "trunk_epochs": 1})
        trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
        artifact = train_reward_model(project, settings, write_dataset(project, rows, kinds).id, trunk, seed=1)
        held_out.append([json.loads(line) for line in (artifact.path / "held_out.jsonl").read_text().splitlines()])
    for one, other in zip(*held_out, strict=True):
        assert [one["score_a"], one["score_b"]] == pytest.approx([other["score_a"], other["score_b"]], abs=1e-3)


# ---- what a user can mend ----


def test_too_few_preferences(make: Make, trunk: Trunk) -> None:
    with pytest.raises(UserError, match=r"has 7 train preferences.*needs at least 20"):
        train(make("p"), trunk, letter_rows(10), LINEAR)


def test_nothing_held_out(make: Make, trunk: Trunk) -> None:
    with pytest.raises(UserError, match=r"0 held-out preferences") as found:
        train(make("p"), trunk, letter_rows(30, held_out=0.0), LINEAR)
    assert "prompts.held_out_share" in found.value.fix


def test_all_ties(make: Make, trunk: Trunk) -> None:
    rows = [one | {"target": 0.5} for one in letter_rows(60)]
    with pytest.raises(UserError, match="42 of them ties"):
        train(make("p"), trunk, rows, LINEAR)


def test_a_single_prompt(make: Make, trunk: Trunk) -> None:
    rows = [row("same?", f"a {number}", f"b {number}", 1.0) for number in range(30)] + letter_rows(3, held_out=1.0)
    with pytest.raises(UserError, match="about one prompt"):
        train(make("p"), trunk, rows, LINEAR)


def test_no_such_dataset(make: Make, trunk: Trunk) -> None:
    with pytest.raises(UserError, match="there is no artifact"):
        train_reward_model(make("p"), LINEAR, "dataset-0000000000000000", trunk, seed=1)


def test_a_reading_that_is_none_is_told(tmp_path: Path) -> None:
    opened = open_project(create_project(tmp_path / "p", settings='[reward]\nreadings = ["mean@0.5", "sum@0.5"]\n'))
    with pytest.raises(SettingError, match=r"'sum@0\.5' is not last, mean or max"):
        opened.settings(RewardSettings)
