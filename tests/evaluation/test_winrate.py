"""Who wins, by hand; over prompts, not rows; and the same inputs give the same artifact."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from truing.artifacts import Artifact
from truing.errors import UserError
from truing.evaluation.winrate import EvaluationSettings, evaluate_policy
from truing.store.ids import content_id
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Policy, Prompt, Run, Sample

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TUNED = "policy-00000000"
BATCHES = {"base": "b0", TUNED: "b1"}
SETTINGS = EvaluationSettings(resamples=200)

Texts = Mapping[str, Mapping[str, Sequence[str]]]  # prompt → policy → its responses


def fill(project: Project, texts: Texts, *, split: str = "held-out", **facts: Any) -> None:
    """Write prompts and samples; the number in a response is its gold score."""
    with project.database.write() as session:
        for policy in BATCHES:
            if session.get(Policy, policy) is None:
                session.add(Policy(id=policy, model="m", artifact_id=None, parent_id=None, created_at=NOON))
        session.flush()
        for asked, by_policy in texts.items():
            turns = [{"role": "user", "content": asked}]
            prompt_id = content_id(turns)
            topic = {"topic": asked.split()[0]}
            session.add(Prompt(id=prompt_id, turns=turns, text=asked, split=split, source="t", facts=topic, position=0, created_at=NOON))
            session.flush()
            for policy, responses in by_policy.items():
                session.add_all(_sample(prompt_id, policy, place, text, facts) for place, text in enumerate(responses))


def _sample(prompt_id: str, policy: str, place: int, text: str, facts: dict[str, Any]) -> Sample:
    values: dict[str, Any] = {"token_ids": [1, 2, 3], "finished": True, "base_logprob": -1.5 if policy == "base" else -1.75} | facts
    batch = BATCHES[policy]
    return Sample(
        id=content_id("sample", prompt_id, batch, place), prompt_id=prompt_id, policy_id=policy, author=None, batch=batch, position=place, text=text,
        logprobs=None, temperature=1.0, seed=1, created_at=NOON, **values,
    )  # fmt: skip


def gold(prompt: str, sample: Sample) -> float:
    return float(sample.text.split()[-1])


def evaluate(project: Project, **changes: Any) -> Artifact:
    given: dict[str, Any] = {"policy_id": TUNED, "against": ["base"], "batches": BATCHES, "gold": gold, "score": None, "seed": 7}
    settings = changes.pop("settings", SETTINGS)
    return evaluate_policy(project, settings, **(given | changes))


def read(artifact: Artifact) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((artifact.path / "evaluation.json").read_text())
    return document


def four_ends(project: Project) -> None:
    """Two wins, a tie and a loss."""
    fill(
        project,
        {
            "plan one": {"base": ["no 1"], TUNED: ["yes 2"]},
            "plan two": {"base": ["no 1"], TUNED: ["yes indeed 3"]},
            "write one": {"base": ["no 2"], TUNED: ["yes 2"]},
            "write two": {"base": ["no 2"], TUNED: ["yes 1"]},
        },
    )


def test_win_rate_by_hand(project: Project) -> None:
    four_ends(project)
    artifact = evaluate(project)
    row = read(artifact)["opponents"][0]
    assert row["win_rate"]["value"] == (1 + 1 + 0.5 + 0) / 4
    assert row["win_rate"]["n"] == 4
    assert row["tally"] == {"wins": 2, "ties": 1, "losses": 1}
    assert row["gold_gain"]["value"] == (1 + 2 + 0 - 1) / 4
    assert [(topic["topic"], topic["value"], topic["n"]) for topic in row["by_topic"]] == [("plan", 1.0, 2), ("write", 0.25, 2)]
    assert artifact.facts["win_rate"] == row["win_rate"]
    assert artifact.facts["verdict"] == "can't tell"


def test_a_policys_own_measures(project: Project) -> None:
    four_ends(project)
    ids = [content_id("sample", content_id([{"role": "user", "content": asked}]), "b1", 0) for asked in ("plan one", "plan two", "write one", "write two")]
    ours = read(evaluate(project, kl_nats=dict(zip(ids, [1, 2, 3, 4], strict=True))))["policies"][TUNED]
    assert ours["gold"]["value"] == (2 + 3 + 2 + 1) / 4
    assert ours["kl_nats"]["value"] == 2.5
    assert ours["tokens"]["value"] == 3
    assert ours["words"]["value"] == (2 + 3 + 2 + 2) / 4
    assert ours["eos_rate"]["value"] == 1
    assert ours["logprob_gap"]["value"] == -0.25
    assert ours["score"] is None


def test_ties_by_margin_and_by_the_same_words(project: Project) -> None:
    fill(project, {"a": {"base": ["x 1.0"], TUNED: ["x 1.2"]}, "b": {"base": ["same 1"], TUNED: ["same 1"]}})
    assert read(evaluate(project))["opponents"][0]["tally"] == {"wins": 1, "ties": 1, "losses": 0}
    wide = EvaluationSettings(resamples=200, tie_margin=0.25)
    assert read(evaluate(project, settings=wide))["opponents"][0]["tally"] == {"wins": 0, "ties": 2, "losses": 0}


def test_the_bootstrap_draws_prompts_not_rows(project: Project) -> None:
    many = [f"x {number}" for number in range(2, 12)]
    won, lost = {"base": ["1"] * 10, TUNED: many}, {"base": many, TUNED: ["1"] * 10}
    fill(project, {f"p {number}": won if number % 2 else lost for number in range(20)})
    win = read(evaluate(project))["opponents"][0]["win_rate"]
    assert (win["value"], win["n"]) == (0.5, 20)
    assert win["low"] < 0.35 < 0.65 < win["high"], "of 200 rows it would be 0.43 to 0.57"


@pytest.mark.parametrize(("prompts", "verdict"), [(2, "can't tell"), (3, "can't tell"), (4, "preferred")])
def test_a_few_wins_of_as_many_prove_little(project: Project, prompts: int, verdict: str) -> None:
    """A bootstrap of nothing but wins has no width: of a handful of prompts the interval is Wilson's, which of three of three goes down to 44 %."""
    fill(project, {f"p {number}": {"base": ["no 1"], TUNED: ["yes 2"]} for number in range(prompts)})
    artifact = evaluate(project)
    assert artifact.facts["verdict"] == verdict
    assert artifact.facts["win_rate"]["low"] == pytest.approx(prompts / (prompts + 1.959964**2), abs=1e-6)
    assert "few prompts" in artifact.facts["warnings"]


def test_a_clear_win_and_a_clear_loss(project: Project) -> None:
    fill(project, {f"p {number}": {"base": [f"no {number % 3}"], TUNED: [f"yes {number % 3 + (1 if number % 8 else -1)}"]} for number in range(24)})
    won = evaluate(project)
    assert (won.facts["verdict"], won.facts["win_rate"]["value"]) == ("preferred", 21 / 24)
    lost = evaluate(project, gold=lambda prompt, sample: -gold(prompt, sample), judge="the opposite taste")
    assert (lost.facts["verdict"], lost.facts["win_rate"]["value"]) == ("not preferred", 3 / 24)
    assert won.facts["win_rate"]["low"] == pytest.approx(1 - lost.facts["win_rate"]["high"], abs=1e-6)


def test_without_gold_a_win_is_never_claimed(project: Project) -> None:
    fill(project, {f"p {number}": {"base": ["no 1"], TUNED: ["yes 2"]} for number in range(24)})
    artifact = evaluate(project, gold=None, score=lambda samples: [gold("", sample) for sample in samples])
    assert artifact.facts["win_rate"]["value"] == 1
    assert artifact.facts["verdict"] == "can't tell"
    assert artifact.facts["judge"] == "the reward model"


def test_only_held_out_prompts_count(project: Project) -> None:
    four_ends(project)
    fill(project, {"seen in training": {"base": ["no 1"], TUNED: ["yes 9"]}}, split="train")
    assert evaluate(project).facts["win_rate"]["n"] == 4


def test_a_value_that_some_samples_lack_is_none(project: Project) -> None:
    four_ends(project)
    fill(project, {"new": {"base": ["no 1"], TUNED: ["yes 2"]}}, base_logprob=None, token_ids=None)
    ours = read(evaluate(project))["policies"][TUNED]
    assert ours["base_logprob"] is None
    assert ours["logprob_gap"] is None
    assert ours["tokens"] is None
    assert ours["kl_nats"] is None


def test_one_prompt_and_empty_answers_stay_finite(project: Project) -> None:
    fill(project, {"only": {"base": ["1"], TUNED: ["2"]}})
    artifact = evaluate(project)
    assert artifact.facts["verdict"] == "can't tell"
    assert artifact.facts["win_rate"] == {"value": 1.0, "low": pytest.approx(0.206549), "high": 1.0, "n": 1}
    json.dumps(artifact.manifest, allow_nan=False)


def test_pairs_are_drawn_by_lot_and_all_are_kept(project: Project) -> None:
    fill(project, {f"p {number}": {"base": [f"no {number}"], TUNED: [f"yes {number + 1}"]} for number in range(30)})
    first, second = evaluate(project), evaluate(project, seed=8)
    shown = [[pair["prompt"] for pair in read(artifact)["opponents"][0]["side_by_side"]] for artifact in (first, second)]
    assert len(set(shown[0])) == len(set(shown[1])) == 6
    assert shown[0] != shown[1]
    rows = [json.loads(line) for line in (first.path / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    assert set(shown[0]) <= {row["prompt"] for row in rows}
    assert {row["against"] for row in rows} == {"base"}


def test_the_same_inputs_give_the_same_artifact(tmp_path: Path) -> None:
    """In another project, with rows written in another order."""
    texts = {f"p {number}": {"base": [f"no {number % 5}"], TUNED: [f"yes {number % 7}"]} for number in range(12)}
    ids = []
    for name, order in (("one", list(texts)), ("two", list(reversed(texts)))):
        project = open_project(create_project(tmp_path / name, settings=""))
        fill(project, {asked: texts[asked] for asked in order})
        ids.append(evaluate(project).id)
    assert ids[0] == ids[1]


def test_a_finished_run_answers_and_a_changed_input_does_not(project: Project) -> None:
    four_ends(project)
    first = evaluate(project)
    assert evaluate(project, gold=_never).id == first.id
    assert evaluate(project, seed=8).id != first.id
    assert evaluate(project, judge="another taste").id != first.id
    with project.database.read() as session:
        assert session.query(Run).filter_by(stage="evaluate", state="done").count() == 3


def _never(prompt: str, sample: Sample) -> float:
    raise AssertionError("the finished run should have answered")


def test_two_opponents(project: Project) -> None:
    four_ends(project)
    artifact = evaluate(project, against=["base", TUNED])
    itself = artifact.facts["against"][TUNED]["win_rate"]
    assert itself == {"value": 0.5, "low": pytest.approx(0.150039), "high": pytest.approx(0.849961), "n": 4}
    assert artifact.parents == [TUNED]


def test_no_judge_and_no_samples_are_said_in_words(project: Project) -> None:
    four_ends(project)
    with pytest.raises(UserError, match="needs a judge"):
        evaluate(project, gold=None)
    with pytest.raises(UserError, match="no samples of held-out prompts"):
        evaluate(project, batches={"base": "b0", TUNED: "nowhere"})


def test_nothing_in_common_is_said_in_words(project: Project) -> None:
    fill(project, {"a": {"base": ["no 1"]}, "b": {TUNED: ["yes 1"]}})
    with pytest.raises(UserError, match="no held-out prompt in common"):
        evaluate(project)
