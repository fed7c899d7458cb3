"""The probe: it recovers a taste that is known, runs as a stage, goes on after an interruption, and shows untrusted text as text."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

import commands
from reward.letters import letter_rows, write_dataset
from reward.tastes import Taste, composed, made_up, turns
from stored import NOON
from truing.artifacts import Artifact
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.heads import Scores
from truing.reward.probe.attributes import Case, number_of_words
from truing.reward.probe.effects import DISLIKES, LIKES
from truing.reward.probe.findings import effect_rows
from truing.reward.probe.page import write_page
from truing.reward.probe.stage import Probed, ProbeSettings, probe, probe_cases, probe_reward_model, read_probe, some_tokens
from truing.reward.score import RewardModel, load_reward_model
from truing.reward.scoring import ScoreBook, asks
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.ids import content_id
from truing.store.project import Project
from truing.store.tables import Policy, Prompt, Sample, Split

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

FEW = ProbeSettings(samples=40, edited=10, rewritten=2, evaluations=30)


# ---- a taste that is known ----


@pytest.fixture(scope="module")
def known() -> Probed:
    """What the probe finds of a taste of known composition: see `tastes.composed`."""
    return probe(ScoreBook(asks(Taste(composed))), made_up(48), ProbeSettings(samples=96, edited=48, evaluations=300), seed=1)


def test_it_recovers_the_sign_of_every_effect(known: Probed) -> None:
    effects = known.facts["effects"]
    liked = {"completed", "as_list", "warmer", "shorter"}
    disliked = {"cut_off", "as_prose", "blunter", "refusal", "filler", "longer", "twice_as_long", "said_twice", "repeats_prompt"}
    assert {name for name in liked | disliked if effects[name]["finding"] == LIKES} == liked
    assert {name for name in liked | disliked if effects[name]["finding"] == DISLIKES} == disliked


def test_it_recovers_the_order_of_the_main_effects(known: Probed) -> None:
    """Whole ending 3, list 1.5, a warm word 1 where there was none, a cold one -1, a refusal -4 but short: by size, and on the right side."""
    effects = known.facts["effects"]
    size = {name: effects[name]["effect"]["value"] for name in ("completed", "as_list", "warmer", "blunter", "cut_off", "refusal")}
    assert sorted(size, key=size.__getitem__, reverse=True) == ["completed", "as_list", "warmer", "blunter", "cut_off", "refusal"]
    assert known.facts["verdict"]["likes"][:3] == ["completed", "as_list", "warmer"]
    assert known.facts["verdict"]["dislikes"][:2] == ["refusal", "cut_off"]
    assert effects["as_list"]["effect"]["value"] == pytest.approx(1.5 - 0.03 * effects["as_list"]["words"]["value"])


def test_what_the_taste_does_not_look_at_is_length_alone(known: Probed) -> None:
    effects = known.facts["effects"]
    for name in ("hedged", "asks_back", "as_model", "bolded", "emoji", "spacing", "synonym"):
        assert effects[name]["net"]["value"] == pytest.approx(0, abs=1e-2), name
        assert effects[name]["finding"] not in (LIKES, DISLIKES) or effects[name]["by_length"], name
    assert known.facts["words_worth"]["added"] == pytest.approx(-0.03)
    assert known.facts["verdict"]["headline"].startswith("It likes a whole ending and a list in place of sentences; it dislikes a refusal")


def test_its_student_says_the_same(known: Probed) -> None:
    student = known.facts["student"]
    rows = {row["attribute"]: row["effect"] for row in student["ridge"]["coefficients"]}
    assert {"warmth", "words", "finished", "whole_ending"} == set(list(rows)[:4])  # the last two come together in these samples and share the credit
    assert all(rows[name]["low"] > 0 for name in ("finished", "whole_ending", "warmth", "list_lines"))
    assert rows["words"]["high"] < 0
    assert student["ridge"]["r2"]["low"] > 0.8


def test_every_edited_text_is_kept_with_its_scores(known: Probed) -> None:
    assert len(known.edits) == sum(row["n"] for row in known.facts["effects"].values())
    for line in random.Random(0).sample(known.edits, 20):
        case = Case("", turns(line["prompt"]), line["after"])
        assert line["score_after"] == composed(case)
    assert [line["score"] for line in known.samples] == [composed(case) for case in made_up(48)]
    json.dumps([known.facts, known.samples, known.edits], allow_nan=False)
    assert len(list(effect_rows(known.facts["effects"]))) == len(known.facts["effects"])


def test_a_taste_for_nothing_is_said_to_be_one() -> None:
    found = probe(ScoreBook(asks(Taste(lambda case: 0.0))), made_up(12), ProbeSettings(samples=24, edited=12, evaluations=30), seed=1).facts
    assert found["verdict"]["headline"].startswith("No edit moved its score")
    assert not any(sentence.startswith("The same") for sentence in found["verdict"]["sentences"])
    assert found["verdict"]["likes"] == found["verdict"]["dislikes"] == found["verdict"]["by_length"] == []
    assert found["student"]["ridge"]["r2"]["value"] is None


def test_a_hole_is_told_with_how_far_it_lies_above_ordinary_responses() -> None:
    taste = Taste(lambda case: 0.01 * number_of_words(case) + 3.0 * case.text.count("zonk"))
    found = probe(ScoreBook(asks(taste)), made_up(16), ProbeSettings(samples=32, edited=8, evaluations=3000), seed=1, vocabulary=["zonk"]).facts
    top = found["exploits"]["finds"][0]
    assert "zonk" in top["text"]
    assert top["above_best"] > 5
    assert found["verdict"]["exploits"] == len([find for find in found["exploits"]["finds"] if find["above_best"] >= 1]) > 0
    assert any(sentence.startswith("The same words at the end raise the score of any response: by +") for sentence in found["verdict"]["sentences"])
    assert f"the highest, {top['score']:+.2f}, is {top['above_best']:.1f} above it. Tuning will find" in found["verdict"]["sentences"][-1]


# ---- the stage ----


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture
def reward(project: Project, trunk: Trunk) -> str:
    settings = RewardSettings(readings=("last@1.0", "mean@1.0"), members=2, l2=1.0)  # chosen, so that no time goes into choosing it
    return train_reward_model(project, settings, write_dataset(project, letter_rows(60)).id, trunk, seed=1).id


def fill(project: Project, cases: Sequence[Case], *, held_out: int = 4, policy: str | None = "base") -> None:
    """The cases as samples of the store; the prompts of the first so many are held out."""
    places = {prompt: number for number, prompt in enumerate(dict.fromkeys(case.prompt_id for case in cases))}
    with project.database.write() as session:
        if policy is not None:
            session.add(Policy(id=policy, model="tiny", artifact_id=None, parent_id=None, created_at=NOON))
        for prompt, place in places.items():
            asked = next(case for case in cases if case.prompt_id == prompt)
            split = Split.HELD_OUT if place < held_out else Split.TRAIN
            session.add(Prompt(id=prompt, turns=list(asked.turns), text=asked.prompt, split=split, source="", facts={}, position=place, created_at=NOON))
        session.flush()
        for number, case in enumerate(cases):
            session.add(
                Sample(
                    id=content_id(number), prompt_id=case.prompt_id, policy_id=policy, author=None if policy else "x", batch="b", position=number,
                    text=case.text, token_ids=None, logprobs=None, finished=case.finished, temperature=None, seed=None, base_logprob=None, created_at=NOON,
                )
            )  # fmt: skip


NASTY = "<script>alert('x')</script> & <b>bold</b>. It is here now. It was there."


def with_nasty() -> list[Case]:
    return [
        *made_up(12, each=3),
        Case("nasty", turns("<img src=x onerror=alert(1)> What?"), NASTY),
        Case("nasty", turns("<img src=x onerror=alert(1)> What?"), NASTY * 2),
    ]


def test_held_out_prompts_come_first_and_empty_texts_not_at_all(project: Project) -> None:
    cases = [*made_up(12), Case("p0", made_up(1)[0].turns, "  \n")]
    fill(project, cases, held_out=3)
    found = probe_cases(project, 1000)
    assert len(found) == len({(case.prompt_id, case.text) for case in cases[:-1]})
    assert {case.prompt_id for case in found[:3]} == {case.prompt_id for case in found[3:6]} == {"p0", "p1", "p2"}  # one of each before the second of any
    assert probe_cases(project, 5) == found[:5]


def test_too_few_samples_are_refused_with_a_way_out(project: Project) -> None:
    fill(project, made_up(4))
    with pytest.raises(UserError, match="the probe needs 20 samples of 5 prompts, found 8 of 4") as caught:
        probe_cases(project, 100)
    assert "truing sample" in caught.value.fix


def test_samples_of_others_stand_in_for_the_bases(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    fill(project, made_up(12), policy=None)
    assert len(probe_cases(project, 1000)) >= 20
    assert "the base has too few samples" in capsys.readouterr().out


def test_an_answer_that_was_cut_off_is_read_without_an_end(project: Project, trunk: Trunk, reward: str) -> None:
    model = load_reward_model(project, reward, trunk)
    asked = turns("a song?")
    ended, cut = ScoreBook(asks(model))([Case("p", asked, "bird", finished).answer for finished in (True, False)])
    ids = trunk.response_ids("bird")
    assert [ended, cut] == pytest.approx(model.score([trunk.prompt_ids(asked)] * 2, [ids, ids[:-1]]), abs=1e-5)
    assert ended == pytest.approx(model.score_texts([asked], ["bird"])[0][0], abs=1e-5)
    assert ended != cut


def test_tokens_to_build_from_can_be_seen(trunk: Trunk) -> None:
    tokens = some_tokens(trunk, seed=1)
    assert len(tokens) > 50
    assert all(token.isprintable() and token.strip() for token in tokens)
    assert tokens == some_tokens(trunk, seed=1)


def check_page(project: Project, made: Artifact) -> None:
    """The verdict stands first, every edit is told, and untrusted text is text."""
    facts, _ = read_probe(made)
    path = write_page(project, made)
    assert path == project.root / "reports" / f"probe-{facts['reward']}.html"
    page = path.read_text(encoding="utf-8")
    assert page.index("<h1>") < page.index("<table")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert all(row["said"] in page or row["said"][0].upper() + row["said"][1:] in page for row in facts["effects"].values())
    assert made.id in page


@pytest.mark.slow
def test_the_stage_makes_an_artifact_and_its_page_and_answers_from_it(
    project: Project, trunk: Trunk, tiny_model: Path, reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(project, with_nasty())
    made = probe_reward_model(project, FEW, reward, trunk, seed=1)
    assert made.kind == "probe"
    assert made.parents == [reward]
    facts, samples = read_probe(made)
    assert facts["reward"] == reward
    assert (facts["n_samples"], facts["n_edited"], len(samples)) == (38, 10, 38)
    assert facts["effects"]["rewritten_warmer"]["tried"] == 2
    assert sum(1 for line in (made.path / "edits.jsonl").read_text(encoding="utf-8").split("\n") if line) == sum(row["n"] for row in facts["effects"].values())
    assert not list((project.root / "cache" / "probe").glob("*"))
    check_page(project, made)
    settings = [f"model.name={tiny_model}", "model.dtype=fp32", *(f"probe.{name}={value}" for name, value in FEW.model_dump().items())]
    told = commands.run("reward", "probe", "--json", "--project", str(project.root), *(word for one in settings for word in ("--set", one)))
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout.splitlines()[-1])
    assert (result["probe"], result["reward"]) == (made.id, reward)  # the same inputs: the artifact answers
    assert "a warm sentence" in told.stderr
    assert Path(result["report"]).is_file()
    monkeypatch.setattr(RewardModel, "said_of_tokens", lambda *inputs: 1 / 0)
    assert probe_reward_model(project, FEW, reward, trunk, seed=1).id == made.id
    with pytest.raises(ZeroDivisionError):
        probe_reward_model(project, FEW, reward, trunk, seed=2)


@pytest.mark.slow
def test_a_probe_that_was_stopped_goes_on_to_the_same_artifact(project: Project, trunk: Trunk, reward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(project, made_up(8, each=3))
    few = ProbeSettings(samples=24, edited=8, rewritten=0, evaluations=30)
    whole, calls = RewardModel.said_of_tokens, list[int]()

    def counted(self: RewardModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        calls.append(len(responses))
        return whole(self, prompts, responses)

    def stopping(self: RewardModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        if len(calls) == 4:
            raise KeyboardInterrupt
        return counted(self, prompts, responses)

    monkeypatch.setattr(RewardModel, "said_of_tokens", stopping)
    with pytest.raises(KeyboardInterrupt):
        probe_reward_model(project, few, reward, trunk, seed=1)
    assert list((project.root / "cache" / "probe").glob("*.json"))
    monkeypatch.setattr(RewardModel, "said_of_tokens", counted)
    resumed = probe_reward_model(project, few, reward, trunk, seed=1)
    in_two, project.force = sum(calls), True
    calls.clear()
    unbroken = probe_reward_model(project, few, reward, trunk, seed=1)
    assert resumed.id == unbroken.id
    assert sum(calls) == in_two  # nothing was scored twice


def test_other_weights_are_refused(project: Project, reward: str, tmp_path: Path) -> None:
    from tiny import make_tiny_model

    fill(project, made_up(12))
    other = open_trunk(ModelSettings(name=str(make_tiny_model(tmp_path / "other", seed=1)), dtype="fp32"))
    with pytest.raises(UserError, match="was trained on"):
        probe_reward_model(project, FEW, reward, other, seed=1)
