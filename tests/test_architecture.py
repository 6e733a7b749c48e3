"""Which room may import which, read from the source, and what a Pi would load, found by loading it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("edge", "trainer", "deploy")
RUNTIMES = ("tflite_runtime", "ai_edge_litert")
HEAVY = ("tensorflow", "keras", "sklearn", "matplotlib", "scipy", "torch")

# Arrows that must not exist, as (from, to): module prefixes. Photos flow photo -> model -> log -> agent and review.
FORBIDDEN = (
    ("edge", "trainer"),
    ("edge", "deploy"),
    ("edge", "fieldmark"),
    ("edge", "tests"),
    *(("edge", heavy) for heavy in HEAVY),
    ("trainer", "deploy"),
    ("trainer", "fieldmark"),
    ("trainer", "tests"),
    ("deploy", "trainer"),
    ("deploy", "fieldmark"),
    ("deploy", "tests"),
    *(("deploy", heavy) for heavy in HEAVY),
    ("edge.photo", "edge.model"),
    ("edge.photo", "edge.log"),
    ("edge.photo", "edge.agent"),
    ("edge.photo", "edge.review"),
    ("edge.model", "edge.log"),
    ("edge.model", "edge.agent"),
    ("edge.model", "edge.review"),
    ("edge.log", "edge.agent"),
    ("edge.log", "edge.review"),
    ("edge.agent", "edge.review"),
    ("edge.review", "edge.agent"),
    *((f"edge.{part}", "edge.cli") for part in ("photo", "model", "log", "agent", "review")),
)
# The only parts of the house that the two workstation rooms may know.
ADMITTED = {
    "trainer": ("edge.errors", "edge.pathtext", "edge.photo", "edge.model"),
    "deploy": ("edge.errors", "edge.durable", "edge.model", "edge.agent.slots"),
}


class Import(NamedTuple):
    """One imported module, and where."""

    importer: str
    imported: str
    line: int


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, importer: str, *, package: bool = False) -> Iterator[Import]:
    """Every import in a module, also those inside functions and ``importlib.import_module("...")``."""
    for node in ast.walk(ast.parse(source, importer)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(importer, alias.name, node.lineno)
            case ast.ImportFrom(names=names):
                base = _base(node, importer, package)
                yield from (Import(importer, f"{base}.{alias.name}", node.lineno) for alias in names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield Import(importer, name, node.lineno)


def _base(node: ast.ImportFrom, importer: str, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = importer.split(".")
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def all_imports(root: Path = ROOT) -> list[Import]:
    found: list[Import] = []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            name = module_name(path, root)
            found.extend(imports_of(path.read_text("utf-8"), name, package=path.name == "__init__.py"))
    return found


def violations(found: list[Import]) -> list[str]:
    return [
        f"{one.importer}:{one.line} imports {one.imported} ({source} must not import {target})"
        for one in found
        for source, target in FORBIDDEN
        if inside(one.importer, source) and inside(one.imported, target)
    ]


def unadmitted(found: list[Import]) -> list[str]:
    return [
        f"{one.importer}:{one.line} imports {one.imported}"
        for one in found
        for room, admitted in ADMITTED.items()
        if inside(one.importer, room) and inside(one.imported, "edge")
        if not any(inside(one.imported, prefix) for prefix in admitted)
    ]


def test_no_forbidden_arrow() -> None:
    assert violations(all_imports()) == []


def test_workstation_rooms_meet_the_house_only_where_the_design_says() -> None:
    assert unadmitted(all_imports()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        pytest.param("edge/model/x.py", "import trainer.fit", id="edge imports trainer"),
        pytest.param(
            "edge/model/x.py", "def f():\n    from tensorflow import lite", id="edge imports tensorflow in a function"
        ),
        pytest.param("edge/model/x.py", "from .. import log", id="model imports log, relatively"),
        pytest.param("edge/review/__init__.py", "from ..agent import loop", id="review imports agent from its package"),
        pytest.param(
            "edge/log/store.py",
            "import importlib\nimportlib.import_module('edge.agent.loop')",
            id="log imports agent by name",
        ),
        pytest.param("trainer/x.py", "from deploy import keys", id="trainer imports deploy"),
        pytest.param("deploy/x.py", "import numpy, trainer", id="deploy imports trainer"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(all_imports(tmp_path))


def test_only_the_runtime_module_names_a_tflite_runtime() -> None:
    naming = {one.importer for one in all_imports() if any(inside(one.imported, runtime) for runtime in RUNTIMES)}
    assert naming <= {"edge.model.runtime"}
    quoted = re.compile(rf"[\"'](?:{'|'.join(RUNTIMES)})(?:\.[\w.]+)?[\"']")
    for path in sorted((ROOT / "edge").rglob("*.py")):
        if path != ROOT / "edge/model/runtime.py":
            assert not quoted.search(path.read_text("utf-8")), f"{path} names a runtime"


def test_edge_loads_without_what_only_a_workstation_has() -> None:
    modules = [module_name(path, ROOT) for path in sorted((ROOT / "edge").rglob("*.py"))]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"loaded = {HEAVY + RUNTIMES!r}\n"
        "print(*[name for name in loaded if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def distributions(requirements: list[str]) -> set[str]:
    """Names as PEP 503 has them."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower() for line in requirements}


@pytest.mark.parametrize("room", ROOMS)
def test_every_third_party_import_is_a_declared_dependency(room: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = distributions(project["dependencies"])
    declared |= distributions(project["optional-dependencies"].get({"edge": "mqtt"}.get(room, room), []))
    providers = metadata.packages_distributions()
    for one in all_imports():
        top = one.imported.partition(".")[0]
        if inside(one.importer, room) and top not in sys.stdlib_module_names and top not in ROOMS:
            assert distributions(providers.get(top, [top])) & declared, f"{one.importer}:{one.line} imports {top}"
