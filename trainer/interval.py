"""How far a share counted on a few photos can be trusted. Pure: counts in, bounds out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

Interval = tuple[float, float]
_Z95 = 1.959964


def wilson(hits: float, n: float) -> Interval:
    """Bounds that hold the true share in 95 of 100 cases (Wilson 1927). Of nothing, they are 0 and 1."""
    if n <= 0:
        return 0.0, 1.0
    share, z2 = hits / n, _Z95**2
    centre, spread = share + z2 / (2 * n), _Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
    return max(0.0, min(share, float(low))), min(1.0, max(share, float(high)))


def grouped(right: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp]) -> Interval:
    """Wilson's bounds for photos that come in bursts, of which ten alike say little more than one.

    n is divided by the design effect (Rao and Scott 1992), never by less than 1. Where all photos are right, or none,
    bursts cannot be seen to vary, and each counts as one photo.

    Args:
        right: bool (n,).
        groups: n numbers; photos of one number are not independent.
    """
    n = len(right)
    if n == 0:
        return wilson(0, 0)
    _, index = np.unique(groups, return_inverse=True)
    share, sizes = float(right.mean()), np.bincount(index)
    independent = float(len(sizes))
    if 0 < share < 1 and len(sizes) > 1:
        spread = float(((np.bincount(index, right) - share * sizes) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
        independent = n / max(1.0, spread * (n - 1) / (n * n * share * (1 - share)))
    return wilson(share * independent, independent)


def at_most(hits: int, n: int, certainty: float = 0.95) -> float:
    """The share that is not exceeded, with 95 % certainty (Clopper and Pearson 1934, one-sided): 0 of 40 gives 0.072.

    It also holds where a threshold was set so that just ``hits`` of the same n lie beyond it (Wilks 1941).
    """
    return 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, certainty))
