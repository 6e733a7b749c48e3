"""The gate: is a quantized model as good on the device's runtime as the float model was?

Each installed runtime answers all photos in child processes, with the device's own code. A model that fails on every
runtime is never written into a bundle. ``rows`` has limits and verdict, ``judge`` says which runtime
answers what, ``children`` runs them side by side, ``figures`` compares, ``faults`` has the sentences, ``diagnose``
tries why a variant is wrong, ``emulate`` runs the device's wheels.
"""

from trainer.gate.emulate import Emulator
from trainer.gate.figures import Held, compare
from trainer.gate.judge import judge, work
from trainer.gate.rows import About, Calibration, Limits, Logits, Row, Said, Twin, Verdict

__all__ = [
    "About",
    "Calibration",
    "Emulator",
    "Held",
    "Limits",
    "Logits",
    "Row",
    "Said",
    "Twin",
    "Verdict",
    "compare",
    "judge",
    "work",
]
