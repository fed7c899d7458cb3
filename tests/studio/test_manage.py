"""The managers' pages as a manager's browser meets them: empty and filled, with right and wrong forms, for those who may and those who may not."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.testclient import TestClient

from studio.filled import RATINGS, SET, SPOILER, advance, fill, finish, keep_checkpoint, run_under_way, studio_of_managers
from truing.policy import record
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Guideline, Invitation, Judgement, Prompt, Question, QuestionSet, Run, RunState, Sample
from truing.store.tables import Session as SignedIn
from truing.studio.auth import tokens_of
from truing.studio.manage.measuring import measuring_of
from visitors import person_in, signed_in, stranger

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

PAGES = (
    "/manage/live", "/manage/sets", "/manage/sets/new", "/manage/import", "/manage/people", "/manage/tokens", "/manage/quality", "/manage/quality/state",
    "/manage/adjudicate", "/manage/prompts", "/manage/samples", "/manage/judgements", "/manage/rounds",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of a filled project, and its sets."""
    root = create_project(tmp_path_factory.mktemp("filled") / "warm-words", settings="")
    project = open_project(root)
    sets = fill(project)
    project.database.close()
    return root, sets


@pytest.fixture
def project(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Project]:
    """A filled project of the test's own."""
    root = tmp_path / "warm-words"
    shutil.copytree(made[0], root)
    opened = open_project(root)
    yield opened
    opened.database.close()


@pytest.fixture
def sets(made: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Name → id of its sets."""
    return made[1]


@pytest.fixture
def app(project: Project) -> FastAPI:
    """The studio of the filled project."""
    return studio_of_managers(project)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[FastAPI]:
    """The studio of an empty project."""
    project = open_project(create_project(tmp_path / "empty", settings=""))
    yield studio_of_managers(project)
    project.database.close()


def words(html: str) -> str:
    """What a page says, without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def one(project: Project, query: Any) -> Any:
    """The first thing that a query finds."""
    with project.database.read() as session:
        return session.scalars(query).first()


def form_of(html: str) -> dict[str, Any]:
    """What a browser would send of the page's largest form, nothing touched."""
    body = max(re.findall(r"<form[^>]*>.*?</form>", html, re.DOTALL), key=len)
    fields: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]*>", body):
        name, value = (re.search(rf'{key}="([^"]*)"', tag) for key in ("name", "value"))
        if name and (" checked" in tag or not re.search(r'type="(?:radio|checkbox)"', tag)):
            fields.setdefault(name[1], []).append(unescape(value[1]) if value else "")
    for name, text in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', body, re.DOTALL):
        fields[name] = [unescape(text)]
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', body, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options) or re.search(r'value="([^"]*)"', options)
        fields[name] = [chosen[1] if chosen else ""]
    return {name: values if len(values) > 1 else values[0] for name, values in fields.items()}


# ---- who may, and what every page is like ----


def test_every_page_answers_a_manager_and_nobody_below(app: FastAPI) -> None:
    manager, annotator, nobody = signed_in(app, "manager"), signed_in(app, "annotator"), stranger(app)
    for page in PAGES:
        assert manager.get(page).status_code == 200, page
        assert annotator.get(page).status_code == 403, page
        assert nobody.get(page).status_code == 303, page


def test_every_page_of_an_empty_project_says_what_to_do_first(empty: FastAPI) -> None:
    manager = signed_in(empty, "manager")
    for page in PAGES:
        assert manager.get(page).status_code == 200, page
    assert "It begins with prompts" in words(manager.get("/").text)
    assert "/manage/import?kind=prompts" in manager.get("/manage/prompts").text
    assert "truing round run" in manager.get("/manage/rounds").text
    assert "Measure again" not in manager.get("/manage/quality").text


def test_the_start_leads_annotators_to_their_questions(app: FastAPI) -> None:
    assert signed_in(app, "annotator").get("/").headers["location"] == "/judge"


def test_no_page_styles_or_scripts_in_its_text(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    """The policy would refuse it, and nothing would be seen of it in these tests."""
    manager = signed_in(app, "owner")
    question, person = one(project, select(Question.id)), one(project, select(Annotator.id))
    prompt = one(project, select(Prompt.id))
    run = run_under_way(project)
    more = [
        f"/manage/sets/{sets[SET]}",
        f"/manage/tuning/{run}",
        f"/manage/questions/{question}",
        f"/manage/people/{person}",
        f"/manage/prompts/{prompt}",
        "/manage/rounds/1",
    ]
    for page in ("/", *PAGES, *more):
        html = manager.get(page).text
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*src=)", html), page


@pytest.mark.parametrize("place", ["sets", "people", "questions", "prompts", "adjudicate"])
def test_what_isnt_there_is_a_404(app: FastAPI, place: str) -> None:
    answer = signed_in(app, "manager").get(f"/manage/{place}/{'f' * 32}")
    assert answer.status_code == (404)


# ---- the loop ----


def test_the_loop_shows_counts_and_the_newest_numbers(app: FastAPI) -> None:
    said = words(signed_in(app, "manager").get("/").text)
    assert "Prompts 80" in said
    assert "Samples 160 by 2 policies" in said
    assert re.search(r"agreement α −?0\.\d\d", said)
    assert re.search(r"Reward model 76.% right on held-out pairs 71.% to 82.%, n = 250", said)
    assert re.search(r"\d+ people now", said)


def test_the_loop_shows_a_run_under_way_and_one_that_fell_silent(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    run = run_under_way(project)
    html = manager.get("/manage/live").text
    assert "tuning: 12 of 20, 1 min" in words(html).replace("\u202f", " ")
    assert html.count('class="spark"') == 2
    advance(project, run, 19)
    assert "tuning: 19 of 20" in words(manager.get("/manage/live").text)
    with project.database.write() as session:
        session.get_one(Run, run).heartbeat_at = now() - timedelta(minutes=5)
    assert "No sign of life for 5" in words(manager.get("/manage/live").text)
    with project.database.write() as session:
        session.get_one(Run, run).state = RunState.DONE
    assert "tuning" not in words(manager.get("/manage/live").text)


# ---- a tuning run ----


def test_a_run_under_way_is_told_in_full(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    here = f"/manage/tuning/{run}"
    assert f'href="{here}"' in manager.get("/").text
    html = manager.get(here).text
    said = words(html)
    assert "under way ppo Update 12 of 20, 1" in said
    assert "Length run-away since update 9 Mean length rose from 36.6 to 61.0 tokens" in said
    assert "Normal: comes near its target of 4: beta follows, 0.050 now." in said
    assert html.count('class="plot"') == 9
    assert html.count('<article class="card sample">') == 5
    assert "Update 12, the newest" in said
    assert html.count("data-live=") == 3


def test_earlier_updates_answers_are_a_step_away_and_stay(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    here = f"/manage/tuning/{run}"
    seventh = manager.get(f"{here}?update=7").text
    assert "Update 7." in words(seventh)
    assert [f'href="{here}?update={update}#samples"' in seventh for update in (6, 8, 9)] == [True, True, False]
    assert "live/samples" not in seventh  # an answer that somebody chose to read isn't replaced
    assert "score +0.30" in words(seventh)  # 0.1 times the update, less 0.4
    assert "Update 12, the newest" in words(manager.get(f"{here}?update=999").text)  # the nearest there is
    assert manager.get(f"{here}?update=0").status_code == 400


def test_the_parts_of_a_run_are_fetched_by_themselves(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    advance(project, run, 13)
    for part, said in (("state", "Update 13 of 20"), ("figures", "Length run-away"), ("samples", "Update 13, the newest")):
        found = manager.get(f"/manage/tuning/{run}/live/{part}")
        assert said in words(found.text)
        assert "data-rest" not in found.text
    assert manager.get(f"/manage/tuning/{run}/live/everything").status_code == 400


def test_a_finished_run_is_told_by_its_policy(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    policy = one(project, select(Run.result).where(Run.stage == "tune", Run.state == RunState.DONE))["policy"]
    finish(project, run, policy)
    html = manager.get(f"/manage/tuning/{run}").text
    assert f"finished ppo 20 updates in 1 min 0 s. It made {policy}" in words(html)
    assert "Update 20, the newest" in words(html)
    assert "data-live" not in html
    assert "Negative KL since update 1" in words(html)
    assert all("data-rest" in manager.get(f"/manage/tuning/{run}/live/{part}").text for part in ("state", "figures", "samples"))
    assert f"/manage/tuning/{run}" in manager.get("/").text
    assert "/manage/tuning/" in manager.get("/manage/rounds/1").text
    shutil.rmtree(project.artifacts / policy)
    record.of_policy.cache_clear()
    assert f"there is no artifact {policy}" in words(manager.get(f"/manage/tuning/{run}").text)


def test_a_run_that_was_stopped_says_for_what_and_whose_policy_it_is(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    finish(project, run, one(project, select(Run.result).where(Run.stage == "tune", Run.state == RunState.DONE))["policy"])
    with project.database.write() as session:
        row = session.get_one(Run, run)
        row.result = row.result | {"updates": 8, "stopped": {"failure": "reward hacking", "after": 12}}
    said = words(manager.get(f"/manage/tuning/{run}").text)
    assert "Stopped after update 12 for reward hacking; its policy is that of update 8, the best before it." in said


def test_a_run_that_told_nothing_yet_and_one_that_is_none(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    with project.database.write() as session:
        row = session.get_one(Run, run)
        shutil.rmtree(project.root / "runs")
        row.progress = {}
    said = words(manager.get(f"/manage/tuning/{run}").text)
    assert "The first update is under way" in said
    assert "None yet" in said
    assert manager.get("/manage/tuning/none").status_code == 404
    other = one(project, select(Run.id).where(Run.stage == "reward"))
    assert manager.get(f"/manage/tuning/{other}").status_code == 404


def test_what_a_model_says_does_nothing_on_the_page(app: FastAPI, project: Project) -> None:
    manager, run = signed_in(app, "manager"), run_under_way(project)
    keep_checkpoint(project, one(project, select(Run.key).where(Run.id == run)), 12, says="\n\n<script>hit(1)</script><img src=x onerror=hit(2)>")
    html = manager.get(f"/manage/tuning/{run}").text
    assert html.count("&lt;script&gt;") == 5
    assert "<script>" not in html
    assert "<img src=x" not in html


def test_long_steps_get_patience(app: FastAPI, project: Project) -> None:
    """An update every 100 s: a run is taken for dead after 300 s without a sign of life."""
    manager, run = signed_in(app, "manager"), run_under_way(project)
    for silent, state in ((250, "under way"), (350, "silent")):
        with project.database.write() as session:
            row = session.get_one(Run, run)
            row.seconds, row.heartbeat_at = 1200.0, now() - timedelta(seconds=silent)
        assert f"Tuning the policy {state}" in words(manager.get(f"/manage/tuning/{run}").text)


def test_the_loop_counts_who_is_at_work(app: FastAPI, project: Project) -> None:
    with project.database.read() as session:
        since = now() - timedelta(minutes=10)
        known = session.scalar(select(func.count(Judgement.annotator_id.distinct())).where(Judgement.submitted_at > since)) or 0
    found = re.search(r"(\d+) (?:people|person) now", words(signed_in(app, "manager").get("/").text))
    assert found is not None
    assert known <= int(found[1]) <= known + 2  # and those who took a question they haven't answered


# ---- sets ----


def test_a_set_is_made_as_the_form_offers_it(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    fields = form_of(manager.get("/manage/sets/new").text) | {"name": "afternoon", "limit": "10", "kind": "thumbs"}
    answer = manager.post("/manage/sets/new", data=fields)
    assert answer.status_code == 303, words(answer.text)
    row = one(project, select(QuestionSet).where(QuestionSet.name == "afternoon"))
    assert row.kind == "thumbs"
    assert row.rules["overlap"] == 2
    assert row.rules["gold_first"] == 0.08
    assert "10 Questions" in words(manager.get(answer.headers["location"]).text) or "Questions 10" in words(manager.get(answer.headers["location"]).text)


def test_a_rating_set_keeps_its_aspects_and_their_points(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    fields = form_of(manager.get("/manage/sets/new").text) | {
        "name": "aspects", "kind": "rating", "scale": "7", "aspect-0-name": "warmth", "aspect-0-ask": "How warm?", "aspect-0-1": "cold", "aspect-0-7": "warm",
        "aspect-1-name": "truth", "limit": "5", "everyone": "no", "who": person_in(project, "Ana", "annotator"),
    }  # fmt: skip
    assert manager.post("/manage/sets/new", data=fields).status_code == 303
    rules = one(project, select(QuestionSet).where(QuestionSet.name == "aspects")).rules
    assert rules["scale"] == 7
    assert [aspect["name"] for aspect in rules["aspects"]] == ["warmth", "truth"]
    assert rules["aspects"][0]["points"] == {"1": "cold", "7": "warm"}
    assert rules["who"] == [person_in(project, "Ana", "annotator")]


def test_several_batches_are_compared_with_each_other(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    html = manager.get("/manage/sets/new").text
    both = re.findall(r'name="batches" value="([^"]+)"', html)
    assert len(both) == 2
    assert manager.post("/manage/sets/new", data=form_of(html) | {"name": "both", "batches": both, "limit": "6"}).status_code == 303
    with project.database.read() as session:
        row = session.scalars(select(QuestionSet).where(QuestionSet.name == "both")).one()
        assert session.scalar(select(func.count()).where(Question.set_id == row.id)) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": ""}, "what annotators and you will call it"),
        ({"guideline": " "}, "say what makes one answer better"),
        ({"overlap": "0"}, "a whole number from 1 to 1,000"),
        ({"gold_first": "51"}, "a whole number from 0 to 50"),
        ({"limit": "many"}, "or nothing for all there are"),
        ({"batches": []}, "choose the samples"),
        ({"completion_url": "javascript:alert(1)"}, "an address that begins with https://"),
        ({"kind": "rating", "aspect-0-name": ""}, "each needs a name of its own"),
        ({"kind": "riddle"}, "another look"),
        ({"name": SET}, "already"),
    ],
)
def test_a_wrong_form_says_so_beside_the_field_and_keeps_what_was_typed(app: FastAPI, changed: dict[str, Any], said: str) -> None:
    manager = signed_in(app, "manager")
    fields = form_of(manager.get("/manage/sets/new").text) | {"name": "kept name", "flags": "kept flag"} | changed
    answer = manager.post("/manage/sets/new", data=fields)
    assert answer.status_code == 400
    assert said in words(answer.text)
    assert "kept flag" in answer.text
    assert "kept name" in answer.text or "name" in changed


def test_a_guideline_gets_versions(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    manager, address = signed_in(app, "manager"), f"/manage/sets/{sets[SET]}"
    before = one(project, select(func.max(Guideline.version)).where(Guideline.set_id == sets[SET]))
    assert manager.post(f"{address}/guideline", data={"guideline": "Take the *shorter* one."}).headers["location"].endswith("said=guideline")
    assert manager.post(f"{address}/guideline", data={"guideline": "Take the *shorter* one."}).headers["location"].endswith("said=guideline-same")
    assert one(project, select(func.max(Guideline.version)).where(Guideline.set_id == sets[SET])) == before + 1
    assert "<em>shorter</em>" in manager.get(address).text
    wrong = manager.post(f"{address}/guideline", data={"guideline": "x" * 50_001})
    assert wrong.status_code == 400
    assert "x" * 50_001 in wrong.text


def test_a_preview_shows_markdown_and_nothing_more(app: FastAPI) -> None:
    answer = signed_in(app, "manager").post("/manage/preview", data={"text": "**bold** <script>alert(1)</script>"})
    assert "<strong>bold</strong>" in answer.text
    assert "<script" not in answer.text


def test_a_set_is_paused_opened_and_archived(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    manager, address = signed_in(app, "manager"), f"/manage/sets/{sets[SET]}"
    for state in ("paused", "open", "archived"):
        assert manager.post(f"{address}/state", data={"state": state}).status_code == 303
        assert one(project, select(QuestionSet.state).where(QuestionSet.id == sets[SET])) == state
    assert manager.post(f"{address}/state", data={"state": "gone"}).status_code == 400
    assert manager.post(f"/manage/sets/{'f' * 32}/state", data={"state": "open"}).status_code == 404


def test_questions_of_a_set_are_filtered_and_paged(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    manager, address = signed_in(app, "manager"), f"/manage/sets/{sets[SET]}"
    with project.database.read() as session:
        wanted = set(session.scalars(select(Question.id).where(Question.set_id == sets[SET])))
    seen: list[str] = []
    html = manager.get(address).text
    while True:
        seen += re.findall(r'href="/manage/questions/([0-9a-f]{32})"', html)
        further = re.search(r'href="(\?[^"#]*after=[^"#]+)', html)
        if further is None:
            break
        html = manager.get(address + unescape(further[1])).text
    assert len(seen) == len(wanted)
    assert set(seen) == wanted
    assert manager.get(f"{address}?which=gold").text.count("check: ") == 4
    assert "No question fits" in manager.get(f"{address}?words=%25zebra").text


def test_a_question_becomes_a_check_and_plain_again(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    manager = signed_in(app, "manager")
    question = one(project, select(Question.id).where(Question.set_id == sets[SET], Question.gold.is_(None), Question.repeat_of.is_(None)))
    address = f"/manage/questions/{question}"
    assert manager.post(f"{address}/gold", data={}).status_code == 400
    assert manager.post(f"{address}/gold", data={"choice": "-2"}).status_code == 303
    assert one(project, select(Question).where(Question.id == question)).gold == {"better": 1}
    assert "check: B is better" in words(manager.get(address).text)
    assert manager.post(f"{address}/gold", data={"plain": "yes"}).status_code == 303
    assert one(project, select(Question).where(Question.id == question)).gold is None


def test_a_rating_becomes_a_check(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    question = one(project, select(Question.id).where(Question.set_id == sets[RATINGS]))
    answer = signed_in(app, "manager").post(f"/manage/questions/{question}/gold", data={"aspect-0": "5", "aspect-1": "4"})
    assert answer.status_code == 303
    assert one(project, select(Question).where(Question.id == question)).gold == {"answer": {"aspects": {"warmth": 5, "clarity": 4}}}


# ---- import ----


def sent(client: TestClient, kind: str, name: str, body: bytes, format: str = "auto") -> Any:
    """The answer to an upload."""
    return client.post("/manage/import", data={"kind": kind, "format": format}, files={"file": (name, body)})


def test_prompts_are_looked_at_before_they_are_taken_in(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    before = one(project, select(func.count()).select_from(Prompt))
    lines = [{"prompt": "How do I keep basil alive?"}, {"nothing": 1}, {"prompt": "Write a farewell."}, {"prompt": "How do I keep basil alive?"}]
    answer = sent(manager, "prompts", "more.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert answer.status_code == 303, words(answer.text)
    said = words(manager.get(answer.headers["location"]).text)
    assert "New prompts 2" in said
    assert "Known already 1" in said
    assert "2 has no prompt give it one of the keys" in said
    assert "How do I keep basil alive?" in said
    assert one(project, select(func.count()).select_from(Prompt)) == before
    strict = manager.post(answer.headers["location"], data={"yes": "yes", "strict": "yes"})
    assert strict.status_code == 400
    assert "nothing was imported" in words(strict.text)
    done = manager.post(answer.headers["location"], data={"yes": "yes"})
    assert "New prompts 2" in words(done.text)
    assert one(project, select(func.count()).select_from(Prompt)) == before + 2
    assert manager.post(answer.headers["location"], data={"yes": "yes"}).status_code == 404
    assert list((project.root / "imports").iterdir()) == []


def test_judgements_are_looked_at_before_they_are_taken_in(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    before = one(project, select(func.count()).select_from(Judgement))
    row = {"chosen": "\n\nHuman: Rice?\n\nAssistant: Rinse it <b>well</b>.", "rejected": "\n\nHuman: Rice?\n\nAssistant: No idea."}
    others = [{side: text.replace("Rice", f"Rice {number}") for side, text in row.items()} for number in range(3)]
    answer = sent(manager, "judgements", "hh.jsonl", ("\n".join(map(json.dumps, [row, *others])) + '\n{"chosen": 3}\n').encode())
    html = manager.get(answer.headers["location"]).text
    assert "format hh-rlhf , by the look of it" in words(html)
    assert "Rinse it &lt;b&gt;well" in html
    assert "Judgements 4" in words(html)
    assert one(project, select(func.count()).select_from(Judgement)) == before
    assert "New judgements 4" in words(manager.post(answer.headers["location"], data={"yes": "yes"}).text)
    assert one(project, select(func.count()).select_from(Judgement)) == before + 4


def test_an_upload_is_thrown_away_when_nobody_wants_it(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    answer = sent(manager, "prompts", "../../more.txt", b"A prompt.\n")
    assert (project.root / "imports").exists()
    assert manager.post(answer.headers["location"], data={"yes": "no"}).status_code == 303
    assert list((project.root / "imports").iterdir()) == []
    assert manager.get(answer.headers["location"]).status_code == 404
    assert not (project.root.parent / "more.txt").exists()


@pytest.mark.parametrize(
    ("kind", "name", "body", "said"),
    [
        ("prompts", "x.exe", b"MZ", "is of no kind that can be imported"),
        ("judgements", "x.jsonl", b'{"what": "is this"}\n', ""),
        ("prompts", "", b"", "no file was chosen"),
    ],
)
def test_a_file_that_cant_be_read_is_refused_with_words(app: FastAPI, project: Project, kind: str, name: str, body: bytes, said: str) -> None:
    answer = sent(signed_in(app, "manager"), kind, name, body) if name else signed_in(app, "manager").post("/manage/import", data={"kind": kind})
    assert answer.status_code == 400
    assert said in words(answer.text)
    assert list((project.root / "imports").glob("*")) == []


# ---- people ----


def test_the_table_of_people_has_numbers_with_intervals(app: FastAPI) -> None:
    html = signed_in(app, "manager").get("/manage/people").text
    row = words(next(part for part in html.split("<tr") if f">{SPOILER}</a>" in part))
    assert re.search(r"0\.\d\d 0\.\d\d to 0\.\d\d", row)  # trust
    assert re.search(r"100.% \d+.% to 100.%, n = \d+", row)  # left side
    assert "reading takes" in row


def test_an_invitation_is_shown_once_and_taken_back(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    answer = manager.post("/manage/invitations", data={"name": "class 7b", "role": "annotator", "uses": "25", "days": "7"})
    link = re.search(r"http://127\.0\.0\.1:8000/join/[\w-]{40,}", answer.text)
    assert link is not None
    assert stranger(app).get(link[0]).status_code == 200
    later = manager.get("/manage/people").text
    assert link[0] not in later
    assert "class 7b" in later
    assert manager.post(f"/manage/invitations/{one(project, select(Invitation.id))}/revoke").status_code == 303
    assert "class 7b" not in manager.get("/manage/people").text
    assert stranger(app).get(link[0]).status_code == 404


@pytest.mark.parametrize("changed", [{"uses": "0"}, {"uses": "x"}, {"days": "366"}, {"name": ""}, {"role": "owner"}, {"role": "manager"}])
def test_a_wrong_invitation_keeps_what_was_typed(app: FastAPI, changed: dict[str, str]) -> None:
    """A manager may not invite managers either."""
    fields = {"name": "class 7b", "role": "annotator", "uses": "25", "days": "7"} | changed
    answer = signed_in(app, "manager").post("/manage/invitations", data=fields)
    assert answer.status_code == 400
    assert 'value="class 7b"' in answer.text or "name" in changed
    assert "/join/" not in answer.text


def test_only_those_above_change_a_role(app: FastAPI, project: Project) -> None:
    ana, boss = person_in(project, "Ana", "annotator"), person_in(project, "Boss", "manager")
    manager, owner = signed_in(app, "manager"), signed_in(app, "owner")
    assert manager.post(f"/manage/people/{ana}/role", data={"role": "manager"}).status_code == 403
    assert manager.post(f"/manage/people/{boss}/active", data={"active": "no"}).status_code == 403
    assert manager.post(f"/manage/people/{boss}/remove").status_code == 403
    assert owner.post(f"/manage/people/{ana}/role", data={"role": "manager"}).status_code == 303
    assert one(project, select(Annotator.role).where(Annotator.id == ana)) == "manager"
    assert owner.post(f"/manage/people/{ana}/role", data={"role": "king"}).status_code == 400


def test_who_is_paused_is_signed_out_and_may_come_back(app: FastAPI, project: Project) -> None:
    ana = signed_in(app, "annotator", "Ana")
    ana_id, manager = person_in(project, "Ana", "annotator"), signed_in(app, "manager")
    assert manager.post(f"/manage/people/{ana_id}/active", data={"active": "no"}).status_code == 303
    assert ana.get("/").status_code == 303
    assert ana.get("/").headers["location"].startswith("/sign-in")
    assert one(project, select(SignedIn).where(SignedIn.annotator_id == ana_id)) is None
    assert manager.post(f"/manage/people/{ana_id}/active", data={"active": "yes"}).status_code == 303
    assert one(project, select(Annotator.active).where(Annotator.id == ana_id)) is True


def test_a_person_is_removed_and_their_answers_stay(app: FastAPI, project: Project) -> None:
    owner, ana = signed_in(app, "owner"), person_in(project, "Ana", "annotator")
    given = one(project, select(func.count()).where(Judgement.annotator_id == ana))
    answer = owner.post(f"/manage/people/{ana}/remove")
    assert f"{given} answers stay under the name removed-" in words(answer.text)
    assert one(project, select(Annotator.name).where(Annotator.id == ana)).startswith("removed-")
    assert one(project, select(func.count()).where(Judgement.annotator_id == ana)) == given
    assert ">Ana<" not in owner.get("/manage/people").text


def test_nobody_removes_themselves(app: FastAPI, project: Project) -> None:
    owner = signed_in(app, "owner")
    me = one(project, select(Annotator.id).where(Annotator.role == "owner"))
    assert owner.post(f"/manage/people/{me}/remove").status_code == 400


# ---- tokens ----


def test_a_token_is_shown_once_and_taken_back(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    answer = manager.post("/manage/tokens", data={"name": "nightly", "scopes": ["read", "samples:write"], "days": "30"})
    secret = re.search(r"truing_[\w-]{40,}", answer.text)
    assert secret is not None
    with project.database.read() as session:
        token = tokens_of(session)[0]
    assert token.scopes == ("read", "samples:write")
    assert secret[0] not in manager.get("/manage/tokens").text
    assert manager.post(f"/manage/tokens/{token.id}/revoke").status_code == 303
    with project.database.read() as session:
        assert tokens_of(session) == []


@pytest.mark.parametrize("fields", [{"name": "n", "days": "1"}, {"name": "", "scopes": "read"}, {"name": "n", "scopes": "read", "days": "0"}])
def test_a_wrong_token_is_refused_with_words(app: FastAPI, project: Project, fields: dict[str, str]) -> None:
    assert signed_in(app, "manager").post("/manage/tokens", data=fields).status_code == 400
    with project.database.read() as session:
        assert tokens_of(session) == []


# ---- quality and disputes ----


def test_quality_is_measured_in_the_background_and_shown(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    said = words(manager.get("/manage/quality").text)
    assert "nothing new since" in said
    assert re.search(r"Takes the left \d+.% \d+.% to \d+.%, n = \d+", said)
    question = one(project, select(Question.id).where(Question.gold.is_(None), Question.answers > 1))
    assert manager.post(f"/manage/adjudicate/{question}/take").status_code == 303
    assert manager.post(f"/manage/adjudicate/{question}", data={"choice": "3", "started": now().isoformat()}).status_code == 303
    assert "1 judgement came in since" in words(manager.get("/manage/quality").text)
    assert manager.post("/manage/quality/measure").status_code == 303
    measuring_of(app).wait(60)
    assert measuring_of(app).problem is None
    assert "nothing new since" in words(manager.get("/manage/quality").text)
    assert "data-reload" in manager.get("/manage/quality/state").text


def test_a_measurement_that_comes_to_nothing_says_why(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    (project.root / "truing.toml").rename(project.root / "elsewhere.toml")
    assert manager.post("/manage/quality/measure").status_code == 303
    measuring_of(app).wait(60)
    (project.root / "elsewhere.toml").rename(project.root / "truing.toml")
    said = words(manager.get("/manage/quality").text)
    assert "The last measurement came to nothing" in said
    assert "is not a Truing project" in said


def test_a_manager_settles_a_dispute_by_a_judgement_of_their_own(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager", "Mona")
    html = manager.get("/manage/adjudicate").text
    question = re.findall(r"/manage/adjudicate/([0-9a-f]{32})/take", html)[0]
    assert manager.get(f"/manage/adjudicate/{question}").status_code == 303  # nothing is drawn by looking
    assert manager.post(f"/manage/adjudicate/{question}/take").status_code == 303
    page = manager.get(f"/manage/adjudicate/{question}").text
    policies = set(one(project, select(Sample.policy_id).where(Sample.policy_id != "base")) or "")
    assert not any(policy in page for policy in policies if len(policy) > 10)
    assert manager.post(f"/manage/adjudicate/{question}", data={}).status_code == 400
    answer = manager.post(f"/manage/adjudicate/{question}", data={"choice": "2", "comment": "plainly", "started": (now() - timedelta(seconds=9)).isoformat()})
    assert answer.headers["location"] == "/manage/adjudicate?said=kept"
    mona = person_in(project, "Mona", "manager")
    row = one(project, select(Judgement).where(Judgement.annotator_id == mona))
    assert row.question_id == question
    assert row.answer == {"strength": 2 if row.order_shown[0] == 0 else -2, "comment": "plainly"}  # the left one, whichever it was
    assert 8_000 <= row.active_ms <= 60_000
    assert f"{question}/take" not in manager.get("/manage/adjudicate").text
    assert "judged by Mona" in words(manager.get("/manage/adjudicate?all=1").text)


def test_disputes_stand_in_the_order_of_their_size(app: FastAPI) -> None:
    html = signed_in(app, "manager").get("/manage/adjudicate?all=1").text
    sizes = []
    for row in html.split("<tr")[2:]:
        found = re.search(r'data-label="People"[^>]*>(\d+)<.*?data-label="Entropy, bits"[^>]*>([\d.]+)', row, re.DOTALL)
        assert found is not None
        sizes.append(int(found[1]) * float(found[2]))
    assert len(sizes) > 5
    assert all(earlier >= later - 0.05 for earlier, later in pairwise(sizes))


# ---- the browser ----


def test_prompts_are_found_by_words_and_split(app: FastAPI) -> None:
    manager = signed_in(app, "manager")
    assert manager.get("/manage/prompts?words=POTATOES").text.count("Do potatoes keep") == 5
    assert "No prompt fits" in manager.get("/manage/prompts?split=train").text
    assert "No prompt fits" in manager.get("/manage/prompts?words=100%25").text  # a percent sign means itself


def test_samples_are_found_by_policy(app: FastAPI) -> None:
    manager = signed_in(app, "manager")
    html = manager.get("/manage/samples?policy=base").text
    assert html.count('class="card sample"') == 30
    assert set(re.findall(r'<span class="tag">([^<]+)</span>', html)) <= {"base", "cut off"}
    assert "No sample fits" in manager.get("/manage/samples?policy=people").text


def all_pages(client: TestClient, address: str, pattern: str) -> list[str]:
    """What a pattern finds on a list's page and all that follow it."""
    found: list[str] = []
    while True:
        html = client.get(address).text
        found += re.findall(pattern, html)
        further = re.search(r'href="([^"]+)">Next page', html)
        if further is None:
            return found
        address = unescape(further[1])


def test_pages_of_lists_leave_nothing_out_and_show_nothing_twice(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    prompts = all_pages(manager, "/manage/prompts", r'class="clip" dir="auto" href="/manage/prompts/([0-9a-f]+)"')
    assert len(prompts) == len(set(prompts)) == one(project, select(func.count()).select_from(Prompt))
    samples = all_pages(manager, "/manage/samples?policy=base", r'class="card (sample)"')
    assert len(samples) == one(project, select(func.count()).where(Sample.policy_id == "base"))
    judgements = all_pages(manager, "/manage/judgements", r'data-label="(Shown)"')
    assert len(judgements) == one(project, select(func.count()).select_from(Judgement))


def test_judgements_are_filtered(app: FastAPI, project: Project, sets: dict[str, str]) -> None:
    manager, ana = signed_in(app, "manager"), person_in(project, "Ana", "annotator")
    rows = r'data-label="(Shown)"'
    with project.database.read() as session:
        log = list(session.scalars(select(Judgement)))
    assert len(all_pages(manager, f"/manage/judgements?annotator={ana}", rows)) == sum(row.annotator_id == ana for row in log)
    assert len(all_pages(manager, "/manage/judgements?answer=skip", rows)) == sum("skip" in row.answer for row in log)
    assert len(all_pages(manager, "/manage/judgements?answer=both_bad", rows)) == sum("both_bad" in row.answer for row in log)
    assert len(all_pages(manager, "/manage/judgements?answer=tie", rows)) == sum(row.answer.get("strength") == 0 for row in log)
    assert len(all_pages(manager, "/manage/judgements?flag=off-topic", rows)) == sum("off-topic" in row.answer.get("flags", []) for row in log)
    assert len(all_pages(manager, "/manage/judgements?kind=edit", rows)) == 0
    today = now().date().isoformat()
    tomorrow = (now() + timedelta(days=1)).date().isoformat()
    early = sum(row.submitted_at.date().isoformat() <= today for row in log)
    assert len(all_pages(manager, f"/manage/judgements?until={today}", rows)) == early
    assert len(all_pages(manager, f"/manage/judgements?since={tomorrow}", rows)) == len(log) - early
    assert manager.get("/manage/judgements?since=yesterday&until=99999-01-01").status_code == 200
    assert manager.get("/manage/judgements?words=%00").status_code == 200
    assert len(all_pages(manager, f"/manage/judgements?set={sets[SET]}&words=potatoes", rows)) > 0


def test_a_question_shows_its_whole_history(app: FastAPI, project: Project) -> None:
    manager = signed_in(app, "manager")
    newer = one(project, select(Judgement).where(Judgement.supersedes.is_not(None)))
    html = manager.get(f"/manage/questions/{newer.question_id}").text
    assert "changed since" in html
    assert "<s>" in html
    assert "Skipped: I know too little" in words(html)
    assert ">base<" in html  # managers see who wrote what


# ---- rounds ----


def test_a_round_is_shown_and_its_report_written_and_served(app: FastAPI) -> None:
    manager = signed_in(app, "manager")
    assert "Round 1" in words(manager.get("/manage/rounds").text)
    assert "Write the report" in words(manager.get("/manage/rounds/1").text)
    assert manager.get("/manage/rounds/1/report").status_code == 404
    assert manager.post("/manage/rounds/1/report").headers["location"] == "/manage/rounds/1/report"
    html = manager.get("/manage/rounds/1/report").text
    assert "preferred" in html
    assert not re.search(r"<style|\sstyle=|Content-Security-Policy", html)
    address = re.search(r'<link rel="stylesheet" href="([^"]+)"', html)
    assert address is not None
    css = manager.get(address[1])
    assert css.headers["content-type"].startswith("text/css")
    assert '[data-columns="3"] { --columns: 3; }' in css.text
    assert "--accent" in css.text
    assert manager.get("/manage/rounds/round-1.html").headers["location"] == "/manage/rounds/1/report"
    assert manager.get("/manage/rounds/7").status_code == 404
