"""The split: drawn from the text alone, the same for ever, and growing only outwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.errors import SettingError
from truing.store.conversations import turns_of
from truing.store.project import Project, open_project
from truing.store.splits import held_out_share, normal_text, split_of, split_of_turns

words = st.text(alphabet=st.characters(codec="utf-8"))


def test_the_split_is_golden() -> None:
    """`printf hello | sha256sum` begins 2cf24dba, a point at 0.1756; `printf 'good bye'` begins ac72773e, at 0.6736."""
    assert [split_of("hello", share) for share in (0.17, 0.18)] == ["train", "held-out"]
    assert [split_of("good bye", share) for share in (0.67, 0.68)] == ["train", "held-out"]


@given(words, st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_held_out_text_stays_held_out_when_the_share_grows(text: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert split_of(text, low) == "train" or split_of(text, high) == "held-out"


def test_the_share_is_the_share() -> None:
    held_out = sum(split_of(f"prompt {number}", 0.25) == "held-out" for number in range(4000))
    assert 900 < held_out < 1100  # 1000 +- 3.6 standard deviations
    assert split_of("anything", 0.0) == "train"


@given(words, st.text(alphabet=" \t\n", min_size=1))
def test_white_space_says_nothing(text: str, space: str) -> None:
    assert normal_text(space + space.join(text.split(" ")) + space) == normal_text(text)


def test_case_and_composition_say_nothing() -> None:
    assert normal_text("CAFE\u0301  Straße") == normal_text("café strasse")
    assert normal_text("What?") != normal_text("What")


def test_a_conversation_stands_where_it_began() -> None:
    """Two depths of one conversation, and one question under two system prompts, stay on the same side."""
    for number in range(50):
        opening = turns_of(f"prompt {number}")
        deeper = [*opening, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then?"}]
        instructed = [{"role": "system", "content": "Be brief."}, *opening]
        assert split_of_turns(deeper, 0.5) == split_of_turns(instructed, 0.5) == split_of(f"PROMPT  {number}", 0.5)


def test_the_projects_share(project: Project) -> None:
    assert held_out_share(project) == 0.25
    other = open_project(project.root, ["prompts.held_out_share=0.5"])
    assert held_out_share(other) == 0.5
    other.database.close()
    with pytest.raises(SettingError, match="held_out_share"):
        open_project(project.root, ["prompts.held_out_share=1.5"])
