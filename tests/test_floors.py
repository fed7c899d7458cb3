"""The house stands: imports go down, the doors open without torch, one module prints, nothing is unpickled."""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import truing

PACKAGE = Path(truing.__file__).parent
FLOOR = {
    "errors": 0, "stats": 0, "config": 1, "console": 1, "pages": 1, "store": 2, "artifacts": 2, "models": 2,
    "prompts": 3, "samples": 3, "feedback": 3, "preferences": 3, "reward": 3, "policy": 3, "evaluation": 3,
    "rounds": 4, "chat": 5, "demo": 5, "sweep": 5, "studio": 6, "cli": 7, "client": 7, "__main__": 8,
}  # fmt: skip
PURE = {"stats.py", "policy/losses.py", "policy/advantages.py", "policy/kl.py", "reward/losses.py"}  # maths
TORCH_FREE = ("store", "feedback", "studio", "client", "prompts", "preferences", "cli", "config", "console", "artifacts", "errors")


@cache
def modules() -> dict[str, ast.Module]:
    """Path in the package → syntax tree, for every module."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def room(path: str) -> str:
    """The module or folder of the package that a file belongs to."""
    return path.partition("/")[0].removesuffix(".py")


def imports_of_ours(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports from the package, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            names = [f"truing.{alias.name}" for alias in node.names] if node.module == "truing" else [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("truing."))


def test_every_room_has_a_floor() -> None:
    rooms = {room(path) for path in modules()} - {"__init__", "data"}
    assert rooms <= FLOOR.keys(), "a new room is a decision: give it a floor in DESIGN.md and here"


def test_no_tolerance_hides_an_error() -> None:
    """A comparison that forgives more than a hundredth forgives nearly anything."""
    wide = [
        f"{path.name}: {found.group()}"
        for path in Path(__file__).parent.rglob("test_*.py")
        for found in re.finditer(r"\b(?:rtol|atol|abs|rel)=([0-9.]+(?:e-?[0-9]+)?)", path.read_text(encoding="utf-8"))
        if float(found.group(1)) > 1e-2
    ]
    assert not wide, "\n".join(wide)


def test_imports_go_down() -> None:
    """A module may import lower floors and its own folder; stages share floor 3, so they never import each other."""
    wrong = [
        f"{path}: {room(path)} (floor {FLOOR[room(path)]}) imports {there} (floor {FLOOR[there]})"
        for path, tree in modules().items()
        if room(path) in FLOOR
        for there in (name.split(".")[1] for name in imports_of_ours(tree))
        if there != room(path) and FLOOR[there] >= FLOOR[room(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_maths_import_only_maths() -> None:
    found = modules()
    names = {f"truing.{path.removesuffix('.py').replace('/', '.')}" for path in PURE}
    assert {path: sorted(set(imports_of_ours(found[path])) - names) for path in PURE} == {path: [] for path in PURE}


def torch_free() -> list[str]:
    """Every module in the rooms that open without torch."""
    names = []
    for name in TORCH_FREE:
        names.append(f"truing.{name}")
        folder = PACKAGE / name
        if folder.is_dir():
            found = pkgutil.walk_packages([str(folder)], f"truing.{name}.")
            names += [module.name for module in found if ".migrations" not in module.name]  # alembic runs those
    return names


@pytest.mark.slow
def test_the_doors_open_without_torch() -> None:
    script = f"import sys, {', '.join(torch_free())}; sys.exit(', '.join({{'torch', 'transformers', 'datasets'}} & sys.modules.keys()) or 0)"
    ended = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def calls(tree: ast.Module) -> Iterator[str]:
    """Names of everything that is called, as written: `print`, `torch.load`."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_only_the_console_prints() -> None:
    assert [path for path, tree in modules().items() if path != "console.py" and {"print", "sys.stdout.write"} & set(calls(tree))] == []


def test_nothing_is_unpickled() -> None:
    """No pickle is ever loaded: weights are safetensors, the rest is JSON."""
    wrong = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "numpy.load", "np.load", "eval", "exec"}
    assert [(path, sorted(wrong & set(calls(tree)))) for path, tree in modules().items() if wrong & set(calls(tree))] == []


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "misc"])
def test_no_module_is_called_by_what_it_is_not(name: str) -> None:
    assert [path for path in modules() if name in Path(path).with_suffix("").parts] == []
