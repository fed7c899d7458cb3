"""What a benchmark of the studio found, in a file and as the last line of stdout."""

import datetime
import importlib.metadata
import json
import os
import platform
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def record(name: str, what: str, found: Mapping[str, Any], out: Path) -> None:
    """Write NAME-DATE.json and print the same."""
    date = datetime.date.today().isoformat()
    whole = {"what": what, "date": date, "machine": machine(), "versions": versions(), **found}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}-{date}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(whole))


def machine() -> str:
    """What it ran on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")), platform.processor())
    return f"{name} ({platform.machine()}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    found = {one: importlib.metadata.version(one) for one in ("truing", "fastapi", "starlette", "uvicorn", "sqlalchemy")}
    return {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version} | found
