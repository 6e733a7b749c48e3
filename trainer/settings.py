"""What training was asked to do. Owns the settings and their defaults, and imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import ConfigError
from edge.model.preprocess import InputSpec
from trainer.backbones import DEFAULT, backbone


@dataclass(frozen=True)
class Settings:
    """What training was asked to do.

    Attributes:
        backbone: a name of :data:`trainer.backbones.BACKBONES`.
        side: input height and width in pixels; the backbone's own ``train_side`` if None.
        aspect, cut_top, cut_bottom: as in :class:`edge.model.preprocess.InputSpec`.
        fine_tune: train the last blocks after the probe.
        epochs, rate, views: of fine-tuning.
        cross_validate: also hold out each of the five folds in turn.
        sequence_column: a CSV column that says which photos belong together.
        seed: of splits, batches and views.
    """

    backbone: str = DEFAULT
    side: int | None = None
    aspect: str = "stretch"
    cut_top: int = 0
    cut_bottom: int = 0
    fine_tune: bool = True
    epochs: int = 12
    rate: float = 1e-4
    views: int = 6
    cross_validate: bool = False
    sequence_column: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 1000),
            ("rate", self.rate, 1e-7, 1.0),
            ("views", self.views, 0, 100),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low} to {high}.")

    def spec(self) -> InputSpec:
        """The input that this asks for."""
        side = backbone(self.backbone).train_side if self.side is None else self.side
        return InputSpec(side, side, aspect=self.aspect, cut_top=self.cut_top, cut_bottom=self.cut_bottom)
