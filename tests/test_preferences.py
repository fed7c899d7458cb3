"""Judgements to preferences: a pure function of the log, the settings and the trust."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from asked import BATCH, add_people, add_samples
from stored import NOON, judgement, prompt
from truing.artifacts import Artifact
from truing.errors import UserError
from truing.feedback.assignment import edit_sample_id
from truing.feedback.exchange import import_judgements
from truing.feedback.quality import QualitySettings, measure_quality
from truing.feedback.questions import FeedbackSettings, ask_pairs
from truing.feedback.simulated import CrowdSettings, annotate_simulated
from truing.preferences import Asked, PreferenceSettings, build_preferences, said_rows, soft_vote, to_rows
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Dataset, Question, QuestionSample, Sample

LN3 = math.log(3)
EXACT = PreferenceSettings(nats_a_step=LN3, smoothing=0.0)
TRUST = {"ann": 0.8, "bob": 0.4, "cy": 0.02}
QUALITY: dict[str, Any] = {
    "alpha": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9},
    "annotators": [{"id": who, "trust": trust} for who, trust in TRUST.items()],
}


def asked(name: str, *said: tuple[str, int]) -> Asked:
    """A question with judgements (annotator, strength)."""
    a, b = (Sample(id=f"{name}-{side}", text=f"{side} of {name}", token_ids=[1], finished=True) for side in "ab")
    return Asked(name, prompt(f"About {name}?"), [a, b], [judgement(name, f"{name}-{who}", annotator_id=who, answer={"strength": s}) for who, s in said])


def row_of(question: Asked, settings: PreferenceSettings = EXACT) -> dict[str, Any]:
    found, = to_rows([question], TRUST, settings)  # fmt: skip
    return found


# ---- the target ----


@pytest.mark.parametrize(("strength", "p"), [(0, 1 / 2), (1, 3 / 4), (2, 9 / 10), (3, 27 / 28), (-1, 1 / 4), (-3, 1 / 28)])
def test_each_step_of_strength_triples_the_odds(strength: int, p: float) -> None:
    assert soft_vote(strength, EXACT) == pytest.approx(p)


def test_a_preference_by_hand() -> None:
    """Ann (0.8) says A by one, Bob (0.4) says B by one: (0.8 * 3/4 + 0.4 * 1/4) / 1.2 = 7/12."""
    found = row_of(asked("q", ("ann", 1), ("bob", -1)))
    assert found["target"] == pytest.approx(7 / 12)
    assert found["strength"] == pytest.approx((0.8 - 0.4) / 1.2)
    assert (found["agreement"], found["n_annotators"], found["weight"]) == (0.5, 2, 1.0)
    assert found["judgements"] == [
        {"id": "q-ann", "annotator_id": "ann", "strength": 1},
        {"id": "q-bob", "annotator_id": "bob", "strength": -1},
    ]
    assert found["a"] == {"sample_id": "q-a", "text": "a of q", "token_ids": [1], "finished": True}


def test_smoothing_is_a_pseudo_vote_for_even() -> None:
    """A tenth of a vote: Ann's 9/10 becomes (0.8 * 0.9 + 0.05) / 0.9; Cy's, who is hardly trusted, nearly even."""
    smoothed = PreferenceSettings(nats_a_step=LN3, smoothing=0.1)
    assert row_of(asked("q", ("ann", 2)), smoothed)["target"] == pytest.approx((0.8 * 0.9 + 0.05) / 0.9)
    assert row_of(asked("q", ("cy", 2)), smoothed)["target"] == pytest.approx((0.02 * 0.9 + 0.05) / 0.12)


def test_a_tie_is_even_exactly() -> None:
    assert row_of(asked("q", ("ann", 0), ("bob", 0)), PreferenceSettings())["target"] == 0.5


def test_weights_are_trust_with_mean_one() -> None:
    rows = to_rows([asked("p", ("ann", 1)), asked("q", ("ann", 1), ("bob", 1)), asked("r", ("cy", 1))], TRUST, EXACT)
    weights = [row["weight"] for row in rows]
    assert sum(weights) == pytest.approx(3.0)
    assert weights[1] / weights[0] == pytest.approx(1.2 / 0.8)
    assert weights[2] / weights[0] == pytest.approx(0.02 / 0.8)


def test_a_question_nobody_answered_is_left_out() -> None:
    assert [row["question_id"] for row in to_rows([asked("q"), asked("p", ("ann", 3))], TRUST, EXACT)] == ["p"]


answers = st.lists(st.tuples(st.sampled_from(sorted(TRUST)), st.integers(-3, 3)), min_size=1, max_size=3, unique_by=lambda said: said[0])


@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_judgements_doesnt_matter(said: list[tuple[str, int]], shuffler: random.Random) -> None:
    questions = [asked("q", *said), asked("p", ("ann", 1))]
    turned = [asked("p", ("ann", 1)), asked("q", *shuffler.sample(said, len(said)))]
    assert to_rows(questions, TRUST, EXACT) == to_rows(turned, TRUST, EXACT)


@given(answers)
def test_swapping_a_and_b_swaps_the_target(said: list[tuple[str, int]]) -> None:
    one, other = row_of(asked("q", *said)), row_of(asked("q", *((who, -strength) for who, strength in said)))
    assert one["target"] + other["target"] == pytest.approx(1.0)
    assert one["strength"] == pytest.approx(-other["strength"])
    assert (one["weight"], one["agreement"]) == (other["weight"], other["agreement"])


@given(answers)
def test_everything_lies_in_its_range(said: list[tuple[str, int]]) -> None:
    found = row_of(asked("q", *said), PreferenceSettings())
    assert 0 < found["target"] < 1
    assert -3 <= found["strength"] <= 3
    assert 1 / 3 <= found["agreement"] <= 1
    assert (found["target"] == 0.5) or (found["target"] > 0.5) == (sum(TRUST[who] * (soft_vote(s, PreferenceSettings()) - 0.5) for who, s in said) > 0)


def test_a_stranger_among_the_annotators_is_an_error() -> None:
    with pytest.raises(UserError, match="says nothing of annotator dee"):
        row_of(asked("q", ("dee", 1)))


# ---- the other kinds ----


def of_kind(kind: str, name: str, texts: str, answers: Mapping[str, dict[str, Any]], about: str = "them") -> Asked:
    """A question about samples that read as these letters do, with each annotator's answer."""
    samples = [Sample(id=f"{name}-{place}", text=text, token_ids=[1], finished=True) for place, text in enumerate(texts)]
    return Asked(
        name, prompt(f"About {about}?"), samples, [judgement(name, f"{name}-{who}", annotator_id=who, answer=said) for who, said in answers.items()], kind
    )


def summary(asked: Sequence[Asked], settings: PreferenceSettings = EXACT) -> dict[str, tuple[float, float]]:
    """Question id → target and weight."""
    return {row["question_id"]: (row["target"], row["weight"]) for row in to_rows(asked, TRUST, settings)}


def test_a_ranking_weighs_as_its_choices() -> None:
    """Ann ranks c > a = d > b of four: six rows of share 2/4; with a pair of hers of weight 1 beside them, a ranking's six are worth three pairs."""
    ranking = of_kind("ranking", "r", "abcd", {"ann": {"ranks": [2, 3, 1, 2]}})
    rows = {row["question_id"]: row for row in to_rows([ranking, asked("p", ("ann", 1))], TRUST, EXACT)}
    assert {name: row["target"] for name, row in rows.items()} == pytest.approx(
        {"p": 3 / 4, "r/0/1": 3 / 4, "r/0/2": 1 / 4, "r/0/3": 1 / 2, "r/1/2": 1 / 4, "r/1/3": 1 / 4, "r/2/3": 3 / 4}
    )
    assert sum(row["weight"] for name, row in rows.items() if name != "p") == pytest.approx(3 * rows["p"]["weight"])
    assert rows["r/0/2"]["a"]["sample_id"] == "r-0"
    assert rows["r/0/2"]["judgements"] == [{"id": "r-ann", "annotator_id": "ann", "strength": -1}]


def test_ratings_compare_what_one_person_rated() -> None:
    """Ann gives 5 and 3 (two steps, 9 : 1), Bob 2 and 2; nobody else rated both. Trust 0.8 and 0.4: (0.8 * 0.9 + 0.4 * 0.5) / 1.2."""
    one = of_kind("rating", "u", "a", {"ann": {"aspects": {"overall": 5, "tone": 1}}, "bob": {"aspects": {"overall": 2}}})
    other = of_kind("rating", "v", "b", {"ann": {"aspects": {"overall": 3, "tone": 5}}, "bob": {"aspects": {"overall": 2}}, "cy": {"aspects": {"overall": 1}}})
    row, = to_rows([one, other], TRUST, EXACT)  # fmt: skip
    assert row["target"] == pytest.approx((0.8 * 0.9 + 0.4 * 0.5) / 1.2)
    assert (row["question_id"], row["a"]["text"], row["b"]["text"], row["n_annotators"]) == ("u+v", "a", "b", 2)
    assert row["judgements"][0] == {"id": "u-ann+v-ann", "annotator_id": "ann", "strength": 2.0}


def test_without_an_overall_the_shared_aspects_count() -> None:
    """Warm 5 against 1, clear 2 against 3: four and minus one, 1.5 points. Six points are three steps. No shared aspect: nothing."""

    def rated(*aspects: dict[str, int]) -> list[Asked]:
        return [of_kind("rating", f"q{i}", "abc"[i], {"ann": {"aspects": found}}) for i, found in enumerate(aspects)]

    row, = to_rows(rated({"warm": 5, "clear": 2, "kind": 1}, {"warm": 1, "clear": 3}), TRUST, EXACT)  # fmt: skip
    assert row["strength"] == pytest.approx(1.5)
    row, = to_rows(rated({"warm": 7}, {"warm": 1}), TRUST, EXACT)  # fmt: skip
    assert (row["strength"], row["target"]) == pytest.approx((3.0, 27 / 28))
    assert to_rows(rated({"warm": 7}, {"clear": 1}), TRUST, EXACT) == []


def test_ratings_of_many_weigh_like_a_ranking() -> None:
    rated = [of_kind("rating", f"q{i}", text, {"ann": {"aspects": {"overall": i + 1}}}) for i, text in enumerate("abcd")]
    rows = summary([*rated, asked("p", ("ann", 1))])
    assert sum(weight for name, (_, weight) in rows.items() if name != "p") == pytest.approx(3 * rows["p"][1])


def test_thumbs_by_hand() -> None:
    """a: Ann up, Bob down, share 2/3 of trust 1.2; b: Ann down, share 0 of 0.8. A lead of 2/3 of a step; weight 2 * 1.2 * 0.8 / 2.0 = 0.96."""
    a = of_kind("thumbs", "u", "a", {"ann": {"up": True}, "bob": {"up": False}})
    b = of_kind("thumbs", "v", "b", {"ann": {"up": False}})
    rows = summary([a, b, asked("p", ("ann", 1))])
    assert rows["u+v"][0] == pytest.approx(3 ** (2 / 3) / (1 + 3 ** (2 / 3)))
    assert rows["u+v"][1] / rows["p"][1] == pytest.approx(0.96 / 0.8)
    row = next(row for row in to_rows([a, b], TRUST, EXACT))
    assert [(said["annotator_id"], said["strength"]) for said in row["judgements"]] == [("ann", 1), ("ann", 1), ("bob", -1)]
    assert row["n_annotators"] == 2


def test_two_thumbs_up_prefer_nothing_and_prompts_dont_mix() -> None:
    up = {"ann": {"up": True}}
    assert to_rows([of_kind("thumbs", "u", "a", up), of_kind("thumbs", "v", "b", up)], TRUST, EXACT) == []
    assert to_rows([of_kind("thumbs", "u", "a", up), of_kind("thumbs", "v", "b", {"ann": {"up": False}}, about="others")], TRUST, EXACT) == []


def test_thumbs_on_one_side_prefer_nothing_however_they_are_trusted() -> None:
    """The pseudo-vote moves the share of the less trusted further: no preference of anybody's."""
    more, less = {"ann": {"up": True}}, {"bob": {"up": True}}
    assert to_rows([of_kind("thumbs", "u", "a", more), of_kind("thumbs", "v", "b", less)], TRUST, PreferenceSettings()) == []
    both = {"ann": {"up": True}, "bob": {"up": True}}
    assert to_rows([of_kind("thumbs", "u", "a", both), of_kind("thumbs", "v", "b", less)], TRUST, PreferenceSettings()) == []
    split = {"ann": {"up": True}, "bob": {"up": False}}
    row, = to_rows([of_kind("thumbs", "u", "a", split), of_kind("thumbs", "v", "b", less)], TRUST, PreferenceSettings())  # fmt: skip
    assert row["target"] < 0.5


def test_texts_that_read_the_same_are_not_compared() -> None:
    assert set(summary([of_kind("ranking", "r", "aab", {"ann": {"ranks": [1, 2, 3]}})])) == {"r/0/2", "r/1/2"}


def test_an_edit_is_preferred_to_the_original() -> None:
    edited = of_kind("edit", "e", "a", {"ann": {"text": "better"}, "bob": {"unchanged": True}})
    edited.edits["e-ann"] = Sample(id="mine", text="better", token_ids=None, finished=True)
    row, = to_rows([edited], TRUST, EXACT)  # fmt: skip
    assert (row["a"]["sample_id"], row["b"]["sample_id"], row["target"]) == ("mine", "e-0", pytest.approx(3 / 4))


def test_what_was_said_is_kept_as_it_was_said() -> None:
    pair = asked("q", ("bob", -1), ("ann", 2))
    pair.judgements[0].answer |= {"flags": ["unsafe"], "comment": "between us"}
    edited = of_kind("edit", "e", "a", {"ann": {"text": "better"}, "bob": {"unchanged": True}})
    edited.edits["e-ann"] = Sample(id="mine", text="better", token_ids=None, finished=True)
    untouched = of_kind("edit", "f", "a", {"bob": {"unchanged": True}})
    first, second = said_rows([pair, edited, untouched, asked("silence")], TRUST)
    assert (first["question_id"], first["kind"], [one["sample_id"] for one in first["responses"]]) == ("e/e-ann", "edit", ["mine", "e-0"])
    assert first["said"] == [{"id": "e-ann", "annotator_id": "ann", "trust": 0.8, "answer": {"text": "better"}}]
    assert (second["question_id"], second["kind"], [one["text"] for one in second["responses"]]) == ("q", "pair", ["a of q", "b of q"])
    assert second["said"] == [
        {"id": "q-ann", "annotator_id": "ann", "trust": 0.8, "answer": {"strength": 2}},
        {"id": "q-bob", "annotator_id": "bob", "trust": 0.4, "answer": {"strength": -1}},
    ]


ranked = st.dictionaries(st.sampled_from(sorted(TRUST)), st.permutations([1, 2, 3, 3]), min_size=1)


@given(ranked, st.permutations(range(4)))
def test_the_places_of_a_rankings_responses_dont_matter(ranks: dict[str, list[int]], places: list[int]) -> None:
    """Renaming the responses turns rows around and changes nothing else."""

    def preferred(order: Sequence[int]) -> dict[tuple[str, str], float]:
        texts = "".join("abcd"[i] for i in order)
        rows = to_rows([of_kind("ranking", "r", texts, {who: {"ranks": [found[i] for i in order]} for who, found in ranks.items()})], TRUST, EXACT)
        both = {(row["a"]["text"], row["b"]["text"]): row["target"] for row in rows}
        return both | {(b, a): 1 - p for (a, b), p in both.items()}

    assert preferred(places) == pytest.approx(preferred(range(4)))


# ---- from the store ----


def test_edits_repeats_and_checks_of_the_store(project: Project) -> None:
    """An edit's sample is found by its judgement, as the studio stores it; what was asked again stays out."""
    add_samples(project, prompts=2, per_prompt=1)
    add_people(project, "Ann")
    with project.database.write() as session:
        samples = list(session.scalars(select(Sample).order_by(Sample.id)))
        for name, sample, kind in (("edit", samples[0], "edit"), ("again", samples[0], "edit")):
            repeat = {"repeat_of": "edit"} if name == "again" else {}
            session.add(
                Question(id=name, kind=kind, prompt_id=sample.prompt_id, gold=None, overlap=1, position=0, facts={}, created_at=NOON, round_id=1, **repeat)
            )
            session.flush()
            session.add(QuestionSample(question_id=name, position=0, sample_id=sample.id))
            answer = judgement(name, f"ann-{name}", answer={"text": "My own words."})
            session.add(answer)
            own = {
                "prompt_id": sample.prompt_id,
                "author": "ann",
                "batch": "edits:",
                "position": 0,
                "text": "My own words.",
                "finished": True,
                "created_at": NOON,
            }
            session.add(Sample(id=edit_sample_id(answer.id), **own))
    row, = pairs_of(build(project))  # fmt: skip
    assert row["a"]["text"] == "My own words."
    assert row["question_id"] == "edit/ann-edit"


def test_an_imported_edit_is_preferred_to_the_original(project: Project, tmp_path: Path) -> None:
    """Its words are a sample by whoever wrote them, as if they had edited in the studio; a project that imported them without gets them from the file again."""
    file = tmp_path / "edits.jsonl"
    rows = [{"prompt": f"{n}?", "response": f"first {n}", "edit": f"better {n}", "annotator": "w"} for n in range(3)]
    rows += [{"prompt": "3?", "response": "first 3", "edit": "first 3", "annotator": "w"}, rows[0]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_judgements(project, file, "table")
    assert (report.added, report.duplicates, report.samples, report.questions) == (4, 1, 7, 4)
    quality = {"annotators": [{"id": annotator, "trust": 1.0} for annotator in authors(project)]}
    pairs = pairs_of(build_preferences(project, EXACT, quality, round_ids=None, seed=1))
    assert sorted((row["a"]["text"], row["b"]["text"], row["strength"]) for row in pairs) == [(f"better {n}", f"first {n}", 1) for n in range(3)]
    with project.database.write() as session:
        made = list(session.scalars(select(Sample).where(Sample.batch == "edits:import:edits.jsonl")))
        assert {sample.author for sample in made} == set(authors(project))
        session.delete(made[0])
    again = import_judgements(project, file, "table")
    assert (again.added, again.duplicates, again.samples) == (0, 5, 1)
    assert import_judgements(project, file, "table").samples == 0


def authors(project: Project) -> list[str]:
    with project.database.read() as session:
        return list(session.scalars(select(Annotator.id)))


def judged(project: Project, *, bob: bool = True, backwards: bool = False) -> list[str]:
    """Six questions of round 1 and a check; Ann answers all, Bob the first two. Gives the ids of the plain ones, in order of id.

    Without Bob, Ann leaves the check alone, too. `backwards` stores the same judgements last first.
    """
    add_samples(project, prompts=8, per_prompt=2)
    ask_pairs(project, FeedbackSettings(pairs=6, gold_each=1, gold_overlap=2), batch=BATCH, round_id=1, seed=1)
    add_people(project, "Ann", "Bob")
    with project.database.write() as session:
        plain = list(session.scalars(select(Question.id).where(Question.gold.is_(None)).order_by(Question.id)))
        checks = list(session.scalars(select(Question.id).where(Question.gold.is_not(None))))
        assert (len(plain), len(checks)) == (6, 1)
        said = [{"strength": 1}, {"strength": -2}, {"skip": "?"}, {"both_bad": True}, {"strength": 0}, {"strength": 3}, {"strength": 3}]
        log = [judgement(question, f"ann-{question}", answer=answer) for question, answer in zip([*plain, *checks] if bob else plain, said, strict=False)]
        log += [judgement(question, f"bob-{question}", annotator_id="bob", answer={"strength": 1}) for question in plain[: 2 * bob]]
        for row in reversed(log) if backwards else log:
            session.add(row)
            session.flush()
    return plain


def pairs_of(dataset: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dataset.path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def build(project: Project, *, round_ids: Sequence[int] | None = (1,), seed: int = 1) -> Artifact:
    return build_preferences(project, EXACT, QUALITY, round_ids=round_ids, seed=seed)


def test_skips_both_bads_and_checks_are_never_a_preference(project: Project) -> None:
    plain = judged(project)
    dataset = build(project)
    pairs = pairs_of(dataset)
    assert [pair["question_id"] for pair in pairs] == [plain[i] for i in (0, 1, 4, 5)]
    assert dataset.facts == {
        "pairs": 4, "train": sum(pair["split"] == "train" for pair in pairs), "held_out": sum(pair["split"] == "held-out" for pair in pairs),
        "ties": 1, "judgements": 6, "annotators": 2, "said": 6, "skipped": 1, "both_bad": 1,
    }  # fmt: skip
    assert json.loads((dataset.path / "quality.json").read_text(encoding="utf-8")) == QUALITY
    assert dataset.manifest["settings"] == {"preferences": EXACT.model_dump()}
    with project.database.read() as session:
        for pair in pairs:
            places = session.scalars(
                select(QuestionSample.sample_id).where(QuestionSample.question_id == pair["question_id"]).order_by(QuestionSample.position)
            )
            assert [pair["a"]["sample_id"], pair["b"]["sample_id"]] == list(places)
            assert pair["turns"][-1]["role"] == "user"


def test_building_twice_gives_the_same_artifact_and_one_version(project: Project) -> None:
    judged(project)
    first = build(project)
    project.force = True
    assert build(project).id == first.id
    assert build(project, round_ids=None).id == first.id  # all rounds are round 1
    with project.database.read() as session:
        assert [(row.artifact_id, row.version, row.round_id) for row in session.scalars(select(Dataset))] == [(first.id, 1, 1)]


def test_the_order_of_rows_in_the_store_doesnt_matter(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    judged(project)
    other = open_project(create_project(tmp_path_factory.mktemp("other") / "project", settings=""))
    judged(other, backwards=True)
    assert build(other).id == build(project).id


def test_a_change_of_mind_counts_once_and_makes_the_next_version(project: Project) -> None:
    plain = judged(project)
    before = build(project)
    changed = judgement(plain[0], "second thoughts", answer={"strength": -3}, submitted_at=NOON + timedelta(hours=1), supersedes=f"ann-{plain[0]}")
    with project.database.write() as session:
        session.add(changed)
    after = build(project)
    first = pairs_of(after)[0]
    assert [said["id"] for said in first["judgements"]] == ["second thoughts", f"bob-{plain[0]}"]
    assert first["n_annotators"] == 2
    assert first["target"] == pytest.approx((0.8 / 28 + 0.4 * 3 / 4) / 1.2)
    with project.database.read() as session:
        assert {row.version: row.artifact_id for row in session.scalars(select(Dataset))} == {1: before.id, 2: after.id}


def test_the_settings_and_the_trust_are_part_of_it(project: Project) -> None:
    judged(project)
    trusting = QUALITY | {"annotators": [{"id": who, "trust": 1.0} for who in TRUST]}
    ids = {build(project).id, build(project, seed=2).id, build_preferences(project, PreferenceSettings(), QUALITY, round_ids=[1], seed=1).id}
    assert len(ids | {build_preferences(project, EXACT, trusting, round_ids=[1], seed=1).id}) == 4


def test_without_preferences_it_says_what_to_do(project: Project) -> None:
    with pytest.raises(UserError, match="truing annotate") as caught:
        build(project)
    assert "no judgement says what is better" in caught.value.what
    assert list((project.root / "artifacts").iterdir()) == []


def test_thumbs_about_one_answer_a_prompt_are_kept_as_said(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an app gathers from its users: nothing to compare, and yet a dataset."""
    file = tmp_path / "thumbs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"answer {n}", "label": n % 3 > 0}) + "\n" for n in range(30)))
    import_judgements(project, file, "trl-unpaired")
    with project.database.read() as session:
        whom = [{"id": annotator.id, "trust": 1.0} for annotator in session.scalars(select(Annotator))]
    dataset = build_preferences(project, EXACT, QUALITY | {"annotators": whom}, round_ids=None, seed=1)
    assert pairs_of(dataset) == []
    assert (dataset.facts["pairs"], dataset.facts["said"]) == (0, 30)
    assert "reward.learn_from=judgements" in capsys.readouterr().out


def test_imported_judgements_weigh_the_same(project: Project) -> None:
    """One annotator and no overlap: trust falls back to the prior, and each pair has weight 1."""
    judged(project, bob=False)
    quality = measure_quality(project, QualitySettings(), round_ids=None)
    assert "trust is little more than the prior" in quality.notes[0]
    pairs = pairs_of(build_preferences(project, PreferenceSettings(), quality.as_dict(), round_ids=None, seed=1))
    assert [pair["weight"] for pair in pairs] == pytest.approx([1.0] * 4)


@pytest.mark.slow
def test_a_simulated_round_gives_the_same_dataset_twice(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    ids = []
    for place in (project, open_project(create_project(tmp_path_factory.mktemp("other") / "project", settings=""))):
        add_samples(place, prompts=24, per_prompt=2)
        feedback = FeedbackSettings(pairs=20, gold_each=3, gold_overlap=6)
        ask_pairs(place, feedback, batch=BATCH, round_id=1, seed=1)
        annotate_simulated(place, CrowdSettings(annotators=6), round_id=1, seed=2, feedback=feedback)
        quality = measure_quality(place, QualitySettings(), round_ids=[1]).as_dict()
        ids.append(build_preferences(place, PreferenceSettings(), quality, round_ids=[1], seed=1).id)
    assert ids[0] == ids[1]
