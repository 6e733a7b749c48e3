"""Set-up that all tests share: the tier's counts, and the capabilities that a test may need."""

from __future__ import annotations

import os

import pytest

from tests import capabilities, scale

pytest_plugins = ["tests.fixtures_models"]

scale.load_hypothesis_profile()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose ``needs`` are not met."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            capabilities.require(name)


def pytest_report_header() -> list[str]:
    """Say in the first lines what this run takes for granted."""
    return [f"fieldmark: tier {scale.tier()}, required {' '.join(sorted(capabilities.required())) or 'nothing'}"]
