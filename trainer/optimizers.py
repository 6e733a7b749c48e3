"""The optimizers of fine-tuning: their schedule, and the smaller steps of a backbone that already knows something."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from trainer.settings import Settings

MOMENTUM = 0.9
WEIGHT_DECAY = 0.01
"""Of ``adamw``, on kernels only, times the learning rate (Loshchilov and Hutter 2019)."""
_COOLEST = 0.1
"""Where warm-up starts, as a share of the highest rate."""


def optimizer(settings: Settings, rate: float, steps: int, slow: Collection[Any] = ()) -> keras.optimizers.Optimizer:
    """Make one.

    Args:
        settings: ``optimizer``, ``epochs``, ``warm_up`` and ``backbone_rate``.
        rate: the highest learning rate.
        steps: of an epoch.
        slow: variables that learn at ``backbone_rate`` times the rate.
    """
    kinds = {
        "adam": (keras.optimizers.Adam, {}),
        "adamw": (keras.optimizers.Adam, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": MOMENTUM}),
        "rmsprop": (keras.optimizers.RMSprop, {}),
    }
    kind, options = kinds[settings.optimizer]
    decay = WEIGHT_DECAY if settings.optimizer == "adamw" else 0.0
    made = _with_shares(kind, frozenset(variable.path for variable in slow), settings.backbone_rate, decay)
    return made(_schedule(settings, rate, steps), **options)


def _with_shares(kind: Any, slow: frozenset[str], share: float, decay: float) -> Any:
    """A subclass that scales steps, not gradients: Adam and RMSprop divide a gradient's scale away again."""

    class Shared(kind):
        """One optimizer for two groups of variables."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            known = self._trainable_variables[self._get_variable_index(variable)]
            rate = learning_rate * share if known.path in slow else learning_rate
            if decay and len(variable.shape) > 1:
                self.assign_sub(variable, variable * keras.ops.cast(decay * rate, variable.dtype))
            super().update_step(gradient, variable, rate)

    Shared.__name__ = kind.__name__
    return Shared


def _schedule(settings: Settings, rate: float, steps: int) -> Any:
    """Up to ``rate`` in the first epochs, then down along a cosine to nearly nothing after the last."""
    warm = min(settings.warm_up, settings.epochs - 1)
    decay_steps = max(1, (settings.epochs - warm) * steps)
    if not warm:
        return keras.optimizers.schedules.CosineDecay(rate, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        rate * _COOLEST, decay_steps, warmup_target=rate, warmup_steps=warm * steps
    )
