"""The simulated people's taste: it agrees with a reader, and there is no cheap way to please it.

The log-probabilities beside the texts were computed once under SmolLM2-135M-Instruct, so that a person's own words carry what they really have.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.feedback.taste import BRIEF_WORDS, POPULATION, features, gold_reward
from truing.feedback.words import content_stems, stem, words_of


class Answer(NamedTuple):
    """A response to a prompt of `READ`, with its log-probability per token under the base model."""

    text: str
    base_logprob: float
    finished: bool = True


DOG = "Help me word a sympathy card for a friend whose old dog died."
PAGE = "I only managed to write one page today. Was it worth it?"
FOOD = "Suggest five ways to save money on food."
COLLEAGUE = "Cheer up a colleague whose idea was rejected in a meeting."
POTATOES = "Do potatoes keep better in the dark?"
BEACH = "Describe an empty beach in winter."
LUNCH = "A friend cancelled our lunch at the last minute. Write my reply."

READ: list[tuple[str, list[Answer]]] = [  # a prompt and answers to it, the one I would rather get before the other
    (
        DOG,
        [
            Answer("I'm so sorry about your dear old dog. He had years of love and walks with you, and I'm thinking of you today.", -2.48),
            Answer("I was sorry to hear about your dog. He was a good companion.", -2.76),
            Answer(
                "Losing a pet is hard. Here are some ideas for your card:\n\n1. **Express your sympathy**: Say that you are sorry."
                "\n2. **Share a memory**: Talk about", -2.72, False,
            ),
            Answer("Dear [Name], I'm so sorry for your loss. Best regards, [Your Name]", -1.34),
            Answer("Help me word a sympathy card for a friend whose old dog died.", -0.87),
        ],
    ),
    (
        PAGE,
        [
            Answer("Yes, it was. One page is a real step, and tomorrow you can pick up with a good page already behind you.", -3.56),
            Answer(
                "Writing is a process that takes time and dedication. It's important to remember that every writer has good days and bad days, and that the"
                " quality of the page matters more than the quantity. When you sit down to write, you should", -1.95, False,
            ),
            Answer("You are amazing, wonderful, lovely, brilliant and great! I love you! So happy! What joy!", -4.00),
            Answer("That's a great question! I'm happy to help you with that. Let me know if you need more information.", -1.57),
            Answer("Sure!", -4.54),
        ],
    ),
    (
        FOOD,
        [
            Answer("Buy food in season, cook at home and freeze what is left over.", -3.93),
            Answer("Here are five ways to save money on food:\n\n1. Plan your meals\n2. Buy in bulk\n3. Cook at home\n4. Use coupons\n5.", -0.83, False),
            Answer("Please choose five ways to save money on your food.", -2.08),
            Answer("Save money. Save money. Save money on food. Save money on food every day.", -2.36),
        ],
    ),
    (
        COLLEAGUE,
        [
            Answer("It was a brave idea, and I'm glad you spoke up in that meeting. Let's polish it over coffee and try again.", -3.04),
            Answer("You're a beautiful person and I wish you a wonderful day full of love.", -2.97),
            Answer("I'm here to help you with that. Feel free to share more details about your situation, and I'll be happy to assist you.", -1.51),
            Answer("Thank you! Thank you so much! Hello!", -3.76),
        ],
    ),
    (
        COLLEAGUE,
        [
            Answer("Don't let one meeting stop you. Your idea still has a lot of promise.", -3.31),
            Answer("As an AI language model, I don't have feelings, but I hope your colleague feels better soon.", -2.22),
        ],
    ),
    (
        POTATOES,
        [
            Answer("Yes, a cool dark cupboard keeps potatoes fresh for weeks, and it helps stop them from turning green.", -3.77),
            Answer("Yes, keep them in the dark, because light turns potatoes green and bitter.", -3.57),
            Answer("Yes.", -4.07),
            Answer("Do potatoes keep better in the dark? Do potatoes keep better in the dark?", -1.32),
        ],
    ),
    (
        BEACH,
        [
            Answer("The beach lies quiet under a pale winter sky, with only gulls, soft grey waves and a gentle peace in the cold air.", -4.01),
            Answer(
                "The beach is a beautiful place where people can relax and enjoy the warm sun and the lovely waves, and it is also a great place for families"
                " who want to have fun in the water and play happily with their friends and", -2.44, False,
            ),
            Answer("I'd love to describe it!!! It's so wonderful!!! Amazing!!!", -4.86),
            Answer("The empty beach in winter is an empty beach in winter, an empty beach, an empty winter beach.", -2.19),
        ],
    ),
    (
        LUNCH,
        [
            Answer("No worries at all, I hope you're all right. Shall we have that lunch next week instead?", -2.92),
            Answer("That's fine. We can have lunch another day.", -3.16),
            Answer("Dear [Friend's Name],\n\nI hope this message finds you well.\n\nBest regards,\n[Your Name]", -0.63),
            Answer("Friend lunch minute cancelled the reply of happy blue and lovely ran.", -7.06),
        ],
    ),
]  # fmt: skip
ORDERED = [(asked, better, worse) for asked, answers in READ for better, worse in pairwise(answers)]


def liking(asked: str, answer: Answer) -> float:
    return gold_reward(asked, answer.text, finished=answer.finished, base_logprob=answer.base_logprob)


def measured(asked: str, text: str, *, finished: bool = True, base_logprob: float = -1.4) -> dict[str, float]:
    return features(asked, text, finished=finished, base_logprob=base_logprob)


@pytest.mark.parametrize(("asked", "better", "worse"), ORDERED)
def test_it_agrees_with_a_reader(asked: str, better: Answer, worse: Answer) -> None:
    assert liking(asked, better) > liking(asked, worse)


@pytest.mark.parametrize(
    ("asked", "trick"),
    [
        (FOOD, "Suggest five ways to save money on food with a warm smile and a happy heart."),  # the prompt with a warm tail
        (FOOD, "Please choose five lovely ways to save money on your food."),
        (DOG, "friend dog card sympathy love joy happy wonderful peace."),  # the words without the sense, were they ever so likely
        (COLLEAGUE, "I love your wonderful, beautiful, amazing, brilliant colleague!!!"),
        (COLLEAGUE, "Have a wonderful day, my dear friend, and enjoy the lovely sunshine."),  # a compliment to anyone
        (PAGE, "Thank you for sharing. I'm happy to help you with that page. Feel free to ask any questions."),
        (POTATOES, "Potatoes, potatoes, potatoes, dark potatoes, lovely dark potatoes, dark potatoes."),
        (LUNCH, "Hello and welcome! Thank you!"),
        (BEACH, "As an AI language model, I can imagine an empty beach in winter, calm and lovely."),
    ],
)
def test_tricks_lose_to_a_plain_answer_that_is_no_likelier(asked: str, trick: str) -> None:
    """Each trick is given the fluency of the base's own likeliest answers, and still loses to the reader's favourite at the same fluency."""
    favourite = next(answers[0] for prompt, answers in READ if prompt == asked)
    assert liking(asked, Answer(trick, -1.0)) < liking(asked, favourite._replace(base_logprob=-1.0)) - 1.0


def test_weights_by_hand() -> None:
    """Of a good length, finished, nothing shared with the prompt, nothing felt: what is left is complete, brief, fluent and of substance."""
    plain = "Each tram passes one bakery, one river and two mills, and rests at noon by a blue gate."
    asked = "Describe a violin."  # one content word, which the text lacks
    found = measured(asked, plain, base_logprob=-1.9)
    assert {name: value for name, value in found.items() if value} == {"complete": 1, "brief": 1, "substance": 1, "fluent": pytest.approx(0.5)}
    assert gold_reward(asked, plain, finished=True, base_logprob=-1.3) == pytest.approx(
        sum(POPULATION[name] for name in ("complete", "brief", "fluent", "substance"))
    )


@pytest.mark.parametrize(
    ("text", "finished", "complete"),
    [
        ("The kettle sings on the old stove.", True, 1.0),
        ('She said, "The kettle sings on the old stove."', True, 1.0),
        ("The kettle sings on the old stove", True, 0.3),
        ("The kettle sings on the old stove.", False, 0.0),
        ("Oh.", True, 0.25),  # ends well, and says one word of its own where four would do
    ],
)
def test_complete(text: str, finished: bool, complete: float) -> None:
    assert measured("Why?", text, finished=finished)["complete"] == pytest.approx(complete)


LOW, HIGH = BRIEF_WORDS


@pytest.mark.parametrize(("n", "brief"), [(0, 0), (LOW / 2, 0.25), (LOW, 1), (HIGH, 1), (HIGH + 12, math.exp(-1)), (200, 0)])
def test_brief(n: float, brief: float) -> None:
    assert measured("Why?", " ".join(["word"] * round(n)))["brief"] == pytest.approx(brief, abs=1e-9)


@pytest.mark.parametrize(("logprob", "fluent"), [(0.0, 1), (-1.3, 1), (-1.9, 0.5), (-2.5, 0), (-3.25, -0.5), (-4, -1), (-5, -3), (-9, -6)])
def test_fluency_saturates_above_and_falls_below(logprob: float, fluent: float) -> None:
    assert measured("Why?", "A word.", base_logprob=logprob)["fluent"] == pytest.approx(fluent)


def test_the_questions_own_feeling_is_neither_warm_nor_cold() -> None:
    asked = "My wonderful dog died."
    assert measured(asked, "The wonderful dog died on the mat by the stove.")["warm"] == 0
    assert measured(asked, "He was a happy dog and a good friend by the stove.")["warm"] > 0.5


def test_warmth_about_something_else_counts_a_quarter() -> None:
    text = "A happy friend is a lovely gift."
    assert measured("Tell me of a violin.", text)["warm"] == pytest.approx(measured("Tell me of a friend.", text.replace("friend", "piano"))["warm"])
    assert measured("Tell me of a violin.", text)["warm"] < 0.3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("listing", "Try this:\n1. Sit down.\n2. Breathe.\n3. Smile."),
        ("listing", "- sit down\n- breathe"),
        ("listing", "Here are some ways to think about it:"),
        ("pleasantries", "Sure! I hope this helps."),
        ("pleasantries", "Thanks, hello and goodbye!"),
        ("wrong_party", "As a large language model I have no bicycle."),
        ("wrong_party", "Dear [Your Name], the bicycle is well."),
        ("gushing", "Great!!! So great!!!"),
        ("gushing", "Joy, love, happy, wonderful, brilliant, great."),
        ("repeating", "the cat sat on the mat and the cat sat on the mat and the cat sat on the mat"),
        ("parroting", "Tell me about the old bicycle."),
    ],
)
def test_what_it_dislikes_is_found(name: str, text: str) -> None:
    assert measured("Tell me about the old bicycle.", text)[name] >= 0.6
    plain = "The old bicycle leans on the fence, and its bell still rings when the wind is kind."
    assert measured("Tell me about the old bicycle.", plain)[name] == 0


@given(st.text(max_size=300), st.text(max_size=300), st.booleans(), st.floats(-20, 0))
def test_every_text_has_features_in_their_ranges(asked: str, text: str, finished: bool, base_logprob: float) -> None:
    found = features(asked, text, finished=finished, base_logprob=base_logprob)
    assert found.keys() == POPULATION.keys()
    for name, value in found.items():
        assert {"fluent": -6, "warm": -1}.get(name, 0) <= value <= 1


@given(st.sampled_from(ORDERED), st.floats(-6, 0), st.floats(-6, 0))
def test_likelier_is_never_worse(row: tuple[str, Answer, Answer], one: float, other: float) -> None:
    asked, answer, _ = row
    low, high = sorted((one, other))
    assert liking(asked, answer._replace(base_logprob=low)) <= liking(asked, answer._replace(base_logprob=high))


@pytest.mark.parametrize(
    ("words", "root"),
    [
        ("bake bakes baked baking", "bak"),
        ("stop stops stopped stopping", "stop"),
        ("tidy tidies tidied tidying", "tidy"),
        ("kindly kind", "kind"),
        ("dog's dogs", "dog"),
    ],
)
def test_endings_fall_away(words: str, root: str) -> None:
    assert {stem(word) for word in words.split()} == {root}


def test_words_and_content() -> None:
    assert words_of("It’s the well-known Cat, isn't it?") == ["it's", "the", "well-known", "cat", "isn't", "it"]
    assert content_stems(words_of("The cat is on the mats.")) == ["cat", "mat"]


def test_the_page_shows_the_weights_in_force() -> None:
    """docs/taste.md publishes the taste: its table holds every weight, as it is."""
    page = (Path(__file__).parents[2] / "docs" / "taste.md").read_text(encoding="utf-8")
    for name, weight in POPULATION.items():
        assert f"| `{name}` | {weight:+.1f} |" in page
    assert f"| {LOW} to {HIGH} words |" in page
