"""The capability probes: what is missing skips, what is required and missing fails."""

from __future__ import annotations

import pytest

from tests import capabilities


@pytest.fixture
def _impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities.missing.cache_clear()
    monkeypatch.setitem(capabilities.PROBES, "impossible", lambda: "no machine can")


@pytest.mark.usefixtures("_impossible")
def test_missing_capability_skips_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(capabilities.REQUIRE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="impossible: no machine can"):
        capabilities.require("impossible")


@pytest.mark.usefixtures("_impossible")
def test_missing_capability_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(capabilities.REQUIRE_VARIABLE, "impossible")
    with pytest.raises(pytest.fail.Exception, match="impossible: no machine can"):
        capabilities.require("impossible")


def test_required_name_without_a_probe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(capabilities.REQUIRE_VARIABLE, "minisgn")
    with pytest.raises(ValueError, match="minisgn"):
        capabilities.required()


@pytest.mark.parametrize("name", sorted(capabilities.required()) or ["minisign"])
def test_what_is_required_is_there(name: str) -> None:
    capabilities.require(name)
