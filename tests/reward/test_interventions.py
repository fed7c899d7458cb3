"""Edits: what each makes of a text, that it counts only where a measure says that it took, and what the effects come to by hand."""

import random
from pathlib import Path

import pytest

from reward.tastes import made_up, turns
from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.reward.probe import edits, interventions
from truing.reward.probe.attributes import ATTRIBUTES, Case
from truing.reward.probe.edits import Draw, Edit, raises, whole
from truing.reward.probe.interventions import EDITS, Pair, apply_edits
from truing.reward.probe.steering import INSTRUCTIONS, counted, rewrite, same_subject, unwrapped

TEXT = "The oven is hot after 20 minutes. Put the loaf in the middle. It is done when the crust sounds hollow."


def case(text: str = TEXT, *, prompt: str = "How do I bake a loaf?", prompt_id: str = "p", finished: bool = True) -> Case:
    return Case(prompt_id, turns(prompt), text, finished)


SIBLING = case("Knead the dough for long.")
STRANGER = case("Tune the low string first.", prompt="How do I tune a guitar?", prompt_id="q")


def made(name: str, text: str = TEXT, *, seed: int = 0, finished: bool = True) -> Case | None:
    return EDITS[name].make(case(text, finished=finished), Draw(random.Random(seed), [SIBLING], [STRANGER]))


def text_of(name: str, text: str = TEXT, *, seed: int = 0) -> str:
    found = made(name, text, seed=seed)
    assert found is not None
    return found.text


# ---- what an edit makes ----


def test_whole_leaves_a_broken_last_sentence_out() -> None:
    assert whole(case("One is here now. Two is", finished=False)) == case("One is here now.")
    assert whole(case("One is here now.", finished=False)) == case("One is here now.")
    assert whole(case("One without a stop")) == case("One without a stop")  # it ended by itself
    assert whole(case("One without a stop", finished=False)) is None
    assert whole(case("No.", finished=False)) is None


def test_edits_of_length_and_end() -> None:
    assert text_of("shorter") == "The oven is hot after 20 minutes. Put the loaf in the middle."
    assert made("shorter", "One sentence alone.") is None
    assert text_of("twice_as_long", "It is hot.") == "It is hot. Knead the dough for long."
    assert text_of("longer") == f"{TEXT} Knead the dough for long."
    cut = made("cut_off")
    assert cut is not None
    assert not cut.finished
    assert TEXT.startswith(cut.text)
    assert cut.text.startswith("The oven is hot after 20 minutes. Put the loaf in the middle. It is")
    assert made("cut_off", "Too short.") is None


def test_edits_of_form() -> None:
    lines = ["The oven is hot after 20 minutes.", "Put the loaf in the middle.", "It is done when the crust sounds hollow."]
    forms = {text_of("as_list", seed=seed) for seed in range(8)}
    assert forms == {"\n".join(f"- {line}" for line in lines), "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))}
    for form in forms:
        assert text_of("as_prose", form) == TEXT
        assert made("as_list", form) is None
    assert text_of("exclaimed", "It costs 2.50 now. Buy it.") == "It costs 2.50 now! Buy it!"
    assert text_of("bolded", "A considerable difference, at last.") == "A **considerable** **difference**, at last."
    assert text_of("said_twice", "One here. Two there.") == "One here. Two there. Two there."


def test_edits_of_what_is_said() -> None:
    assert text_of("off_topic") == STRANGER.text
    wrong = text_of("wrong_fact")
    assert wrong != TEXT
    assert wrong.replace(wrong.split()[5], "20", 1) == TEXT  # two digits stay two
    assert text_of("wrong_fact", "The oven is hot. It is big.") == "The oven is not hot. It is big."
    assert text_of("wrong_fact", "1. The oven is hot.\n2. It is big.") == "1. The oven is not hot.\n2. It is big."
    assert made("wrong_fact", "Bake bread daily.") is None
    assert "How do I bake a loaf?" in text_of("repeats_prompt")


def test_a_lead_makes_the_first_word_small_unless_it_is_a_name_or_i() -> None:
    assert edits.led("Perhaps")(case("The sky is blue."), Draw(random.Random(0), [], [])) == case("Perhaps the sky is blue.")
    assert edits.led("Perhaps")(case("I see the sky."), Draw(random.Random(0), [], [])) == case("Perhaps I see the sky.")


def test_a_sentence_beside_a_list_has_a_line_of_its_own() -> None:
    listed = "- Go home.\n- Eat well."
    assert "\n- Go home.\n- Eat well." in text_of("flattering", listed)
    assert text_of("polite_closer", listed).startswith("- Go home.\n- Eat well.\n")
    assert made("hedged", listed) is None


def test_a_word_of_the_same_meaning_keeps_its_capital() -> None:
    assert text_of("synonym", "It is so.") == "It's so."
    assert text_of("synonym", "Choose one.") == "Pick one."
    assert made("synonym", "Nothing.") is None


PHRASES = {
    "warmer": interventions.WARM, "blunter": interventions.BLUNT, "hedged": interventions.HEDGES, "confident": interventions.CERTAIN,
    "refusal": interventions.REFUSALS, "flattering": interventions.FLATTERY, "polite_opener": interventions.OPENERS,
    "polite_closer": interventions.CLOSERS, "filler": interventions.FILLER, "as_model": interventions.AS_MODEL, "asks_back": interventions.BACK,
    "emoji": interventions.SMILES,
}  # fmt: skip


@pytest.mark.parametrize(("name", "phrase"), [(name, phrase) for name, phrases in PHRASES.items() for phrase in phrases])
def test_every_phrase_moves_what_it_is_for(name: str, phrase: str) -> None:
    make = edits.led(phrase) if name in ("hedged", "confident") else edits.replaced(phrase) if name == "refusal" else edits.opened(phrase)
    edited = make(case(), Draw(random.Random(0), [], []))
    assert edited is not None
    assert EDITS[name].took(case(), edited)


@pytest.mark.parametrize("phrase", interventions.FILLER)
def test_filler_says_nothing(phrase: str) -> None:
    """It is what length is measured by, so it may have nothing of what else is asked about."""
    quiet = ("warmth", "hedges", "certainty", "refusal", "flattery", "formulas", "as_model", "exclamations", "questions", "markdown", "numbers", "negations")
    assert {name: ATTRIBUTES[name].measure(case(phrase)) for name in quiet} == dict.fromkeys(quiet, 0)


def test_phrases_of_a_kind_are_several_and_all_drawn() -> None:
    for name, phrases in PHRASES.items():
        drawn = {text_of(name, seed=seed) for seed in range(200)}
        assert all(any(phrase in text for text in drawn) for phrase in phrases), name


# ---- trying them ----


def test_an_edit_counts_only_where_it_took() -> None:
    cases = [case(f"Number {number} is here now.", prompt_id=f"p{number}") for number in range(6)]
    shy = Edit("nothing at all", lambda one, draw: one._replace(text=one.text + ("!" if "3" in one.text else " ")), raises("exclamations", 1))
    found = apply_edits(cases, cases, seed=1, table={"shy": shy})["shy"]
    assert found.tried == 6
    assert [pair.before.prompt_id for pair in found.pairs] == ["p3"]


def test_made_up_responses_can_be_edited_in_every_way() -> None:
    cases = made_up(40)
    found = apply_edits(cases, cases, seed=1)
    assert {name for name, tried in found.items() if not tried.pairs} == set()
    for name, tried in found.items():
        assert all(EDITS[name].took(pair.before, pair.after) for pair in tried.pairs)
        assert len(tried.pairs) <= tried.tried <= len(cases)
        assert all(pair.before.prompt_id == pair.after.prompt_id and pair.before.turns == pair.after.turns for pair in tried.pairs)
    assert all(not pair.before.finished and pair.after.finished for pair in found["completed"].pairs)
    assert all(pair.before.finished for name, tried in found.items() if name != "completed" for pair in tried.pairs)


def test_an_edit_depends_on_its_seed_and_its_own_case() -> None:
    cases = made_up(12)
    assert apply_edits(cases, cases, seed=1) == apply_edits(cases, cases, seed=1)
    assert apply_edits(cases, cases, seed=1)["warmer"] != apply_edits(cases, cases, seed=2)["warmer"]
    alone = apply_edits(cases[:1], cases, seed=1)["warmer"].pairs
    assert alone == [pair for pair in apply_edits(cases, cases, seed=1)["warmer"].pairs if pair.before == alone[0].before][:1]


# ---- the base model's ----


def test_the_base_rewrites_and_only_what_took_counts(tiny_model: Path) -> None:
    """A random model writes noise: it is tried on every response, and nothing of it may count unless the measure moved."""
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    cases, beats = [case("The box is here. It is red."), case("No end", finished=False), case("word " * 60 + "end.")], []
    found = rewrite(trunk, cases, seed=1, beat=lambda **facts: beats.append(facts))
    assert set(found) == set(INSTRUCTIONS)
    assert [tried.tried for tried in found.values()] == [2] * len(INSTRUCTIONS)  # one has no whole sentence
    for name, tried in found.items():
        assert all(INSTRUCTIONS[name].edit.took(*pair) and same_subject(*pair) and whole(pair.after) == pair.after for pair in tried.pairs)
    assert beats[-1]["done"] == beats[-1]["total"] == 2 * len(INSTRUCTIONS)
    assert found == rewrite(trunk, cases, seed=1, beat=lambda **facts: None)


def test_a_rewriting_counts_if_it_moved_kept_its_subject_and_has_a_whole_sentence() -> None:
    warmer, before = INSTRUCTIONS["rewritten_warmer"].edit, case("Put the loaf in the oven.")
    good = case("Put the lovely loaf in the oven, happy friend. And then", finished=False)
    assert counted(warmer, before, good) == Pair(before, case("Put the lovely loaf in the oven, happy friend."))
    assert counted(warmer, before, case("Put the loaf in the oven now.")) is None  # no warmer
    assert counted(warmer, before, case("What a lovely day, happy friend.")) is None  # of something else
    assert counted(warmer, before, case("Put the lovely loaf, happy", finished=False)) is None  # no end


def test_what_a_model_puts_around_a_text_is_taken_off() -> None:
    assert unwrapped('Text: "Go home now."') == "Go home now."
    assert unwrapped('He said "go" and "stay"') == 'He said "go" and "stay"'
    assert unwrapped('"One" and "two"') == '"One" and "two"'


def test_the_same_subject_is_shared_content_words() -> None:
    assert same_subject(case("Bake the bread in an oven."), case("The oven will bake you nice bread."))
    assert not same_subject(case("Bake the bread in an oven."), case("Guitars sound mellow and deep."))
    assert not same_subject(case("Bake the bread."), case("Bread."))
