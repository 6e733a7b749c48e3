"""How much of each generated thing the tests try: one table, three tiers.

``FIELDMARK_TIER`` chooses: ``test`` (``make test``, minutes), ``ci`` (``.ci/run``) or ``long`` (``make test-long``, a
night). A test takes its count from here and from nowhere else, so that every tier runs the same tests.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from hypothesis import HealthCheck, settings


class Counts(NamedTuple):
    """One number for each tier."""

    test: int
    ci: int
    long: int


COUNTS = {
    # bits flipped one at a time in a bundle, drawn over the whole file
    "flipped_bytes_sampled": Counts(300, 1_000, 20_000),
    # JPEGs with a random part cut, zeroed or overwritten
    "damaged_jpegs": Counts(60, 200, 5_000),
    # examples of each property
    "hypothesis_examples": Counts(30, 100, 2_000),
}


def tier() -> str:
    """The tier of this run."""
    name = os.environ.get("FIELDMARK_TIER", "test")
    if name not in Counts._fields:
        raise ValueError(f"FIELDMARK_TIER is {name!r}, expected one of {', '.join(Counts._fields)}.")
    return name


def count(entry: str) -> int:
    """How many of ``entry`` this run tries."""
    return int(getattr(COUNTS[entry], tier()))


def load_hypothesis_profile() -> None:
    """Make and load the hypothesis profile of this tier.

    Examples are the same in every run of ``test`` and ``ci``, so that a red run means the change; ``long`` draws new
    ones.
    No deadline: machines differ and share their cores.
    """
    name = tier()
    settings.register_profile(
        name,
        max_examples=count("hypothesis_examples"),
        deadline=None,
        derandomize=name != "long",
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(name)
