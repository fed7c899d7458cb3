"""Browsers and programs that visit a studio in the tests: strangers, people who are signed in, and holders of tokens."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from truing.store.clock import now
from truing.store.ids import uuid7
from truing.store.project import Project
from truing.store.tables import Annotator, Role
from truing.studio.app import create_app, listen
from truing.studio.auth import COOKIE, begin_session, make_token
from truing.studio.passwords import Passwords

HERE = "http://127.0.0.1:8000"
PASSWORD = "kettle drum fjord moss"


def quick_passwords() -> Passwords:
    """Argon2id with the least work it can do."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def studio_of(project: Project, **choices: Any) -> FastAPI:
    """The studio of a project, with quick passwords."""
    return create_app(project, **{"passwords": quick_passwords()} | choices)


def stranger(app: FastAPI, **headers: str) -> TestClient:
    """A browser that nobody signed in with; it says, as browsers do, that its requests come from the page it shows."""
    sent = {"sec-fetch-site": "same-origin", "accept": "text/html"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return TestClient(app, base_url=HERE, headers=sent, follow_redirects=False)


def person_in(project: Project, name: str, role: Role | str, *, password_hash: str | None = None, facts: dict[str, Any] | None = None) -> str:
    """The id of the person of that name, who is made if there is none."""
    with project.database.write() as store:
        found = store.scalars(select(Annotator.id).where(Annotator.name == name)).first()
        if found is not None:
            return found
        row = Annotator(
            id=uuid7(), name=name, kind="human", role=str(role), password_hash=password_hash, active=True, facts=facts or {}, created_at=now()
        )  # fmt: skip
        store.add(row)
        return row.id


def signed_in(app: FastAPI, role: Role | str, name: str = "") -> TestClient:
    """A browser in which somebody of this role is signed in, by default one who is called like the role."""
    project = app.state.project
    person_id = person_in(project, name or f"Some {role}", role)
    with project.database.write() as store:
        secret = begin_session(store, person_id, now())
    client = stranger(app)
    client.cookies.set(COOKIE, secret, domain="127.0.0.1", path="/")
    return client


def program(app: FastAPI, *scopes: str) -> TestClient:
    """A script with a token of these scopes."""
    token = make_token(app.state.project, f"token for {' '.join(scopes)}"[:80], scopes, None, at=now())
    return TestClient(app, base_url=HERE, headers={"authorization": f"Bearer {token}", "accept": "application/json"}, follow_redirects=False)


@contextmanager
def served(app: FastAPI, **choices: Any) -> Iterator[str]:
    """The app on a real server of its own; gives its address."""
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="error", lifespan="off", server_header=False, ws="none", **choices)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()
