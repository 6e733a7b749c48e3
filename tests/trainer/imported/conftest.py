"""The foreign network, built once, and its files in every style, converted when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.trainer.imported import foreign


@pytest.fixture(scope="session")
def network() -> Any:
    """The colour network, which ends in a softmax."""
    return foreign.network()


@pytest.fixture(scope="session")
def tflite(network: Any) -> Callable[[str], bytes]:
    """The network as a ``.tflite`` in one of :data:`foreign.STYLES`."""
    return cache(lambda style: foreign.convert(network, style))
