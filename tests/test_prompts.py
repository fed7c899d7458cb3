"""Prompts: good rows come in once, bad ones are named with their remedy, and nothing is half-imported."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from stored import new_database
from truing.errors import SettingError, UserError
from truing.prompts import ImportReport, PromptSettings, everyday_prompts, import_prompts, preview_prompts, split_of, turns_of
from truing.store.ids import content_id
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Prompt

Write = Callable[[str, str | bytes], Path]


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project on each database."""
    monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, packed if its name ends in .gz."""

    def written(name: str, content: str | bytes) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return tmp_path / name

    return written


def take(project: Project, *files: Path | str, **changes: Any) -> ImportReport:
    return import_prompts(project, PromptSettings(**changes), list(files))


def stored(project: Project) -> list[Prompt]:
    with project.database.read() as session:
        return list(session.scalars(select(Prompt).order_by(Prompt.position)))


def texts(project: Project) -> list[str]:
    return [prompt.text for prompt in stored(project)]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
]


def test_every_form_of_a_row(project: Project, write: Write) -> None:
    rows: list[Any] = [
        "a text",
        {"prompt": " outer space \n", "topic": "x"},
        {"prompt": CHAT},
        {"messages": CHAT[1:]},
        {"turns": turns_of("a turn")},
        {"text": "a body"},
    ]
    report = take(project, write("mine.jsonl", "\n".join(map(json.dumps, rows))))
    assert report == ImportReport(6, 0, [], report.held_out)
    found = stored(project)
    assert [prompt.text for prompt in found] == ["a text", "outer space", "Why?", "Why?", "a turn", "a body"]
    assert [prompt.position for prompt in found] == [0, 1, 2, 3, 4, 5]
    assert found[2].turns == CHAT
    assert found[1].facts == {"topic": "x"}
    assert all(prompt.id == content_id(prompt.turns) and prompt.source == "mine.jsonl" for prompt in found)
    assert report.held_out == sum(prompt.split == "held-out" for prompt in found)


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("a.txt", "one\n\ntwo, three\n", {}),
        ("a.csv", 'topic,prompt\nx,one\nx,"two, three"\n', {"topic": "x"}),
        ("a.ndjson", '{"text": "one", "topic": "x"}\n{"text": "two, three", "topic": "x"}', {"topic": "x"}),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_format(project: Project, write: Write, name: str, content: str, facts: dict[str, str], packed: str) -> None:
    assert take(project, write(name + packed, content)).added == 2
    assert texts(project) == ["one", "two, three"]
    assert stored(project)[0].facts == facts


def test_parquet(project: Project, tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "messages": [CHAT[1:], [{"role": "user", "content": "one"}], None, [{"role": "user", "content": "two"}]],
            "when": [date(2026, 1, 1)] * 4,
            "score": [1.5, None, 2.0, float("nan")],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    report = take(project, tmp_path / "a.parquet")
    assert (report.added, [row.line for row in report.refused]) == (2, [3, 4])
    assert [(prompt.text, prompt.facts) for prompt in stored(project)] == [
        ("Why?", {"when": "2026-01-01", "score": 1.5}),
        ("one", {"when": "2026-01-01", "score": None}),
    ]


def test_a_damaged_parquet_file(project: Project, write: Write) -> None:
    with pytest.raises(UserError, match="can't be read as parquet"):
        take(project, write("a.parquet", b"PAR1 nothing PAR1"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"prompt": ""}', "is empty"),
        ('{"prompt": " \\n\\u200b "}', "is empty"),
        ('{"prompt": null}', "expected text or a list of turns, found nothing"),
        ('{"prompt": 7}', "found a number"),
        ('{"prompt": []}', "found an empty list"),
        ('{"topic": "x"}', "has no prompt"),
        ("[1, 2]", "neither a text nor an object"),
        ('{"prompt": ["text"]}', "without role and content"),
        ('{"prompt": [{"role": "user"}]}', "without role and content"),
        ('{"prompt": [{"role": "human", "content": "x"}]}', "the role 'human'"),
        ('{"prompt": [{"role": "user", "content": [1]}]}', "is a list, not text"),
        ('{"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}', "ends with the assistant's turn"),
        ('{"prompt": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}, {"role": "user", "content": "z"}]}', "system turn stands after"),
        ('{"prompt": [{"role": "user", "content": ""}, {"role": "user", "content": "z"}]}', "a user turn is empty"),
        ('{"prompt": [{"role": "system", "content": "x"}]}', "ends with the system's turn"),
        ('{"prompt": "x\\u0000y"}', "NUL"),
        ('{"prompt": "x", "fact": "\\ud800"}', "not Unicode text"),
        ('{"prompt": "x", "fact": NaN}', "NaN"),
        ('{"prompt": "' + "x" * 101 + '"}', "101 characters, more than 100"),
        ('{"prompt": "x"', "not valid JSON"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_bad_row_is_named_and_the_others_come_in(project: Project, write: Write, row: str, what: str) -> None:
    file = write("mine.jsonl", f'"before"\n{row}\n"after"\n')
    report = take(project, file, max_characters=100)
    assert texts(project) == ["before", "after"]
    (refused,) = report.refused
    assert refused.what.startswith("mine.jsonl, line 2: ")
    assert what in refused.reason
    assert refused.fix


def test_strict_is_all_or_nothing(project: Project, write: Write) -> None:
    good, bad = write("good.txt", "one\n"), write("bad.jsonl", '"two"\n{}\n')
    with pytest.raises(UserError, match=r"1 rows can't be used, so nothing was imported:\n  bad.jsonl, line 2"):
        take(project, good, bad, strict=True)
    assert texts(project) == []


def test_a_file_that_breaks_off_leaves_nothing(project: Project, write: Write) -> None:
    good, broken = write("good.txt", "one\n"), write("a.jsonl.gz", "".join(f'"prompt {random.random()}"\n' for _ in range(3000)))
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        take(project, good, broken)
    assert texts(project) == []


def test_what_says_the_same_comes_in_once_and_the_first_wins(project: Project, write: Write) -> None:
    first = write("first.txt", "Why is  the sky blue?\nwhy is the SKY blue? \nWhy is the sea blue?\n")
    second = write("second.jsonl", '{"prompt": "WHY is the sky\\nblue?", "topic": "x"}\n"Caf\\u00e9"\n"cafe\\u0301"\n')
    report = take(project, first, second)
    assert (report.added, report.duplicates) == (3, 3)
    assert texts(project) == ["Why is  the sky blue?", "Why is the sea blue?", "Café"]
    again = take(project, second, first)
    assert (again.added, again.duplicates, again.held_out) == (0, 6, 0)
    assert stored(project)[0].facts == {}


def test_the_whole_conversation_counts_for_sameness(project: Project, write: Write) -> None:
    rows = [{"prompt": CHAT}, {"prompt": CHAT[1:]}, {"prompt": "Why?"}, {"prompt": CHAT}]
    report = take(project, write("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert (report.added, report.duplicates) == (3, 1)


def test_a_later_file_is_numbered_after_the_earlier(project: Project, write: Write) -> None:
    take(project, write("a.txt", "one\ntwo\n"))
    take(project, write("b.txt", "three\n"))
    assert [(prompt.position, prompt.text, prompt.source) for prompt in stored(project)] == [(0, "one", "a.txt"), (1, "two", "a.txt"), (2, "three", "b.txt")]


def test_the_split_is_the_text_s(project: Project, write: Write) -> None:
    report = take(project, write("a.txt", "\n".join(f"prompt {number}" for number in range(200))))
    assert {prompt.split for prompt in stored(project)} == {"train", "held-out"}
    assert all(prompt.split == split_of(prompt.text, 0.25) for prompt in stored(project))
    assert report.held_out == sum(prompt.split == "held-out" for prompt in stored(project))
    assert take(project, write("b.txt", "hello"), held_out_share=0.0).held_out == 0


def test_files_of_no_known_kind(project: Project, write: Write, tmp_path: Path) -> None:
    for name in ("a.json", "a", "a.parquet.gz", "a.pdf"):
        with pytest.raises(UserError, match="of no kind that can be imported"):
            take(project, write(name, "x"))
    with pytest.raises(UserError, match="there is no file"):
        take(project, tmp_path / "nothing.txt")
    with pytest.raises(UserError, match="UTF-16"):
        take(project, write("a.txt", "hello\n".encode("utf-16")))


def test_a_dataset_on_the_hub_that_cannot_be_reached(project: Project) -> None:
    """The tests run offline, as many users do."""
    with pytest.raises(UserError, match="can't be fetched from the Hub") as caught:
        take(project, "hub:nobody/nothing")
    assert "import a file" in caught.value.fix
    with pytest.raises(UserError, match="doesn't name a dataset"):
        take(project, "hub:nothing")


def test_a_dataset_on_the_hub(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: [{"prompt": f"{name} {split}", "n": 1}, {"prompt": None}])
    report = take(project, "hub:owner/name")
    assert texts(project) == ["owner/name train"]
    assert (stored(project)[0].source, [row.line for row in report.refused]) == ("hub:owner/name", [2])


def test_refusals_beyond_a_thousand_are_counted(project: Project, write: Write) -> None:
    report = take(project, write("a.jsonl", "{}\n" * 1500 + '"one"\n'))
    assert (report.added, len(report.refused), report.more_refused) == (1, 1000, 500)


def test_the_prompts_that_come_with_truing(project: Project) -> None:
    report = take(project, everyday_prompts())
    assert report.refused == []
    assert report.added > 100
    assert report.added == len(everyday_prompts().read_text(encoding="utf-8").splitlines())
    assert 0.15 < report.held_out / report.added < 0.35


def test_a_preview_says_what_the_import_then_does(project: Project, write: Write) -> None:
    take(project, write("known.txt", "Known already.\n"))
    lines = [f'{{"prompt": "prompt number {number}"}}' for number in range(40)]
    file = write("a.jsonl", "\n".join([*lines, '{"prompt": "Known already."}', lines[3], "{}", "[1]"]))
    seen = preview_prompts(project, PromptSettings(), file, rows=5)
    assert [turns[-1]["content"] for turns, _ in seen.first] == [f"prompt number {number}" for number in range(5)]
    assert len(stored(project)) == 1  # nothing was written
    assert seen.whole
    report = take(project, file)
    assert [(row.line, row.what) for row in seen.report.refused] == [(row.line, row.what) for row in report.refused]
    assert seen.report._replace(refused=[]) == report._replace(refused=[])
    kept = {prompt.text: prompt.split for prompt in stored(project)}
    assert all(kept[turns[-1]["content"]] == split for turns, split in seen.first)


def test_a_preview_of_a_long_file_looks_at_its_beginning(project: Project, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.prompts.PREVIEWED", 10)
    seen = preview_prompts(project, PromptSettings(), write("a.txt", "".join(f"prompt {number}\n" for number in range(11))))
    assert (seen.report.added, seen.whole) == (10, False)


@pytest.mark.slow
def test_twenty_thousand_rows(project: Project, write: Write) -> None:
    file = write("a.jsonl", "".join(f'{{"prompt": "prompt number {number}", "n": {number}}}\n' for number in range(20_000)))
    assert take(project, file).added == 20_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.csv", "a.txt", "a.parquet", "a.jsonl.gz"]))
def test_no_file_makes_it_stumble(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    """Any bytes: an import, or a complaint in words."""
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(content)
    opened = open_project(create_project(folder / "project", settings=""))
    with suppress(UserError):
        take(opened, folder / name)
    opened.database.close()


@pytest.mark.parametrize("change", [{"held_out_share": 1.0}, {"held_out_share": -0.1}, {"max_characters": 0}, {"max_characters": 10**6}])
def test_bounds(tmp_path: Path, change: dict[str, Any]) -> None:
    root = create_project(tmp_path / "project", settings="")
    ((name, value),) = change.items()
    with pytest.raises(SettingError, match=name):
        open_project(root, [f"prompts.{name}={value}"])
