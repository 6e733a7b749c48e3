"""Which faults of a device do a bundle's golden photos show? Each is made on purpose, on each installed runtime.

PNGs are altered as a faulty runtime or conversion would see them, JPEGs as a faulty decoder or resizing would. A fault
is caught by a label that changes, by a photo whose logits leave its tolerance, or by the mean over all photos. Beside
it: how much of the tolerances this machine uses up without any fault, and what the photos add to the bundle.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import material, report
from benchmarks.report import Claim, Result
from edge.errors import ModelError
from edge.model import bundle as bundles
from edge.model import golden, run, runtime
from edge.model.bundle import Manifest
from edge.model.preprocess import Pixels

OTHER_PHOTOS_PER_LABEL = 12

PixelFault = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
JpegFault = Callable[[bytes, Manifest], Pixels]


def _resized(filter_: Image.Resampling, shrink: bool) -> JpegFault:
    """Stretched to the input by another filter, with or without the decoder's own shrinking before."""

    def fault(data: bytes, manifest: Manifest) -> Pixels:
        image, size = Image.open(io.BytesIO(data)), (manifest.input.width, manifest.input.height)
        if shrink:
            image.draft("RGB", size)
        return np.array(image.convert("RGB").resize(size, filter_), np.uint8)

    return fault


PIXEL_FAULTS: Mapping[str, PixelFault] = {
    "5 % darker": lambda p: p * 0.95,
    "10 % darker": lambda p: p * 0.9,
    "22 % darker": lambda p: p * 0.78,
    "gamma 1.1": lambda p: 255 * (p / 255) ** 1.1,
    "gamma 1.4": lambda p: 255 * (p / 255) ** 1.4,
    "16 to 235": lambda p: 16 + p * 219 / 255,
    "blue and red swapped": lambda p: p[:, :, ::-1],
    "shifted by 1 pixel": lambda p: np.roll(p, 1, axis=1),
    "shifted by 8 pixels": lambda p: np.roll(p, 8, axis=1),
    "left and right swapped": lambda p: p[:, ::-1],
    "rows and columns swapped": lambda p: p.transpose(1, 0, 2) if p.shape[0] == p.shape[1] else p[::-1],
    "normalised twice": lambda p: (p - 127) / 128,
}
JPEG_FAULTS: Mapping[str, JpegFault] = {
    "JPEG: nearest": _resized(Image.Resampling.NEAREST, True),
    "JPEG: box": _resized(Image.Resampling.BOX, True),
    "JPEG: bicubic": _resized(Image.Resampling.BICUBIC, True),
    "JPEG: whole picture decoded": _resized(Image.Resampling.BILINEAR, False),
    "JPEG: blue and red swapped": lambda data, m: _resized(Image.Resampling.BILINEAR, True)(data, m)[:, :, ::-1],
}
OTHER = "another model of the same labels"
HARMLESS = "JPEG: whole picture decoded"


def main() -> None:
    """The command."""
    options = report.parser("golden", __doc__)
    material.add_data_option(options)
    material.add_bundle_option(options)
    options.add_argument("--side", type=int, default=320, help="input side of the bundle that is trained; default 320")
    options.add_argument("--other", type=Path, help="another model of the same labels, a .tflite or .fmb file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-benchmark-") as scratch:
        report.finish(_measure(chosen, Path(scratch)), chosen)


def _measure(options: argparse.Namespace, scratch: Path) -> Result:
    opened = bundles.open_bundle(material.bundle(options, scratch, options.side))
    manifest, files = opened.manifest, opened.files
    model, other = scratch / "model.tflite", scratch / "other.tflite"
    model.write_bytes(files[bundles.MODEL])
    other.write_bytes(_other(options, scratch, manifest))
    stacks = _stacks(manifest, files, scratch)
    detail: dict[str, Any] = {}
    for each in runtime.installed():
        report.say(f"{each.name}: {len(stacks) + 1} times {len(manifest.golden)} golden photos ...")
        found = {name: _ask(model, stack, manifest, each.name) for name, stack in stacks.items()}
        detail[each.name] = found | {OTHER: _ask(other, stacks["no fault"], manifest, each.name)}
    added = {each.file: len(files[each.file]) for each in manifest.golden}
    claims = [claim for name, found in detail.items() for claim in _claims(name, found)]
    for ending in (golden.PNG, golden.JPEG):
        claims.append(Claim(f"golden {ending[1:].upper()}s", float(sum(path.endswith(ending) for path in added))))
    claims.append(Claim("golden photos in the bundle", sum(added.values()) / 1e6, "MB"))
    settings = {"input": manifest.input.width, "photos": len(manifest.golden), "model_bytes": len(files[bundles.MODEL])}
    return Result("golden", claims, settings, detail)


def _claims(name: str, found: dict[str, dict[str, Any]]) -> list[Claim]:
    right = found["no fault"]
    faults = {what: each for what, each in found.items() if what not in ("no fault", HARMLESS)}
    return [
        Claim(f"{name}: largest difference of a photo, of its tolerance", right["photo_share"], "%", most=1.0),
        Claim(f"{name}: mean difference, of its tolerance", right["mean_share"], "%", most=1.0),
        Claim(f"{name}: faults caught of {len(faults)}", float(sum(bool(each["code"]) for each in faults.values()))),
    ]


def _ask(model: Path, stack: Path, manifest: Manifest, name: str) -> dict[str, Any]:
    """What the golden check says, which of its tests would say so alone, and how much of the tolerances was used."""
    answers = run.in_child(model, stack, runtime=name).logits
    off = np.abs(answers - np.array([each.logits for each in manifest.golden]))
    jpeg = np.array([each.file.endswith(golden.JPEG) for each in manifest.golden])
    means = [off[~jpeg].mean(), *([off[jpeg].mean() / golden.DECODER] if jpeg.any() else [])]
    return {
        "code": _code(manifest, answers, name),
        "labels_wrong": sum(
            manifest.labels[int(said)].name != each.label
            for said, each in zip(answers.argmax(axis=1), manifest.golden, strict=True)
        ),
        "photo_share": float((off.max(axis=1) / [each.tolerance for each in manifest.golden]).max()),
        "mean_share": float(max(means) / manifest.golden_mean_tolerance),
    }


def _code(manifest: Manifest, answers: npt.NDArray[np.float32], name: str) -> str:
    try:
        golden.compare(manifest, answers, name)
    except ModelError as error:
        return error.code
    return ""


def _stacks(manifest: Manifest, files: Mapping[str, bytes], scratch: Path) -> dict[str, Path]:
    """One ``.npy`` stack of all golden photos for each fault."""
    right = []
    for number, each in enumerate(manifest.golden):
        file = scratch / f"{number}{Path(each.file).suffix}"
        file.write_bytes(files[each.file])
        right.append(golden.pixels_of(file, manifest))
    stacks = {"no fault": right}
    for name, fault in PIXEL_FAULTS.items():
        altered = [np.clip(np.rint(fault(pixels.astype(np.float64))), 0, 255).astype(np.uint8) for pixels in right]
        # Beyond the decoder: what JPEGs show too is counted by the PNGs.
        stacks[name] = [
            a if each.file.endswith(golden.PNG) else p
            for each, a, p in zip(manifest.golden, altered, right, strict=True)
        ]
    if any(each.file.endswith(golden.JPEG) for each in manifest.golden):
        for name, jpeg_fault in JPEG_FAULTS.items():
            stacks[name] = [
                jpeg_fault(files[each.file], manifest) if each.file.endswith(golden.JPEG) else p
                for each, p in zip(manifest.golden, right, strict=True)
            ]
    return {name: _save(scratch / f"stack{number}.npy", stack) for number, (name, stack) in enumerate(stacks.items())}


def _save(path: Path, stack: list[Pixels]) -> Path:
    np.save(path, np.stack(stack))
    return path


# --- another model


def _other(options: argparse.Namespace, scratch: Path, manifest: Manifest) -> bytes:
    if options.other:
        path = Path(options.other)
        if path.suffix == bundles.SUFFIX:
            return bundles.open_bundle(path).files[bundles.MODEL]
        return path.read_bytes()
    report.say("training another model of the same labels ...")
    out = scratch / "other.fmb"
    labels = material.few(material.trailcam(options.data), OTHER_PHOTOS_PER_LABEL, scratch / "few.csv")
    # TensorFlow must not be in the process that measures.
    command = material.python("benchmarks.material", labels, out, "--side", str(manifest.input.width))
    done = subprocess.run(
        command, cwd="/", env=material.environment(scratch), capture_output=True, text=True, check=False
    )
    if done.returncode or not out.is_file():
        sys.exit(f"the other model could not be made: {done.stderr.strip()[-400:]}")
    return bundles.open_bundle(out).files[bundles.MODEL]


if __name__ == "__main__":
    main()
