"""Reports for tests: made-up answers of a made-up model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.answered import Answered
from trainer.dataset.samples import Unreadable
from trainer.evaluate import Evaluation, evaluate
from trainer.history import Epoch
from trainer.report.record import OUT_OF_FOLD, Answer, Report, Stage, galleries
from trainer.thresholds import for_precision

LABELS = ("deer", "empty", "fox", "person")


def answers(n: int = 120, labels: Sequence[str] = LABELS, *, name: str = "photo", seed: int = 0) -> Answered:
    """A model that is right most of the time."""
    random = np.random.default_rng(seed)
    truth = np.arange(n) % len(labels)
    logits = random.normal(0, 1, (n, len(labels)))
    logits[np.arange(n), truth] += 2.4
    return Answered(
        logits=logits.astype(np.float32),
        truth=truth,
        labels=tuple(labels),
        groups=np.arange(n) // 2,
        stations=[f"station {i % 3}" for i in range(n)],
        infrared=random.random(n) < 0.4,
        sources=["camera" if i % 2 else "web" for i in range(n)],
        names=[f"{name}/{i}.jpg" for i in range(n)],
    )


def evaluation(some: Answered) -> Evaluation:
    return evaluate(some, temperature=1.1, thresholds=for_precision(some, 1.1, 0.5).values)


def epochs(count: int) -> list[Epoch]:
    return [
        Epoch(i + 1, 1 / (i + 1), 0.7 + 0.2 * i / count, 1.2 / (i + 1), 0.75 + 0.2 * i / count) for i in range(count)
    ]


def report(labels: Sequence[str] = LABELS, *, name: str = "photo", title: str = "beech wood") -> Report:
    """A whole one: two questions, two stages of training, pictures, files that could not be read."""
    some = answers(labels=labels, name=name)
    found, held = evaluation(some), evaluation(answers(60, labels, name=name, seed=1))
    pixels = np.random.default_rng(2).integers(0, 255, (16, 90, 120, 3), dtype=np.uint8)
    return Report(
        title=title,
        created="2024-05-01T06:12:09+02:00",
        photos=120,
        counts=dict.fromkeys(labels, 30),
        answers=[Answer("new station", held, learned=60), Answer(OUT_OF_FOLD, found)],
        unreadable=[Unreadable(f"{name}/cut.jpg", labels[0], "truncated", "the photo is truncated")],
        model="EfficientNet-Lite0 at 320 × 320",
        kept="fine-tuned",
        refitted=True,
        thresholds=for_precision(some, 1.1, 0.5),
        validation={"probe": 0.91, "fine-tuned": 0.95},
        validation_n=24,
        stages=[Stage("head", epochs(4)), Stage("last blocks", epochs(6), best=5)],
        settings={"side": 320, "head": ("256", "dropout:0.5"), "cut": None, "refit": True},
        changed={"head": ("256", "dropout:0.5")},
        seconds={"reading photos": 4.2, "fine-tuning": 143.0},
        device="2 processor cores, no GPU",
        trained_with="tensorflow 2.21",
        command="fieldmark train --config runs/beech/train.toml",
        galleries=galleries(found, lambda i: pixels[i % 16]),
    )
