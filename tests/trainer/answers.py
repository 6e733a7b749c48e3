"""Answers for tests, worked out from the probabilities wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.answered import Answered


def answered(
    labels: Sequence[str],
    photos: Sequence[tuple[str, Sequence[float]]],
    *,
    groups: Sequence[int] | None = None,
    stations: Sequence[str | None] | None = None,
    infrared: Sequence[bool] | None = None,
    sources: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
) -> Answered:
    """Photos as (label, probabilities); each is a group of its own unless said otherwise."""
    n = len(photos)
    return Answered(
        logits=np.log(np.array([chances for _, chances in photos], np.float32).reshape(n, len(labels))),
        truth=np.array([labels.index(label) for label, _ in photos], np.intp),
        labels=tuple(labels),
        groups=np.array(range(n) if groups is None else groups, np.intp),
        stations=[None] * n if stations is None else stations,
        infrared=np.zeros(n, bool) if infrared is None else np.array(infrared),
        sources=[None] * n if sources is None else sources,
        names=[f"{i}.jpg" for i in range(n)] if names is None else names,
    )
