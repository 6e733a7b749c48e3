"""The lines of a training's history: what training writes and a report draws. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One line of the history: losses, and accuracies 0 to 1. Without validation photos its two numbers are NaN."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
