"""What is printed, and where."""

import json
from collections.abc import Iterator

import pytest

from truing import console


@pytest.fixture(autouse=True)
def _for_a_person() -> Iterator[None]:
    console.speak_json(False)
    yield
    console.speak_json(False)
    console.show_views(False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, in a list so that a test can change it."""
    moment = [0.0]
    monkeypatch.setattr("truing.console.time.monotonic", lambda: moment[0])
    return moment


def test_a_line_and_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("made [1] thing", then="truing report")
    assert capsys.readouterr().out == "made [1] thing\nnext: truing report\n"


def test_for_a_person_no_json_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.result({"id": "dataset-1"})
    assert capsys.readouterr().out == ""


def test_with_json_the_last_line_of_stdout_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    console.speak_json(True)
    console.say("words", then="truing report")
    console.show_table(["name", "n"], [["a", 1]])
    list(console.track([1], "working", 1))
    console.result({"n": 3, "id": "dataset-1", "name": "né"})
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert json.loads(printed.out) == {"id": "dataset-1", "n": 3, "name": "né"}
    assert printed.err.startswith("words\nnext: truing report\n")


def test_a_number_that_is_none_is_not_printed_as_json() -> None:
    console.speak_json(True)
    with pytest.raises(ValueError, match="JSON compliant"):
        console.result({"loss": float("nan")})


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.complain("no [red]such[/red] file\n  fix: look")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "no [red]such[/red] file\n  fix: look\n"


def test_a_long_line_is_not_broken_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table(["name", "n"], [["left", 1], ["right", 22]])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["name", "n"], ["left", "1"], ["right", "22"]]


def test_without_a_terminal_a_line_comes_every_ten_seconds_and_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    for item in console.track(range(6), "ppo", 6, stats=lambda: f"reward {len(seen)}"):
        seen.append(item)
        clock[0] += 4.0
    assert seen == [0, 1, 2, 3, 4, 5]
    assert capsys.readouterr().out.splitlines() == [
        "ppo 3/6 50 % 0:12 left  reward 3",
        "ppo 6/6 100 % 0:00 left  reward 6",
    ]


def test_something_quick_prints_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in console.track(range(3), "quick", 3):
        clock[0] += 1.0
    assert list(console.track([], "nothing", 0)) == []
    assert capsys.readouterr().out == ""


def test_what_was_done_before_counts_but_takes_no_time(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """8 of 10 were done before; two more at 70 s each: after the first, 70 s are left."""
    for _ in console.track(range(2), "samples", 10, done=8):
        clock[0] += 70.0
    assert capsys.readouterr().out.splitlines() == ["samples 9/10 90 % 1:10 left", "samples 10/10 100 % 0:00 left"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    screen = StringIO()
    monkeypatch.setattr(console, "_console", Console(file=screen, force_terminal=True, width=100))
    assert list(console.track([1, 2], "ppo", 2, stats=lambda: "kl 0.5")) == [1, 2]
    assert "2/2" in screen.getvalue()
    assert "kl 0.5" in screen.getvalue()


VIEW = console.View(
    curves=[console.Curve("Score", [0.0, 0.5, 1.0], "+1.00", "rises")],
    findings=[("KL blow-up (update 3)", "KL is 30.0. Raise tune.beta")],
    made=[("+0.40 | Say something kind.", "You are doing well.\n\n\x1b[2JReally!"), ("-0.10 | And now?", "Rest. " * 200)],
)


def drawn(monkeypatch: pytest.MonkeyPatch, height: int) -> str:
    """What a terminal of 80 columns gets of a run of two steps that shows its view."""
    from io import StringIO

    from rich.console import Console

    class Utf8(StringIO):
        encoding = "utf-8"

    screen = Utf8()
    terminal = Console(file=screen, force_terminal=True, width=80, height=height, color_system=None, _environ={"TERM": "xterm"})
    monkeypatch.setattr(console, "_console", terminal)
    console.show_views(True)
    assert list(console.track([1, 2], "ppo", 2, view=lambda: VIEW)) == [1, 2]
    return screen.getvalue()


def test_on_a_terminal_a_run_shows_its_view(monkeypatch: pytest.MonkeyPatch) -> None:
    last = drawn(monkeypatch, 40).rpartition("2/2")[2]
    assert "Score  +1.00  ▁▅█" in last
    assert "KL blow-up (update 3): KL is 30.0. Raise tune.beta" in last
    assert "+0.40 | Say something kind.\nYou are doing well. [2JReally!".replace("\n", "") in "".join(line.rstrip() for line in last.splitlines())
    assert "\x1b[2J" not in last
    assert last.count("Rest.") < 50  # three lines of it
    assert "…" in last


def test_a_low_terminal_gets_what_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = drawn(monkeypatch, 7)
    assert "Say something kind" in screen
    assert "And now?" not in screen


def test_elsewhere_a_view_is_one_line_and_the_usual_progress(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    console.show_views(True)
    for _ in console.track(range(2), "ppo", 2, view=lambda: VIEW):
        clock[0] += 10.0
    assert capsys.readouterr().out.splitlines() == [
        "the view needs a terminal that can be drawn on, in UTF-8: going on without it",
        "ppo 1/2 50 % 0:10 left",
        "ppo 2/2 100 % 0:00 left",
    ]


def test_a_curve_is_as_wide_as_it_may_be_and_ends_with_the_newest_value() -> None:
    assert console.spark([]) == ""
    assert console.spark([2.0, 2.0]) == "▁▁"
    assert console.spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert console.spark([0.0] * 10 + [7.0], width=4) == "▁▁▁█"
