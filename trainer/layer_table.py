"""A network's layers as lines for a terminal: with the numbers and names that options of ``train`` take."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from trainer.backbones import NORMALISE_LAYERS

if TYPE_CHECKING:
    import keras


def lines(model: keras.Model, learning: Collection[str] | None = None) -> list[str]:
    """One line per layer: number, name, kind, output, parameters, and a star where it learns in fine-tuning.

    Layers without a number are ours, in front of the original network.

    Args:
        model: any.
        learning: names of layers that learn; None where that is not the question.
    """
    number = 0
    table = [f"{'#':>4}   {'layer':40} {'kind':24} {'output':>20} {'parameters':>12}"]
    for layer in model.layers:
        own = layer.name in NORMALISE_LAYERS
        shape = " × ".join(map(str, layer.output.shape[1:]))
        star = "*" if learning is not None and layer.name in learning and layer.weights else " "
        table.append(
            f"{'' if own else number:>4} {star} {layer.name:40} {type(layer).__name__:24} {shape:>20} "
            f"{layer.count_params():12,}"
        )
        number += not own
    table.append(f"{model.name}: {number} layers, {model.count_params():,} parameters")
    if learning is not None:
        count = sum(layer.count_params() for layer in model.layers if layer.name in learning)
        table.append(f"* learn in fine-tuning: {count:,} parameters")
    return table
