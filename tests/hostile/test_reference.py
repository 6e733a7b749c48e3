"""docs/bundle.md says what the code does: codes, caps, keys of the manifest, and how to check a bundle by hand."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.agent import slots
from edge.model import archive, golden, strict, trust
from edge.model import bundle as bundles
from tests.fakes import tiny
from tests.hostile import device as hostile
from tests.hostile import reference

MODULES = (archive, bundles, strict, trust)


def _sources() -> list[ast.Module]:
    return [ast.parse(Path(str(module.__file__)).read_text("utf-8")) for module in MODULES]


def raised(tree: ast.AST) -> Iterator[str]:
    """Every code in a module: what ``code=`` is given, the last argument of what makes a refusal, and what is kept
    under a name for either."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=value):
                yield from _texts(value)
            case ast.Call(func=ast.Name(id="refuse") | ast.Attribute(attr="refuse" | "_refuse" | "exactly"), args=args):
                yield from _texts(args[-1])
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from _texts(value)
            case ast.Assign(targets=[ast.Name(id="_KINDS")], value=ast.Dict(values=values)):
                yield from (text for value in values for text in _texts(value))


def _texts(value: ast.AST) -> Iterator[str]:
    return (node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_every_code_is_in_the_table_and_no_other() -> None:
    listed = [reference.quoted(row[0])[0] for row in reference.rows("Codes")]
    assert len(set(listed)) == len(listed)
    assert {code for tree in _sources() for code in raised(tree)} == set(listed)


def test_no_error_of_these_modules_is_without_a_code() -> None:
    for tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                assert "code" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)


def test_the_codes_of_the_device_are_on_the_page() -> None:
    page = set(reference.quoted(reference.section("Codes")))
    for module in (golden, slots):
        source = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
        of_installing = {"damaged", "no bundle", "no device", "device"}  # said when a bundle is run, not when it comes
        assert set(raised(source)) - of_installing <= page


def test_the_collector_sees_a_code_that_is_new() -> None:
    new = 'def f():\n    raise BundleError("x", code="new")\n    raise self._refuse("x", "newer" if x else "newest")\n'
    assert set(raised(ast.parse(new))) == {"new", "newer", "newest"}


CAPS = {
    "`manifest.json`": bundles.MAX_MANIFEST_BYTES,
    "a signature": trust.MAX_SIGNATURE_BYTES,
    "a root": trust.MAX_ROOT_BYTES,
    "roots": bundles.MAX_ROOTS,
    "signatures of one root": bundles.MAX_ROOT_SIGNATURES,
    "a payload file": bundles.MAX_FILE_BYTES,
    "all payload files": bundles.MAX_PAYLOAD_BYTES,
    "payload files": bundles.MAX_FILES,
    "labels": bundles.MAX_LABELS,
    "golden photos": bundles.MAX_GOLDEN,
}


def test_the_caps_are_those_of_the_code() -> None:
    assert {what: int(most.split()[0]) for what, most in reference.rows("Caps")} == CAPS


def _keys(value: Any, way: str = "") -> Iterator[str]:
    """``labels[].name`` and the like; the free names of maps are not keys of the format."""
    for key, inner in value.items():
        here = f"{way}.{key}" if way else key
        yield here
        if isinstance(inner, list) and isinstance(inner[0], dict):
            yield from _keys(inner[0], f"{here}[]")
        elif isinstance(inner, dict) and key not in ("gate_limits", "op_versions", "health", "metrics"):
            yield from _keys(inner, here)


def test_every_key_of_the_manifest_is_on_the_page_and_no_other() -> None:
    listed = [key for row in reference.rows("Manifest, format 2") for key in reference.quoted(row[0])]
    assert listed == list(dict.fromkeys(listed))
    assert set(listed) == set(_keys(json.loads(bundles.manifest_bytes(tiny.manifest()))))
    assert f"Manifest, format {bundles.FORMAT}" in reference.PAGE.read_text("utf-8")


@pytest.mark.needs("minisign")
def test_a_bundle_can_be_checked_by_hand_as_the_page_says(tmp_path: Path) -> None:
    script = reference.section("By hand").split("```sh\n")[1].split("```")[0]
    done = _by_hand(script, hostile.fox(2), tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: fieldmark-bundle fox 2" in done.stdout
    assert "model.tflite: OK" in done.stdout
    for name, at in (("model", hostile.place("model.tflite") + 600), ("manifest", 600), ("header", 150)):
        altered = bytearray(hostile.fox(2))
        altered[at] ^= 1
        assert _by_hand(script, bytes(altered), tmp_path / name).returncode != 0


def _by_hand(script: str, bundle: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    (folder / "fox-2.fmb").write_bytes(bundle)
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
