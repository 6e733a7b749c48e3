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
    # places in a small bundle at which a byte is flipped; a night flips all of them
    "flipped_bytes_sampled": Counts(500, 5_000, 10**9),
    # bytes changed on a device in each of the headers, signatures and padding of a bundle; from ci on, all
    "changed_region_bytes": Counts(250, 10**6, 10**6),
    # bytes of a bundle's content changed, and bytes put in or taken out, one at a time
    "changed_content_bytes": Counts(200, 1_000, 2_000),
    # examples of each property in tests/hostile/test_fuzz.py
    "fuzzed_files": Counts(200, 1_000, 20_000),
    # JPEGs with a random part cut, zeroed or overwritten
    "damaged_jpegs": Counts(60, 200, 5_000),
    # power cuts of a running agent, of installations, and of each altered agent that must lose photos
    "power_cuts": Counts(15, 50, 300),
    "installer_power_cuts": Counts(8, 20, 100),
    "control_power_cuts": Counts(2, 5, 20),
    # rows of a made-up log that is exported with flat memory
    "log_rows": Counts(10_000, 50_000, 1_000_000),
    # random logs, of which every answer is compared with plain Python's
    "reference_logs": Counts(40, 150, 3_000),
    # system calls of the agent that fail, and at which it is killed; of an installer, half as many
    "injected_faults": Counts(4, 40, 300),
    # damaged files in one folder, and photos that one agent takes one after the other
    "damaged_photos": Counts(500, 1_000, 5_000),
    "soaked_photos": Counts(1_500, 3_000, 50_000),
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
