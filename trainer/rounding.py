"""Rounds the weights of a layer to int8 so that the layer's *output* changes least. Pure numbers; knows no file.

To the nearest, each weight is off by up to half a step, and a layer's output by the sum of that: its mean moves, which
the following layers never expect, and it varies. Both depend on what comes in. The mean is put right by the bias
(Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction"); the variation is made
small by rounding one weight after the other, each time changing those not yet rounded so that together they make up
for the error (Hassibi and Stork 1993; Frantar et al. 2023, "GPTQ").
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MOST = 127
LARGEST = 2304
"""Inputs of one output; the covariance of more takes too much memory, and the errors of so many average out."""
_DAMPING = 0.01
"""Of the mean variance, added to each: with few photos the covariance is uncertain."""
_BLOCK = 64
_WAITING_BYTES = 4 * 2**20

Floats = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Mean and covariance of what comes into a layer, of independent channels (k, d) or of one (1, d).

    Attributes:
        n: how often it was seen.
    """

    n: int = 0
    _waiting: list[npt.NDArray[np.float32]] = field(default_factory=list)
    _shift: Floats = field(default_factory=lambda: np.zeros(0))
    _sum: Floats = field(default_factory=lambda: np.zeros(0))
    _square: Floats | None = None

    def add(self, seen: npt.NDArray[np.float32]) -> None:
        """See more: float32 (k, n, d)."""
        if not self.n:
            k, _, d = seen.shape
            self._shift = seen.mean(axis=1, dtype=np.float64)
            self._sum = np.zeros((k, d))
            self._square = np.zeros((k, d, d)) if d <= LARGEST else None
        self.n += seen.shape[1]
        seen = seen - self._shift[:, None, :].astype(np.float32)  # small numbers, so that float32 is enough
        self._sum += seen.sum(axis=1, dtype=np.float64)
        if self._square is not None:
            self._waiting.append(seen)
            if sum(each.nbytes for each in self._waiting) >= _WAITING_BYTES:
                self._count()

    def _count(self) -> None:
        """Many at once: adding to a large matrix costs more than multiplying."""
        if self._waiting and self._square is not None:
            seen = np.concatenate(self._waiting, axis=1)
            self._square += seen.transpose(0, 2, 1) @ seen
            self._waiting.clear()

    @property
    def mean(self) -> Floats:
        """(k, d)."""
        return np.asarray(self._shift.astype(np.float32) + self._sum / max(1, self.n), np.float64)

    @property
    def covariance(self) -> Floats | None:
        """(k, d, d); None where d is too large."""
        self._count()
        if self._square is None:
            return None
        mean = self._sum / max(1, self.n)
        return np.asarray(self._square / max(1, self.n) - mean[:, :, None] * mean[:, None, :], np.float64)


@dataclass(frozen=True)
class Rounded:
    """Weights as whole numbers.

    Attributes:
        values: int8 (k, r, d).
        bias: (k, r), to be added to the bias.
    """

    values: npt.NDArray[np.int8]
    bias: Floats


def rounded(weights: Floats, scales: Floats, moments: Moments) -> Rounded:
    """Round the weights of a layer.

    Args:
        weights: (k, r, d): k channels that share nothing, each with r outputs of d inputs.
        scales: (k, r), the step of each output's weights.
        moments: of the k channels' inputs.
    """
    covariance = moments.covariance
    try:
        values = _nearest(weights, scales[:, :, None]) if covariance is None else _fitted(weights, scales, covariance)
    except np.linalg.LinAlgError:  # too few different photos to say how the inputs vary
        values = _nearest(weights, scales[:, :, None])
    error = weights - values * scales[:, :, None]
    return Rounded(values.astype(np.int8), np.einsum("krd,kd->kr", error, moments.mean))


def _nearest(weights: Floats, scales: Floats) -> Floats:
    steps = np.divide(weights, scales, out=np.zeros_like(weights), where=scales > 0)
    return np.asarray(np.clip(np.round(steps), -MOST, MOST), np.float64)


def _fitted(weights: Floats, scales: Floats, covariance: Floats) -> Floats:
    """GPTQ, the inputs that vary most first."""
    k, _, d = weights.shape
    diagonal = np.einsum("kdd->kd", covariance)
    damped = covariance + np.eye(d) * (_DAMPING * diagonal.mean(axis=1) + 1e-12)[:, None, None]
    order = np.argsort(-diagonal, axis=1, kind="stable")
    each = np.arange(k)[:, None]
    damped = damped[each[:, :, None], order[:, :, None], order[:, None, :]]
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = np.take_along_axis(weights, order[:, None, :], axis=2)
    found = np.zeros_like(left)
    for start in range(0, d, _BLOCK):
        block = slice(start, min(start + _BLOCK, d))
        errors = np.zeros_like(left[:, :, block])
        for j in range(block.start, block.stop):
            found[:, :, j] = _nearest(left[:, :, j], scales)
            error = (left[:, :, j] - found[:, :, j] * scales) / factor[:, None, j, j]
            errors[:, :, j - start] = error
            left[:, :, j : block.stop] -= error[:, :, None] * factor[:, None, j, j : block.stop]
        left[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    result = np.empty_like(found)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], found.shape), found, axis=2)
    return result
