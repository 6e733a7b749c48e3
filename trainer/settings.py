"""What training was asked to do. Owns the settings, their defaults and ranges, and imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edge.errors import ConfigError
from edge.model.spec import InputSpec
from trainer.backbones import DEFAULT, backbone

IMAGENET, RANDOM = "imagenet", "none"
"""Values of ``weights`` that are no file."""
HEAD_ONLY, LAST_BLOCKS, ALL = "head", "blocks", "all"
"""What learns: only the new layers; also the backbone's last blocks; everything."""

CHOICES: dict[str, tuple[str, ...]] = {
    "normalise": ("own", "unit"),
    "aspect": ("stretch", "pad", "crop"),
    "pooling": ("avg", "max", "avg+max", "flatten"),
    "learn": (HEAD_ONLY, LAST_BLOCKS, ALL),
    "keep": ("better", "fine-tuned"),
    "optimizer": ("adam", "adamw", "sgd", "rmsprop"),
    "balance": ("none", "sample", "loss"),
    "augment": ("trap", "tutorial", "none"),
    "precision": ("auto", "float32", "mixed"),
    "layout": ("auto", "classes", "parts", "stations"),
    "split": ("auto", "station", "later", "sequence", "group", "given", "random"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1000),
    "rate": (1e-7, 1.0),
    "backbone_rate": (0.0, 1.0),
    "batch": (1, 1024),
    "patience": (1, 1000),
    "warm_up": (0, 100),
    "smoothing": (0.0, 0.5),
    "views": (0, 100),
    "test_share": (0.05, 0.5),
    "wanted_precision": (0.5, 0.999),
    "seed": (0, 2**32 - 1),
}
_HEAD_LAYER = re.compile(r"(?P<units>[1-9]\d{0,4})|dropout:(?P<rate>0?\.\d{1,4})", re.ASCII)
MAX_HEAD_LAYERS = 8


@dataclass(frozen=True)
class Settings:
    """What training was asked to do. A settings file has the same names.

    Attributes:
        backbone: a name of :data:`trainer.backbones.BACKBONES`.
        weights: where the backbone starts: ``imagenet``, ``none`` (random), or a file.
        normalise: ``own``, as the backbone was trained, or ``unit``, divided by 255, as tutorials do.
        side: input height and width in pixels; the backbone's own ``train_side`` if None.
        aspect, cut_top, cut_bottom: as in :class:`edge.model.spec.InputSpec`.
        cut: the backbone's last layer that is used, by name; all of it if None.
        blocks: filters of own convolution blocks behind it.
        pooling: how a feature map becomes a vector: ``avg``, ``max``, ``avg+max`` or ``flatten``.
        head: own layers before the last: ``"256"`` is dense with 256 units and ReLU, ``"dropout:0.5"`` drops half.
        learn: ``head`` trains only what is new, ``blocks`` also the last layers of the backbone, ``all`` everything.
        fine_tune_from: with ``blocks``, the first layer that learns, by name or index; the backbone's own if None.
        freeze: layers that never learn, by name; ``*`` and ``?`` stand for any letters and one letter.
        keep: ``better``: a fine-tuned model must be clearly better than its frozen start to be kept; or ``fine-tuned``.
        optimizer, rate: of fine-tuning; the highest learning rate, reached after ``warm_up`` epochs, then a cosine.
        backbone_rate: the backbone learns at this share of ``rate``.
        epochs: at most; it stops after ``patience`` epochs without a smaller validation loss.
        batch: photos per step.
        smoothing: of labels (Szegedy et al. 2016).
        balance: ``sample`` draws every label equally often, ``loss`` weighs rare labels more.
        augment: ``trap`` for what camera traps see, ``tutorial`` for shear, zoom and both flips, ``none``.
        views: random views per photo that are computed ahead; used where the frozen part's output is cached.
        precision: ``auto`` is mixed on a GPU.
        layout, sequence_column, boxes: how to read the data; see :func:`trainer.dataset.readers.scan`.
        split: which photos are held out; ``auto`` takes the hardest question that the data can answer.
        test_share: how many.
        cross_validate: also hold out each of five folds in turn.
        refit: ship a model that learned from all photos, also those held out to measure it.
        wanted_precision: of the answers that are given, so many should be right; the less sure are rolled up, or left
            ``unknown``. 0.5 gives every answer that is more likely right than wrong.
        seed: of splits, batches and views.
    """

    backbone: str = DEFAULT
    weights: str = IMAGENET
    normalise: str = "own"
    side: int | None = None
    aspect: str = "stretch"
    cut_top: int = 0
    cut_bottom: int = 0
    cut: str | None = None
    blocks: tuple[int, ...] = ()
    pooling: str = "avg"
    head: tuple[str, ...] = ()
    learn: str = LAST_BLOCKS
    fine_tune_from: str | None = None
    freeze: tuple[str, ...] = ()
    keep: str = "better"
    optimizer: str = "adam"
    rate: float = 3e-4
    backbone_rate: float = 1.0
    epochs: int = 8
    batch: int = 32
    patience: int = 4
    warm_up: int = 1
    smoothing: float = 0.1
    balance: str = "none"
    augment: str = "trap"
    views: int = 6
    precision: str = "auto"
    layout: str = "auto"
    sequence_column: str | None = None
    boxes: str | None = None
    split: str = "auto"
    test_share: float = 0.2
    cross_validate: bool = False
    refit: bool = True
    wanted_precision: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low:g} to {high:g}.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected {', '.join(choices)}.")
        if not all(1 <= filters <= 4096 for filters in self.blocks) or len(self.blocks) > MAX_HEAD_LAYERS:
            raise ConfigError(f"blocks is {list(self.blocks)}, expected at most {MAX_HEAD_LAYERS} numbers of filters.")
        if self.fine_tune_from is not None and self.learn != LAST_BLOCKS:
            raise ConfigError(f"fine_tune_from is {self.fine_tune_from!r}, but learn is {self.learn!r}. Choose one.")
        self.head_layers()

    def spec(self) -> InputSpec:
        """The input that this asks for."""
        side = backbone(self.backbone).train_side if self.side is None else self.side
        return InputSpec(side, side, aspect=self.aspect, cut_top=self.cut_top, cut_bottom=self.cut_bottom)

    def head_layers(self) -> list[tuple[str, float]]:
        """``("dense", units)`` and ``("dropout", rate)`` in order.

        Raises:
            ConfigError: an entry is neither.
        """
        if len(self.head) > MAX_HEAD_LAYERS:
            raise ConfigError(f"head has {len(self.head)} layers, expected at most {MAX_HEAD_LAYERS}.")
        layers = []
        for text in self.head:
            found = _HEAD_LAYER.fullmatch(text)
            if found is None:
                raise ConfigError(f"head has {text!r}, expected units such as 256, or dropout:0.5.")
            rate = found["rate"]
            layers.append(("dense", float(found["units"])) if rate is None else ("dropout", float(rate)))
        return layers

    @property
    def linear_probe(self) -> bool:
        """Whether the frozen start is a logistic regression on pooled features, not layers trained step by step."""
        return not self.head and not self.blocks and self.pooling != "flatten"

    @property
    def from_scratch(self) -> bool:
        """Whether all starts from random numbers, so that a frozen start would say nothing."""
        return self.weights == RANDOM and self.learn == ALL

    @property
    def needs_tuner(self) -> bool:
        """Whether anything is trained step by step; a probe alone needs no network once its features are known."""
        return self.learn != HEAD_ONLY or not self.linear_probe

    @property
    def contest(self) -> bool:
        """Whether a fine-tuned model must beat its frozen start; what random weights give is no rival."""
        return self.keep == "better" and self.weights != RANDOM

    def changed(self) -> dict[str, Any]:
        """The settings that are not the defaults, by name."""
        return {name: value for name, value in vars(self).items() if value != getattr(_DEFAULTS, name)}


_DEFAULTS = Settings()
