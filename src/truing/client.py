"""Feedback inside your own application: send what your model answered, ask for comparisons, record what your users say.

    with Client("http://127.0.0.1:8000", token) as truing:
        sample = truing.add_sample("Word a kind refusal.", "No, but thank you for asking!", by="my-model-2")
        truing.thumb(sample.id, up=True, user="customer 7")

Everything may be sent twice: ids are hashes of what a thing is made from, and every answer carries an idempotency key. So what a broken
connection or a busy studio leaves open is sent again, with longer and longer pauses.
"""

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import TypeAdapter, ValidationError

from truing.errors import UserError
from truing.studio import wire

FIRST_PAUSE_S = 0.25  # doubled with every attempt, and somewhat more or less by chance
LONGEST_PAUSE_S = 30.0
AGAIN = (429, 502, 503, 504)  # what a later attempt may get past
IS_ID = re.compile(r"[0-9a-f]{32}")

M = TypeVar("M", bound=wire.Wire)
Asked = str | Sequence[Mapping[str, str]]  # the id of a prompt, its text, or its turns


class Client:
    """A connection to a studio's API. Use it as a context manager, or close it.

    Args:
        url: where the studio is.
        token: a token with the scopes you need; a manager makes one under Manage → Tokens.
        timeout_s: how long one attempt may take.
        attempts: how often a request is tried in all.
        transport: another way to reach the studio; for tests.
        sleep: how to wait, in seconds; for tests.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        attempts: int = 6,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._attempts, self._sleep = url.rstrip("/"), attempts, sleep
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._http = httpx2.Client(base_url=f"{self._url}/api/v1/", headers=headers, timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    # ---- prompts and samples ----

    def add_prompt(self, prompt: Asked, *, source: str = "api", metadata: Mapping[str, Any] | None = None) -> wire.KeptPrompt:
        """Keep a prompt: a text, or turns as {"role", "content"} that end with the user's. See also `add_prompts`."""
        return self.add_prompts([_checked(wire.NewPrompt, turns=_turns(prompt), source=source, metadata=dict(metadata or {}))])[0]

    def add_prompts(self, prompts: Sequence[wire.NewPrompt]) -> list[wire.KeptPrompt]:
        """Keep prompts, all of them or none; at most 200."""
        return self._post("prompts", _checked(wire.NewPrompts, prompts=list(prompts)), wire.KeptPrompts).prompts

    def add_sample(self, prompt: Asked, text: str, *, by: str, human: bool = False, batch: str = "app", finished: bool = True) -> wire.KeptSample:
        """Keep a response.

        Args:
            prompt: the id of a prompt, or its text or turns: then the prompt is kept as well.
            by: the model's name, or the person's.
            human: whether a person wrote it.
            batch: samples of one batch can be asked about in one set.
            finished: whether it ended by itself rather than being cut off.
        """
        asked = prompt if isinstance(prompt, str) and IS_ID.fullmatch(prompt) else _turns(prompt)
        return self.add_samples([_checked(wire.NewSample, prompt=asked, text=text, by=by, human=human, batch=batch, finished=finished)])[0]

    def add_samples(self, samples: Sequence[wire.NewSample]) -> list[wire.KeptSample]:
        """Keep responses, all of them or none; at most 200."""
        return self._post("samples", _checked(wire.NewSamples, samples=list(samples)), wire.KeptSamples).samples

    # ---- questions ----

    def ask(
        self, set: str, samples: Sequence[str], *, kind: wire.KindName = "pair", overlap: int | None = None, guideline: str | None = None
    ) -> wire.QuestionView:
        """Ask about samples of one prompt (their ids, A first), in the set of this name: people in the studio get it, and you may ask your own users.

        Args:
            overlap: how many people are wanted; None: as the set has it.
            guideline: what people are told, in a set that is made now.
        """
        asked = _checked(wire.NewComparison, set=set, samples=list(samples), kind=kind, overlap=overlap, guideline=guideline)
        return self._post("comparisons", asked, wire.QuestionView)

    def question(self, question_id: str) -> wire.QuestionView:
        """A question with its prompt and samples."""
        return self._get(f"questions/{quote(question_id, safe='')}", wire.QuestionView)

    def sets(self) -> list[wire.SetView]:
        """All sets of questions and how far they are."""
        return self._get("sets", wire.SetViews).sets

    def progress(self, set_id: str) -> wire.SetView:
        """How far one set is."""
        return self._get(f"sets/{quote(set_id, safe='')}/progress", wire.SetView)

    # ---- what people say ----

    def thumb(
        self, sample_id: str, up: bool, *, user: str, comment: str | None = None, set: str = "thumbs", active_ms: int = 0, key: str | None = None
    ) -> wire.Receipt:
        """Record a thumbs-up or -down of one of your users.

        Args:
            user: your id of the person; a keyed hash of it is kept.
            key: the same for every attempt to send the same answer; None: a new one, so that a second call is a second answer.
        """
        given = _checked(wire.NewThumb, sample_id=sample_id, up=up, user=user, comment=comment, set=set, active_ms=active_ms, idempotency_key=key or _new_key())
        return self._post("thumbs", given, wire.Receipt)

    def judge(
        self,
        question_id: str,
        answer: Mapping[str, Any],
        *,
        user: str,
        order_shown: Sequence[int],
        started_at: datetime | None = None,
        active_ms: int = 0,
        guideline_version: int | None = None,
        key: str | None = None,
    ) -> wire.Receipt:
        """Record the answer of one of your users to a question.

        Args:
            answer: {"strength": -3..3} (above 0: the question's first sample is better), {"both_bad": True}, {"ranks": [...]},
                {"aspects": {...}}, {"up": ...}, {"text": ...}, {"unchanged": True} or {"skip": "why"}; beside it flags and a comment.
            user: your id of the person; a keyed hash of it is kept.
            order_shown: places of the samples as they stood on the screen, from left to right, e.g. [1, 0].
            key: the same for every attempt to send the same answer; None: a new one.
        """
        given = _checked(
            wire.NewJudgement, question_id=question_id, answer=dict(answer), user=user, order_shown=list(order_shown), started_at=started_at,
            active_ms=active_ms, guideline_version=guideline_version, idempotency_key=key or _new_key(),
        )  # fmt: skip
        return self._post("judgements", given, wire.Receipt)

    def prefer(
        self, question: wire.QuestionView, better: str | None, *, user: str, order_shown: Sequence[int], strength: int = 2, key: str | None = None
    ) -> wire.Receipt:
        """Record which of a pair one of your users likes better: a sample's id, or None for a tie. `strength` is 1 (slightly) to 3 (much)."""
        ids = [sample.id for sample in question.samples]
        if better is not None and better not in ids:
            raise UserError(f"{better} is none of the question's samples", fix=f"name one of {', '.join(ids)}, or None for a tie")
        signed = 0 if better is None else strength if better == ids[0] else -strength
        return self.judge(question.id, {"strength": signed}, user=user, order_shown=order_shown, guideline_version=question.guideline_version, key=key)

    def judgements(self, *, since: datetime | None = None, after: str | None = None, known: Container[str] = ()) -> Iterator[wire.JudgementView]:
        """The log of judgements, row by row, in the order of their ids, fetched in pages; superseded rows are in it.

        Ids follow the time of submission, not that of arrival: a row that is imported later, or was kept a moment late, may come before rows that you have, and
        `after` and `since` pass over it. `known` alone misses nothing: it reads the whole log.

        Args:
            since: only what was submitted then or later.
            after: only what has an id after this one: to take up a reading that broke off.
            known: ids of the rows that you have; they are left out.
        """
        while True:
            found = {"after": after, "since": since and since.isoformat(), "limit": wire.MOST_IN_A_PAGE}
            page = self._get("judgements", wire.JudgementPage, {name: value for name, value in found.items() if value is not None})
            yield from (row for row in page.judgements if row.id not in known)
            if page.next is None:
                return
            after = page.next

    # ---- files, rounds, state ----

    def export(self, file: Path, format: str = "native") -> None:
        """Fetch all judgements as a file, which appears whole or not at all."""
        part = file.with_name(f".{file.name}.part")
        try:
            with part.open("wb") as out:
                self._send("GET", "export", params={"format": format}, into=out)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)

    def import_file(self, file: Path, format: str = "auto", *, strict: bool = False) -> wire.ImportView:
        """Send a file of judgements; sending it twice is no harm."""
        form = {"format": format, "strict": "true" if strict else "false"}
        response = self._send("POST", "import", data=form, files=lambda: {"file": (file.name, file.open("rb"))})
        return wire.ImportView.model_validate_json(response.content)

    def rounds(self) -> list[wire.RoundView]:
        """All rounds, first to last."""
        return self._get("rounds", wire.RoundViews).rounds

    def status(self) -> wire.StatusView:
        """What the project holds and what it is doing."""
        return self._get("status", wire.StatusView)

    # ---- requests ----

    def _get(self, path: str, kind: type[M], params: Mapping[str, Any] | None = None) -> M:
        return kind.model_validate_json(self._send("GET", path, params=params).content)

    def _post(self, path: str, body: wire.Wire, kind: type[M]) -> M:
        content = body.model_dump_json().encode()
        return kind.model_validate_json(self._send("POST", path, content=content, headers={"content-type": "application/json"}).content)

    def _send(self, method: str, path: str, *, into: BinaryIO | None = None, **request: Any) -> httpx2.Response:
        """The answer to a request that is tried until it is taken, refused, or the attempts are used up."""
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._once(method, path, into, request)
            except httpx2.TransportError as error:
                if last:
                    raise UserError(f"no studio answers at {self._url}: {error}", fix="start it with `truing studio`, or check the address") from error
                self._sleep(_pause(attempt))
                continue
            if response.is_success:
                return response
            if last or response.status_code not in AGAIN:
                raise _refusal(response)
            self._sleep(_asked_pause(response) or _pause(attempt))
        raise UserError("no attempt was allowed", fix="give the client `attempts` of 1 or more")

    def _once(self, method: str, path: str, into: BinaryIO | None, request: Mapping[str, Any]) -> httpx2.Response:
        """One attempt; a body that is wanted elsewhere is passed on as it comes, everything else is read."""
        files = request.get("files")
        opened = {} if files is None else {"files": files()}
        try:
            with self._http.stream(method, path, **{**request, **opened}) as response:
                if into is None or not response.is_success:
                    response.read()
                else:
                    into.seek(0)  # an attempt before this one may have broken off
                    into.truncate()
                    for piece in response.iter_bytes():
                        into.write(piece)
                return response
        finally:
            for _, file in opened.get("files", {}).values():
                file.close()


def _turns(prompt: Asked) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def _checked(message: type[M], /, **values: Any) -> M:
    """The message of these values.

    Raises:
        UserError: one of them is not what it may be.
    """
    try:
        return message(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}", fix="mend it and send it again") from error


def _new_key() -> str:
    return uuid.uuid4().hex


def _pause(attempt: int) -> float:
    """Seconds to wait after so many attempts: doubling, half of it by chance, so that many clients don't come back all at once."""
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
    return longest * (0.5 + 0.5 * random.random())


def _asked_pause(response: httpx2.Response) -> float | None:
    """The seconds that the studio asks to wait, at most two minutes; None if it doesn't."""
    said = response.headers.get("retry-after", "")
    return min(float(said), 120.0) if said.isdecimal() else None


def _refusal(response: httpx2.Response) -> UserError:
    """What the studio said, as an error."""
    try:
        problem = TypeAdapter(wire.Problem).validate_json(response.content)
    except ValidationError:  # something between us and the studio answered
        return UserError(f"{response.url} answered with status {response.status_code}", fix="check the address: is that a studio?")
    return UserError(problem.what, fix=problem.fix)
