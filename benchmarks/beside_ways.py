"""What people run where they have no agent: three short scripts, as tutorials and a package's own page show them.

Each takes the photos of a folder in the order of their names, says an answer for each and appends it to a CSV file. Run
by its path, so that the process which is measured holds nothing of this project. They are written as their authors
would, without a net: what becomes of a bad photo is one of the things that are measured.

    python beside_ways.py WAY MODEL LABELS OUT.csv FOLDER
"""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAID = "answer\t"
"""What a line begins with that says an answer."""

Answer = tuple[str, float]


def pillow_loop(runtime: str) -> Callable[[str, list[str]], Callable[[Path], Answer]]:
    """Pillow decodes the whole photo and resizes it, a bare interpreter of ``runtime`` answers."""

    def prepare(model: str, labels: list[str]) -> Callable[[Path], Answer]:
        import numpy as np
        from PIL import Image

        interpreter = importlib.import_module(f"{runtime}.interpreter").Interpreter(model_path=model)
        interpreter.allocate_tensors()
        takes, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        height, width = takes["shape"][1:3]

        def answer(photo: Path) -> Answer:
            image = Image.open(photo).convert("RGB").resize((width, height))
            interpreter.set_tensor(takes["index"], np.asarray(image)[np.newaxis])
            interpreter.invoke()
            output = interpreter.get_tensor(gives["index"])[0]
            return labels[output.argmax()], float(output.max())

        return answer

    return prepare


def keras_predict(model: str, labels: list[str]) -> Callable[[Path], Answer]:
    """``load_img`` and ``predict`` on the float network."""
    import keras
    import numpy as np

    network: Any = keras.models.load_model(model, compile=False)
    height, width = network.input_shape[1:3]

    def answer(photo: Path) -> Answer:
        image = keras.utils.load_img(photo, target_size=(height, width))
        pixels = keras.utils.img_to_array(image, dtype="uint8")
        output = network.predict(np.expand_dims(pixels, 0), verbose=0)[0]
        return labels[output.argmax()], float(output.max())

    return answer


def teachable(model: str, labels: list[str]) -> Callable[[Path], Answer]:
    """``teachable-machine-lite``, which reads the labels itself."""
    package: Any = importlib.import_module("teachable_machine_lite")
    machine = package.TeachableMachineLite(model_path=model, labels_file_path=sys.argv[3])

    def answer(photo: Path) -> Answer:
        found = machine.classify_image(str(photo))
        return found["label"], float(found["confidence"])

    return answer


def main(way: str, model: str, labels: str, out: str, folder: str) -> None:
    """The loop that all three have in common."""
    name, _, runtime = way.partition(":")
    ways = {"pillow": pillow_loop(runtime), "keras": keras_predict, "teachable": teachable}
    answer = ways[name](model, Path(labels).read_text(encoding="utf-8").splitlines())
    with open(out, "a", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for photo in sorted(Path(folder).iterdir()):
            label, score = answer(photo)
            rows.writerow([photo.name, label, score])
            print(f"{SAID}{photo.name}: {label}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
