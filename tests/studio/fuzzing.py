"""Schemathesis against the whole application: requests made from the API's own description, right ones and wrong ones, and every check it knows."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from studio.doors import ALL
from truing.store.clock import now
from truing.store.project import Project
from truing.studio.api import document
from truing.studio.auth import make_token
from truing.studio.security import Limits
from visitors import studio_of

HOST = "testserver"  # what schemathesis calls the application
NO_PACE = Limits(each_second=1e9, burst=10**9)
PHASES = ("examples", "coverage", "fuzzing", "stateful")
# What the description can't say: a conversation ends with the user, and a value may be refused for what it means.
SENSE = {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404", "409", "422"]}}


class Fuzzed(NamedTuple):
    """What came of it."""

    operations: int
    requests: int
    statuses: dict[str, int]  # status → how many answers had it
    failures: list[str]  # operation, check, what was wrong; each kind once


def studio_for_fuzzing(project: Project) -> FastAPI:
    """A studio that schemathesis can reach as quickly as it likes."""
    return studio_of(project, names=(HOST,), limits=NO_PACE)


def fuzz(app: FastAPI, *, examples: int, seed: int, phases: Collection[str] = PHASES) -> Fuzzed:
    """Send requests to every operation.

    Args:
        examples: of random requests for each operation, beside those that go through the edges of its description.
        seed: draws them.
        phases: some of PHASES: "coverage" goes through the edges of the description, which takes most of the time.
    """
    token = make_token(app.state.project, "fuzzing", ALL, None, at=now())
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "headers": {"Authorization": f"Bearer {token}"},
            "checks": SENSE,
            "phases": {name: {"enabled": name in phases} for name in PHASES},
            "generation": {"max-examples": examples, "database": "none"},
            "continue-on-failure": True,
        }
    )
    schema = schemathesis.openapi.from_dict(document(), config=config)
    schema.app = app
    operations: set[str] = set()
    statuses: Counter[str] = Counter()
    failures: dict[str, None] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            failures[f"{event.label}: {event.info.message}"] = None
        if isinstance(event, ScenarioFinished):
            operations.update({str(event.label)} - {"Stateful tests"})
            for interaction in event.recorder.interactions.values():
                statuses[str(interaction.response.status_code if interaction.response else "none")] += 1
            for case_id, nodes in event.recorder.checks.items():
                for node in nodes:
                    if node.failure_info is not None:
                        case = event.recorder.cases[case_id].value
                        failure = node.failure_info.failure
                        failures[f"{case.method} {case.path}: {node.name}: {failure.title}: {failure.message}"] = None
    return Fuzzed(len(operations), sum(statuses.values()), dict(sorted(statuses.items())), list(failures))
