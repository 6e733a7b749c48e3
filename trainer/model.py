"""Puts networks together and takes them apart: a backbone and a head to one classifier, a backbone at a layer."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import keras

from edge.errors import ConfigError
from trainer.probe import Head


@dataclass(frozen=True)
class Parts:
    """A backbone cut at a layer: ``trunk`` (pixels to activations) and ``tail`` (activations to feature map).

    The layers are the backbone's own: training the tail trains the backbone.
    """

    trunk: keras.Model
    tail: keras.Model


def assemble(backbone: keras.Model, head: Head) -> keras.Model:
    """A classifier: uint8 pixels (n, h, w, 3) to float32 logits (n, C)."""
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    dense = keras.layers.Dense(head.bias.shape[0], name="logits", dtype="float32")
    model = keras.Model(backbone.input, dense(x), name=f"{backbone.name}_classifier")
    dense.set_weights([head.kernel, head.bias])
    return model


def cut(backbone: keras.Model, layer: str) -> Parts:
    """Cut a backbone behind a layer.

    Raises:
        ConfigError: there is no such layer, or the network cannot be cut there because a branch goes past it.
    """
    names = [each.name for each in backbone.layers]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=1)
        raise ConfigError(f"{backbone.name} has no layer {layer!r}. Did you mean {near[0] if near else names[-1]!r}?")
    middle = backbone.get_layer(layer).output
    try:
        return Parts(keras.Model(backbone.input, middle), keras.Model(middle, backbone.output))
    except ValueError as error:
        raise ConfigError(
            f"{backbone.name} cannot be cut behind {layer!r}: a branch goes past it. Choose the end of a block."
        ) from error


def freeze_batch_norm(model: keras.Model) -> None:
    """Keep every batch normalisation as ImageNet left it: with few photos its statistics would drift."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
