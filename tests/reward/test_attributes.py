"""Attributes: by hand on short texts, and a finite number for any text at all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.tastes import turns
from truing.reward.probe.attributes import ATTRIBUTES, BASE_LOGPROB, Case, content_of, ends_whole, measured, said, sentences_of


def case(text: str, *, prompt: str = "How do I bake bread at home?", finished: bool = True, base_logprob: float | None = None) -> Case:
    return Case("p", turns(prompt), text, finished, base_logprob)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("words", "It's a well-known fact, isn’t it?", 6),
        ("words", "", 0),
        ("whole_ending", 'He said "go."', 1),
        ("whole_ending", "and then he", 0),
        ("list_lines", "Take:\n1. flour\n2) salt\n- water\n  * yeast\nor 3. not", 4),
        ("hedges", "Perhaps it works, and it may be fine. I think so.", 3),
        ("certainty", "It is certainly so, without a doubt, always.", 3),
        ("refusal", "I’m sorry, but I can’t do that.", 1),
        ("refusal", "I can do that.", 0),
        ("flattery", "What a great question! You are clearly very smart.", 2),
        ("formulas", "Sure! Do this. I hope this helps. Feel free to ask.", 3),
        ("as_model", "As an AI language model, I know.", 1),
        ("as_model", "As an old baker, I know.", 0),
        ("overlap", "Bake the bread in a tin.", 2 / 3),  # bake, bread of bake, bread, home
        ("overlap", "Go away.", 0),
        ("parroting", "how do i bake a cake", 2 / 4),  # how do i, do i bake of four
        ("repetition", "a b a b", 1 / 3),  # a b, b a, a b
        ("exclamations", "No! Yes!!", 3),
        ("questions", "What? Why?", 2),
        ("markdown", "# Head\n**bold** and `code`", 5),
        ("emoji", "Good \U0001f600 ☀", 2),
        ("numbers", "In 1990, 3.5 of 10,000 at 7:30", 4),
        ("negations", "It is not so, and never wasn't.", 3),
        ("first_person", "I see my cat.", 2 / 4),
        ("second_person", "You see your cat", 2 / 4),
        ("letters", "ab abcd", 3),
        ("warmth", "", 0),
    ],
)
def test_attributes_by_hand(name: str, text: str, value: float) -> None:
    assert ATTRIBUTES[name].measure(case(text)) == pytest.approx(value)


def test_finished_is_what_the_sample_says() -> None:
    assert [ATTRIBUTES["finished"].measure(case("a.", finished=ended)) for ended in (True, False)] == [1, 0]


def test_warmth_is_the_mean_feeling_of_the_sentences() -> None:
    measure = ATTRIBUTES["warmth"].measure
    warm, cold = measure(case("I love this happy day.")), measure(case("I hate this awful mess."))
    assert warm > 0.5
    assert cold < -0.5
    assert measure(case("I love this happy day. I hate this awful mess.")) == pytest.approx((warm + cold) / 2)
    assert measure(case("The box is on the table.")) == 0


def test_sentences_keep_numbers_and_quotes_together() -> None:
    text = 'It was 1990. He said "Go!" She went. 1. First thing 2. second\nA line without a stop'
    assert sentences_of(text) == ["It was 1990.", 'He said "Go!"', "She went.", "1. First thing 2. second", "A line without a stop"]
    assert sentences_of(" \n ... ") == []
    assert [ends_whole(text) for text in ("Yes.", "Yes.)", "Yes…", "Yes", "")] == [True, True, True, False, False]


def test_content_is_the_beginning_of_words_that_carry_meaning() -> None:
    assert content_of("Baking would be about the Bakery") == {"bakin", "baker"}


def test_the_likelihood_is_an_attribute_where_it_is_known_of_every_case() -> None:
    names, rows = measured([case("One.", base_logprob=-1.5), case("Two.", base_logprob=-2.0)])
    assert names[-1] == BASE_LOGPROB
    assert [row[-1] for row in rows] == [-1.5, -2.0]
    names, rows = measured([case("One.", base_logprob=-1.5), case("Two.")])
    assert names == list(ATTRIBUTES)
    assert [len(row) for row in rows] == [len(names)] * 2
    assert said(BASE_LOGPROB) != said("words") == "words"


@given(st.text(), st.text(min_size=1), st.booleans())
def test_every_attribute_is_a_finite_number_of_any_text(text: str, prompt: str, finished: bool) -> None:
    found = {name: attribute.measure(case(text, prompt=prompt, finished=finished)) for name, attribute in ATTRIBUTES.items()}
    assert all(math.isfinite(value) for value in found.values()), found
    assert all(0 <= found[name] <= 1 for name in ("overlap", "parroting", "repetition", "first_person", "second_person", "refusal", "as_model"))
