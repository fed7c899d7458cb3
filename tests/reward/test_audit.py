"""The bias audit: a liking that was put in is found, and only it; a blind scorer and a noisy one are cleared; the texts differ in nothing but the form."""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing import stats
from truing.reward.card.audit import CONTROL, DATA, LEVEL, MEDIAN, Table, _smallest, against_others, audit, read_forms, tables

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

FORMS, AGAINST = read_forms()


class Liking:
    """A scorer by a rule of the whole text."""

    def __init__(self, like: Callable[[str], float]) -> None:
        self.like = like

    def score_texts(self, prompts: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        texts = ["\n".join([*(turn["content"] for turn in turns), response]) for turns, response in zip(prompts, responses, strict=True)]
        return [self.like(text) for text in texts], [0.0] * len(texts)


def noise(text: str, size: float = 0.3) -> float:
    """A normal number that follows from the text."""
    return random.Random(text).gauss(0, size)


def found(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["family"], one["group"]) for one in result["found"]]


def test_a_name_that_is_liked_by_a_half_is_caught_and_no_other() -> None:
    result = audit(Liking(lambda text: 0.5 * ("Fatima" in text)), seed=1)
    assert found(result) == [("names", "Arabic, women")]
    effect = result["found"][0]["effect"]
    assert effect == {"value": pytest.approx(0.5 / 3), "low": pytest.approx(0.5 / 3), "high": pytest.approx(0.5 / 3), "n": 16}
    assert "names, Arabic, women: +0.17 [+0.17, +0.17] against the family median" in result["sentence"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_dislike_is_caught_through_noise() -> None:
    dialect = {form.prompt + form.response for form in FORMS if form.group == "Scottish English"}
    result = audit(Liking(lambda text: noise(text) - 0.6 * (text.replace("\n", "", 1) in dialect)), seed=1)
    assert found(result) == [("dialects", "Scottish English")]
    effect = result["found"][0]
    assert effect["against"] == "standard English"
    assert effect["effect"]["low"] < -0.6 < effect["effect"]["high"] < 0


def test_what_neutral_words_do_as_well_is_no_finding() -> None:
    """All words of the slot are liked by their number of letters; one nationality is disliked for more than that."""
    words = sorted({form.group for form in FORMS if form.family in (CONTROL, "nationalities")})
    result = audit(Liking(lambda text: sum(len(word) / 50 for word in words if f" {word} " in text) - 0.5 * (" Turkish " in text)), seed=1)
    assert result["control"]["floor"] > 0
    assert found(result) == [("nationalities", "Turkish")]
    small = [effect for family in result["families"] for effect in family["effects"] if effect["p_adjusted"] < LEVEL and not effect["found"]]
    assert small
    assert all(abs(effect["effect"]["value"]) <= result["control"]["floor"] for effect in small)


def test_who_is_blind_to_all_has_no_effect() -> None:
    result = audit(Liking(lambda text: 0.7), seed=1)
    assert result["found"] == []
    assert all(effect["effect"]["value"] == 0 and effect["p"] == effect["p_adjusted"] == 1 for family in result["families"] for effect in family["effects"])
    assert result["control"]["floor"] == 0
    assert result["sentence"] == "These words move no score at all (55 groups, 80 templates)."


def test_noise_alone_is_no_effect_and_the_sentence_says_what_would_have_been_seen() -> None:
    result = audit(Liking(noise), seed=1)
    assert result["found"] == []
    assert 0.1 < result["smallest"] < 0.4  # 4.2 standard errors: of 16 or 24 templates with a spread of 0.3, over one form or three
    assert f"the smallest that would have been seen is about {result['smallest']:.2f} (55" in result["sentence"]
    assert {family["name"]: family["n_templates"] for family in result["families"]} == {
        "ages": 16, "dialects": 24, "disability": 16, "names": 16, "nationalities": 16, "pronouns": 24, "religions": 16,
    }  # fmt: skip
    by_name = {family["name"]: family for family in result["families"]}
    assert by_name["dialects"]["against"] == "standard English"
    assert by_name["names"]["against"] == MEDIAN
    assert 0.27 < by_name["names"]["spread"]["value"] < 0.33


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((1, 1, 1), 2 / 8),  # only +++ and --- add up to 3
        ((1, 2, 3, -1), 6 / 16),  # the sum is 5; 7 in two ways and 5 in four
        ((1, 2, -3), 1.0),  # the sum is 0
        ((0, 0), 1.0),
    ],
)
def test_p_by_hand(differences: tuple[float, ...], p: float) -> None:
    assert stats.sign_flip_p(np.array(differences, dtype=float)[:, None], seed=0).tolist() == [p]


def test_drawn_signs_come_near_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=(12, 8))
    every = stats.sign_flip_p(differences, seed=0)
    monkeypatch.setattr(stats, "EXACT", 0)
    assert stats.sign_flip_p(differences, seed=0) == pytest.approx(every, abs=1e-2)
    signs = np.array(list(product((-1, 1), repeat=12)))  # the same by the definition
    assert every[0] == np.mean(abs((signs * differences[:, 0]).sum(1)) >= abs(differences[:, 0].sum()) - 1e-12)


def test_without_an_effect_p_is_uniform() -> None:
    p = stats.sign_flip_p(np.random.default_rng(1).normal(size=(24, 1000)), seed=0)
    assert 0.03 < np.mean(p < 0.05) < 0.07
    assert 0.46 < np.mean(p) < 0.54


def test_the_smallest_effect_that_is_named_is_seen_four_times_in_five() -> None:
    effects, templates = 55, 24
    smallest = _smallest(1 / templates**0.5, effects, 0.0)
    p = stats.sign_flip_p(np.random.default_rng(2).normal(smallest, 1, size=(templates, 400)), seed=0)
    assert 0.6 < np.mean(p < LEVEL / effects) < 0.9
    floor = 2.0  # far above what the correction asks for: then the mean has to pass it
    means = np.random.default_rng(3).normal(_smallest(1 / templates**0.5, effects, floor), 1, size=(templates, 40_000)).mean(0)
    assert np.mean(means > floor) == pytest.approx(0.8, abs=1e-2)


@given(st.integers(0, 5), st.floats(-3, 3), st.integers(0, 10))
def test_one_group_set_apart_doesn_t_set_the_others_apart(group: int, by: float, seed: int) -> None:
    level = np.random.default_rng(seed).normal(size=(8, 1))  # of each template: harder or easier texts
    scores = np.repeat(level, 6, axis=1)
    scores[:, group] += by
    leads = against_others(Table(tuple("abcdef"), scores, np.zeros(8)), None)
    assert leads[:, group] == pytest.approx(by, abs=1e-8)
    assert np.delete(leads, group, axis=1).tolist() == np.zeros((8, 5)).tolist()


def test_what_is_dealt_out_anew_in_every_template_is_no_effect() -> None:
    scores = np.zeros((24, 12))
    scores[:, 3] = 1.0
    assert stats.sign_flip_p(against_others(Table(tuple("abcdefghijkl"), scores, np.zeros(24)), None), seed=0)[3] < LEVEL / 12
    dealt = np.random.default_rng(3).permuted(scores, axis=1)
    assert min(stats.sign_flip_p(against_others(Table(tuple("abcdefghijkl"), dealt, np.zeros(24)), None), seed=0)) > LEVEL


def test_a_group_s_score_is_the_mean_of_its_forms() -> None:
    scores = [float(form.group == "about 20") + ("19-year-old" in form.prompt + form.response) for form in FORMS]
    ages = tables(FORMS, scores)["ages"]
    assert ages.scores.shape == (16, 5)
    assert ages.scores[:, ages.groups.index("about 20")].tolist() == [1.5] * 16
    assert ages.scores.sum() == 16 * 1.5


def test_the_order_of_the_lines_is_of_no_account(tmp_path: Path) -> None:
    lines = DATA.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    (tmp_path / "shuffled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_forms(tmp_path / "shuffled.jsonl") == (FORMS, AGAINST)


def test_the_texts_differ_in_the_form_alone() -> None:
    assert len(set(FORMS)) == len(FORMS)
    assert not any(sign in form.prompt + form.response for form in FORMS for sign in "{}")
    assert all(form.prompt.strip() == form.prompt != "" and form.response.strip() == form.response != "" for form in FORMS)
    families: dict[str, dict[str, list[Any]]] = {}
    for form in FORMS:
        families.setdefault(form.family, {}).setdefault(form.template, []).append(form)
    for family, templates in families.items():
        assert len(templates) >= 16
        assert len({tuple(Counter(form.group for form in forms).items()) for forms in templates.values()}) == 1, "every template has every form"
        in_prompt = sum(len({form.prompt for form in forms}) > 1 for forms in templates.values())
        in_response = sum(len({form.response for form in forms}) > 1 for forms in templates.values())
        assert in_prompt + in_response == len(templates), f"{family}: a slot stands in the prompt or in the response, not in both"
        assert min(in_prompt, in_response) >= 8


def test_forms_fit_where_they_stand() -> None:
    """No `a` that should be an `an`, and no verb that agrees with one pronoun alone."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    texts = [text for row in rows if "prompt" in row for text in row.values()]
    assert not any(f"{word} {{kind}}" in text or f"{word} {{name}}" in text for text in texts for word in ("a", "an", "A", "An"))
    assert not any(
        f"{they} {verb} " in text for text in texts for they in ("{they}", "{They}") for verb in ("is", "are", "was", "were", "has", "have", "does", "do")
    )
