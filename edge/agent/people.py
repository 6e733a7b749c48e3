"""Whether a photo shows a person, and what may be kept of it. Pure: sees an answer, never a picture.

Nothing here touches the original. Who wants no originals of people either deletes them by a policy, see
:mod:`edge.agent.deletion`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from edge.agent.config_upkeep import People

PERSON = "person"  # as edge.model.decide spells it; that one needs numpy


class Treatment(enum.Enum):
    """What happens to a preview, with the log's word for what became of it."""

    KEEP = "kept"
    BLUR = "blurred"
    WITHHOLD = "withheld"


_OF_PEOPLE = {"keep": Treatment.KEEP, "blur": Treatment.BLUR, "none": Treatment.WITHHOLD}


def shows_person(label: str | None, top: Sequence[tuple[str, float]], above: float) -> bool:
    """Whether somebody is, or may well be, in the photo.

    Args:
        label: the decided one.
        top: (label, probability) pairs of the model.
        above: the least probability at which a person who was not decided counts.
    """
    return label == PERSON or any(name == PERSON and chance >= above for name, chance in top)


def treatment(label: str | None, top: Sequence[tuple[str, float]], people: People) -> Treatment:
    """What to do with the preview of a photo that a model has seen."""
    return _OF_PEOPLE[people.preview] if shows_person(label, top, people.above) else Treatment.KEEP
