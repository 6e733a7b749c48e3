"""Puts networks together and takes them apart: backbone and new layers to one classifier, and where it may be cut."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from edge.errors import ConfigError
from trainer.backbones import NORMALISE_LAYERS, backbone, find_layer, numbered_layers
from trainer.settings import ALL, HEAD_ONLY, Settings

LOGITS = "logits"
LayerWeights = Mapping[str, Sequence[npt.NDArray[Any]]]
"""Layer name -> its arrays, in the order of Keras's ``get_weights``."""


@dataclass(frozen=True)
class Parts:
    """A network cut at a layer: ``trunk`` (pixels to activations) and ``tail`` (activations to the end).

    The layers are the network's own: training the tail trains the network.
    """

    trunk: keras.Model
    tail: keras.Model


def cut(network: keras.Model, layer: str) -> Parts:
    """Cut a network behind a layer.

    Raises:
        ConfigError: there is no such layer, or the network cannot be cut there because a branch goes past it.
    """
    middle = find_layer(network, layer).output
    try:
        return Parts(keras.Model(network.input, middle), keras.Model(middle, network.output))
    except ValueError as error:
        raise ConfigError(
            f"{network.name} cannot be cut behind {layer!r}: a branch goes past it. Choose the end of a block."
        ) from error


def extractor(network: keras.Model, settings: Settings) -> keras.Model:
    """The part of a backbone that is used: up to ``settings.cut``, which need not be the end of a block.

    Raises:
        ConfigError: there is no such layer, or it gives no feature map.
    """
    if settings.cut is None:
        return network
    last = find_layer(network, settings.cut)
    if len(last.output.shape) != 4:
        raise ConfigError(f"{network.name} cannot be cut behind {last.name!r}, which gives no feature map.")
    return keras.Model(network.input, last.output, name=network.name)


def classifier(network: keras.Model, settings: Settings, classes: int) -> keras.Model:
    """Put new layers on a backbone: own blocks, pooling, head layers, one logit per label.

    Args:
        network: uint8 pixels to a feature map, or to a vector, which is not pooled; its layers become the classifier's.
        settings: ``cut``, ``blocks``, ``pooling``, ``head`` and ``seed``.
        classes: C.

    Returns:
        uint8 pixels (n, h, w, 3) to float32 logits (n, C).

    Raises:
        ConfigError: the settings name no layer to cut at, or would make a layer of billions of weights.
    """
    used = extractor(network, settings)
    x = used.output
    for i, filters in enumerate(settings.blocks, start=1):
        x = _own_block(x, filters, f"own_{i}")
    x = pooled(x, settings.pooling) if len(x.shape) == 4 else x
    _check_size(x, settings)
    for i, (kind, number) in enumerate(settings.head_layers(), start=1):
        name = f"head_{i}"
        if kind == "dropout":
            x = layers.Dropout(number, seed=settings.seed + i, name=name)(x)
        else:
            x = layers.Dense(int(number), activation="relu", name=name)(x)
    x = layers.Dense(classes, name=LOGITS, dtype="float32")(x)
    return keras.Model(used.input, x, name=f"{network.name}_classifier")


def pooled(x: Any, pooling: str) -> Any:
    """A feature map (n, h, w, F) as vectors: ``avg`` or ``max`` (n, F), ``avg+max`` (n, 2F), ``flatten`` (n, hwF)."""
    if pooling == "flatten":
        return layers.Flatten(name="pool")(x)
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="pool")(x)
    both = layers.GlobalAveragePooling2D(name="pool_avg")(x), layers.GlobalMaxPooling2D(name="pool_max")(x)
    return layers.Concatenate(name="pool")(both)


def _own_block(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))
    return layers.MaxPooling2D(name=f"{name}_pool")(x) if min(x.shape[1:3]) > 1 else x


def _check_size(x: Any, settings: Settings) -> None:
    """Flattening an early layer can ask for more memory than there is, at the first dense layer."""
    units = next((int(number) for kind, number in settings.head_layers() if kind == "dense"), 1)
    if x.shape[-1] * units > 500_000_000:
        raise ConfigError(
            f"pooling {settings.pooling} gives {x.shape[-1]} numbers, and {units} units on them would have "
            f"{x.shape[-1] * units / 1e9:.1f} billion weights. Use fewer units, or pooling avg or max."
        )


def new_layers(model: keras.Model, network: keras.Model) -> frozenset[str]:
    """The classifier's layers that are not the backbone's, by name."""
    return frozenset(layer.name for layer in model.layers) - frozenset(layer.name for layer in network.layers)


def learning_layers(network: keras.Model, settings: Settings) -> frozenset[str]:
    """The backbone's layers that learn in fine-tuning, by name; those behind ``settings.cut`` are not used at all.

    Batch normalisation of a pretrained network is left as it is, for with few photos its statistics would drift.

    Raises:
        ConfigError: ``fine_tune_from`` or an entry of ``freeze`` is no layer of it, or lies behind the cut.
    """
    used = [layer.name for layer in extractor(network, settings).layers]
    learn = {layer.name for layer in network.layers if layer.weights} & set(_from(network, settings, used))
    for pattern in settings.freeze:
        learn -= _matching(network, pattern)
    if not settings.from_scratch:
        learn -= {layer.name for layer in network.layers if isinstance(layer, layers.BatchNormalization)}
    return frozenset(learn - NORMALISE_LAYERS)


def _from(network: keras.Model, settings: Settings, used: list[str]) -> list[str]:
    if settings.learn == HEAD_ONLY or settings.backbone_rate == 0:
        return []
    if settings.learn == ALL:
        return used
    if settings.fine_tune_from is not None:
        first = find_layer(network, settings.fine_tune_from).name
        if first not in used:
            raise ConfigError(f"fine_tune_from {first!r} lies behind the cut at {settings.cut!r}: it is not used.")
        return used[used.index(first) :]
    until = backbone(settings.backbone).frozen_until
    return used[used.index(until) + 1 :] if until in used else []


def _matching(network: keras.Model, pattern: str) -> set[str]:
    names = [layer.name for layer in numbered_layers(network)]
    found = set(fnmatch.filter(names, pattern))
    return found or {find_layer(network, pattern).name}  # a number; or no layer either: names the nearest


def set_learning(model: keras.Model, names: Collection[str]) -> None:
    """Let these layers learn, and no others; the model must be compiled afterwards."""
    for layer in model.layers:
        layer.trainable = layer.name in names


def frozen_end(model: keras.Model, learning: Collection[str]) -> str | None:
    """The last layer where the graph can be cut in two with all that learns behind it; None if only at the input.

    A graph can be cut behind a layer if no branch goes past it. The layers stand in an order in which each follows
    those that it reads, so that is where no arrow starts earlier and ends later.
    """
    steps = model.operations  # layers, and sums and products written as such
    place = {step.name: i for i, step in enumerate(steps)}
    reach, found = 0, None  # the farthest that anything before this layer is read
    reads = _read_by(model)
    for i, step in enumerate(steps):
        if step.name in learning:
            break
        usable = isinstance(step, layers.Layer) and step.name not in NORMALISE_LAYERS and reads[step.name]
        if i > 0 and reach <= i and usable:
            found = step.name
        reach = max([reach, *(place[name] for name in reads[step.name])])
    return found


def _read_by(model: keras.Model) -> dict[str, set[str]]:
    """Layer -> the layers of this model that read its output."""
    readers: dict[str, set[str]] = {step.name: set() for step in model.operations}
    for step in model.operations:
        for tensor in keras.tree.flatten(step.input) if not isinstance(step, layers.InputLayer) else []:
            readers[tensor._keras_history.operation.name].add(step.name)
    return readers


def working_copy(
    model: keras.Model, *, precision: str = "float32", scope: AbstractContextManager[Any] | None = None
) -> keras.Model:
    """A copy with variables of its own and the same weights, which can be trained while the original stays as it is.

    Args:
        model: computing in float32.
        precision: what its layers compute in, ``float32`` or ``mixed_float16``; normalisation and logits stay float32.
        scope: in which its variables are made, such as that of a distribution strategy.
    """

    def copied(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, layers.Layer):  # a sum or product written as such has nothing to copy
            return layer
        config = layer.get_config()
        if precision != "float32" and layer.name not in NORMALISE_LAYERS | {LOGITS}:
            config["dtype"] = precision
        return layer.__class__.from_config(config)

    with scope or nullcontext():
        copy = keras.models.clone_model(model, clone_function=copied)
        put_weights(copy, weights_of(model))
    return copy


def weights_of(model: keras.Model, names: Collection[str] | None = None) -> dict[str, list[npt.NDArray[Any]]]:
    """A copy of the weights, layer by layer; of all layers, or of some."""
    chosen = [layer for layer in model.layers if layer.weights and (names is None or layer.name in names)]
    return {layer.name: [np.array(weight) for weight in layer.get_weights()] for layer in chosen}


def put_weights(model: keras.Model, weights: LayerWeights) -> None:
    """Put weights of :func:`weights_of` into the layers of these names."""
    for name, arrays in weights.items():
        model.get_layer(name).set_weights(list(arrays))
