"""The API under test: a studio on either database, and what an application would send to it."""

from typing import Any

from starlette.testclient import TestClient

from truing.studio.auth import SCOPES
from visitors import program

QUESTION = [{"role": "user", "content": "Word a kind refusal."}]
KEY = "key-00000001"
ALL = SCOPES


def holder(app: Any, *scopes: str) -> TestClient:
    """A program with a token of these scopes, by default of all."""
    return program(app, *(scopes or ALL))


def sample_ids(client: TestClient, *texts: str, by: str = "model-1") -> list[str]:
    """Samples of one prompt with these texts."""
    body = {"samples": [{"prompt": QUESTION, "text": text, "by": by} for text in texts]}
    answer = client.post("/api/v1/samples", json=body)
    assert answer.status_code == 200, answer.text
    return [sample["id"] for sample in answer.json()["samples"]]


def asked(client: TestClient, *texts: str, kind: str = "pair", set: str = "refusals", **more: Any) -> dict[str, Any]:
    """A question about samples with these texts."""
    answer = client.post("/api/v1/comparisons", json={"set": set, "kind": kind, "samples": sample_ids(client, *texts), **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def judgement(question: str, **changes: Any) -> dict[str, Any]:
    """An answer to a pair by a user of the application: A, by two, who stood on the right."""
    return {"question_id": question, "user": "customer 7", "answer": {"strength": 2}, "order_shown": [1, 0], "idempotency_key": KEY} | changes
