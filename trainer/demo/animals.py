"""Animals as a camera trap sees them, put together from tapered tubes in three dimensions.

Each species is a skeleton of points in metres (x forward, y up, z to the animal's right side, ground at y = 0),
covered with tubes of changing thickness. Turning the skeleton gives side, three-quarter and rear views; the gait
gives the legs. Nothing here knows of light, distance or the picture: :func:`draw_animal` returns flat colours, a
mask and a soft relief, and :mod:`trainer.demo.scenes` lights them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from trainer.demo.textures import Bytes, Field, patch, smoothstep

Point = tuple[float, float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """How an animal stands.

    Attributes:
        turn: degrees from side view; 0 looks right, 180 left, 90 at the camera, 270 away from it.
        stride: phase of the gait in radians.
        pace: 0 stands, 1 runs.
        head: -1 head at the ground (feeding), 0 carried as usual, 1 raised.
        individual: 0 to 1; decides what differs between animals of a kind, such as antlers.
    """

    turn: float = 0.0
    stride: float = 0.0
    pace: float = 0.5
    head: float = 0.0
    individual: float = 0.5

    def moved(self, seconds: float) -> Pose:
        """The same animal a little later."""
        return replace(self, stride=self.stride + 2.2 * seconds, turn=self.turn + 4 * math.sin(self.stride))


@dataclass(frozen=True)
class Tube:
    """A bent, tapered tube: points (metres), a radius at each, the colours of its upper and lower side.

    ``front`` pulls a tube towards the camera, for eyes and stripes that lie on another one.
    """

    points: Sequence[Point]
    radii: Sequence[float]
    top: Colour
    bottom: Colour | None = None
    front: float = 0.0


@dataclass(frozen=True)
class Build:
    """Proportions of a four-legged animal, in metres.

    Attributes:
        height: of the shoulder. length: from chest to rump.
        spine: height of the trunk's middle line, and trunk: half its depth; five values each, rump to chest.
        neck: forward and up from the chest, and its radii at the chest and at the head.
        skull: length, radius behind and at the muzzle; nod: degrees that the head points down.
        ear: length and width.
        leg: radius at the top and at the foot. foot: colour of the lower legs.
        coat, belly: colours above and below.
    """

    height: float
    length: float
    spine: tuple[float, float, float, float, float]
    trunk: tuple[float, float, float, float, float]
    neck: tuple[float, float, float, float]
    skull: tuple[float, float, float]
    nod: float
    ear: tuple[float, float]
    leg: tuple[float, float]
    coat: Colour
    belly: Colour
    foot: Colour
    face: Colour
    stride: float = 0.3


@dataclass(frozen=True)
class Sprite:
    """A drawn animal.

    Attributes:
        colour: float32 RGB (h, w, 3), 0 to 255, unlit.
        alpha: float32 (h, w), 0 to 1.
        relief: float32 (h, w), about -1 (turned to the ground) to 1 (turned to the sky).
        foot: the pixel (x, y) of the sprite that stands on the ground in the middle of the animal.
        eyes: pixels of the eyes that look at the camera.
    """

    colour: Field
    alpha: Field
    relief: Field
    foot: tuple[float, float]
    eyes: tuple[tuple[float, float], ...]


_DEER = Build(
    height=0.92,
    length=0.95,
    spine=(0.8, 0.76, 0.73, 0.74, 0.76),
    trunk=(0.15, 0.185, 0.185, 0.2, 0.16),
    neck=(0.25, 0.4, 0.13, 0.072),
    skull=(0.27, 0.085, 0.034),
    nod=32,
    ear=(0.16, 0.045),
    leg=(0.075, 0.018),
    coat=(126, 102, 78),
    belly=(176, 158, 132),
    foot=(98, 80, 64),
    face=(104, 86, 68),
    stride=0.34,
)
_BOAR = Build(
    height=0.82,
    length=1.15,
    spine=(0.5, 0.5, 0.52, 0.56, 0.54),
    trunk=(0.19, 0.24, 0.27, 0.3, 0.24),
    neck=(0.16, -0.02, 0.25, 0.2),
    skull=(0.44, 0.19, 0.062),
    nod=26,
    ear=(0.13, 0.05),
    leg=(0.11, 0.032),
    coat=(74, 64, 56),
    belly=(58, 50, 44),
    foot=(38, 33, 30),
    face=(64, 56, 50),
    stride=0.26,
)
_FOX = Build(
    height=0.4,
    length=0.56,
    spine=(0.33, 0.325, 0.315, 0.315, 0.32),
    trunk=(0.075, 0.082, 0.085, 0.098, 0.085),
    neck=(0.12, 0.1, 0.085, 0.06),
    skull=(0.18, 0.062, 0.014),
    nod=14,
    ear=(0.095, 0.034),
    leg=(0.048, 0.015),
    coat=(166, 100, 54),
    belly=(214, 190, 164),
    foot=(48, 38, 34),
    face=(170, 106, 60),
    stride=0.2,
)
_BADGER = Build(
    height=0.31,
    length=0.62,
    spine=(0.19, 0.205, 0.21, 0.2, 0.18),
    trunk=(0.11, 0.14, 0.145, 0.13, 0.1),
    neck=(0.1, -0.01, 0.095, 0.07),
    skull=(0.19, 0.07, 0.026),
    nod=16,
    ear=(0.035, 0.022),
    leg=(0.055, 0.034),
    coat=(136, 132, 126),
    belly=(46, 42, 40),
    foot=(30, 27, 26),
    face=(226, 224, 218),
    stride=0.12,
)


def _deer_marks(build: Build, pose: Pose, head: _Head) -> list[Tube]:
    rump = (-build.length / 2 - 0.02, build.spine[0] - 0.02, 0.0)
    marks = [Tube([rump, (rump[0] - 0.05, rump[1] - 0.12, 0.0)], [0.1, 0.05], (226, 216, 200), front=0.02)]
    if pose.individual > 0.55:
        marks += [tube for side in (-1, 1) for tube in _antler(head, side, 0.22 + 0.3 * (pose.individual - 0.5))]
    return marks


def _antler(head: _Head, side: int, size: float) -> list[Tube]:
    root = head.at(-0.01, 0.07, side * 0.045)
    bone: Colour = (150, 130, 104)
    beam = [root, _plus(root, -0.3 * size, 0.5 * size, side * 0.4 * size)]
    beam += [_plus(root, 0.0, 1.0 * size, side * 0.6 * size), _plus(root, 0.3 * size, 1.25 * size, side * 0.5 * size)]
    tines = [
        Tube([beam[i], _plus(beam[i], 0.32 * size, 0.32 * size, side * 0.05)], [0.012, 0.006], bone) for i in (1, 2)
    ]
    return [Tube(beam, [0.018, 0.016, 0.013, 0.006], bone), *tines]


def _boar_marks(build: Build, pose: Pose, head: _Head) -> list[Tube]:
    crest = [(-0.35, 0.82, 0.0), (-0.05, 0.9, 0.0), (0.3, 0.94, 0.0), (0.55, 0.84, 0.0)]
    tail = [(-0.6, 0.6, 0.0), (-0.68, 0.45, 0.0), (-0.66, 0.32, 0.0)]
    bristles = [(x, y * build.height * 0.93, z) for x, y, z in crest]
    marks = [
        Tube(bristles, [0.03, 0.05, 0.06, 0.04], (64, 55, 48), build.coat),
        Tube(tail, [0.025, 0.015, 0.022], (40, 35, 32)),
        Tube([head.at(head.length * 0.97, 0.0, 0.0), head.at(head.length * 1.03, 0, 0)], [0.055, 0.05], (96, 80, 76)),
    ]
    if pose.individual > 0.6:
        for side in (-1, 1):
            tusk = [head.at(head.length * 0.78, -0.05, side * 0.06), head.at(head.length * 0.82, 0.02, side * 0.09)]
            marks.append(Tube(tusk, [0.011, 0.005], (222, 214, 190), front=0.05))
    return marks


def _fox_marks(build: Build, pose: Pose, head: _Head) -> list[Tube]:
    droop = 0.1 * pose.pace
    tail = [(-0.28, 0.33, 0.0), (-0.4, 0.28 + droop, 0.02), (-0.54, 0.2 + 1.3 * droop, 0.05)]
    tip = [(-0.52, 0.21 + 1.25 * droop, 0.05), (-0.63, 0.15 + 1.4 * droop, 0.07)]
    chest = [(0.27, 0.29, 0.0), (0.35, 0.35, 0.0)]
    cheeks = [[head.at(0.05, -0.02, s * 0.03), head.at(0.14, -0.012, s * 0.012)] for s in (-1, 1)]
    return [
        Tube(tail, [0.035, 0.062, 0.062], (152, 90, 50), (124, 80, 52)),
        Tube(tip, [0.056, 0.02], (232, 224, 212), front=0.01),
        Tube(chest, [0.07, 0.05], (226, 212, 194), front=-0.01),
        *(Tube(cheek, [0.034, 0.012], (228, 216, 200), front=0.01) for cheek in cheeks),
        Tube([head.at(0.178, 0.0, 0.0), head.at(0.19, 0, 0)], [0.011, 0.01], (24, 20, 20), front=0.03),
    ]


def _badger_marks(build: Build, pose: Pose, head: _Head) -> list[Tube]:
    lines = [
        [head.at(-0.06, 0.05, s * 0.05), head.at(0.06, 0.03, s * 0.05), head.at(0.17, 0.005, s * 0.02)] for s in (-1, 1)
    ]
    stripes = [Tube(line, [0.028, 0.026, 0.012], (26, 24, 24), front=0.04) for line in lines]
    tail = [(-0.3, 0.2, 0.0), (-0.42, 0.16, 0.0)]
    nose = [head.at(0.185, 0.0, 0.0), head.at(0.2, -0.002, 0.0)]
    return [*stripes, Tube(tail, [0.04, 0.022], (160, 154, 142)), Tube(nose, [0.02, 0.018], (26, 22, 22), front=0.05)]


@dataclass(frozen=True)
class _Head:
    """Where the head is and where it points; ``at`` gives points relative to the skull's rear end."""

    rear: Point
    length: float
    nod: float

    def at(self, forward: float, up: float, right: float) -> Point:
        cos, sin = math.cos(self.nod), math.sin(self.nod)
        return (self.rear[0] + forward * cos + up * sin, self.rear[1] - forward * sin + up * cos, self.rear[2] + right)


def _plus(point: Point, x: float, y: float, z: float) -> Point:
    return point[0] + x, point[1] + y, point[2] + z


_Marks = Callable[[Build, Pose, _Head], list[Tube]]
Skeleton = tuple[list[Tube], list[Point]]
"""Tubes, and where the eyes are."""


@dataclass(frozen=True)
class Species:
    """A kind of animal: how it is built, and when and how it is met.

    Attributes:
        height, length: metres, of the whole outline in side view without ears, antlers and tail.
        width: metres, across the trunk.
        skeleton: makes tubes for a pose.
        nocturnal: share of its photos that are taken in the dark.
        nearest_m, farthest_m: distances from the camera.
        group: at most so many together.
        shaggy: how coarse and ruffled the fur is, 0 to 1.
        infrared: how bright the coat is in infrared light against its colour.
        feeding: share of photos with the head at the ground.
    """

    label: str
    height: float
    length: float
    width: float
    skeleton: Callable[[Pose], Skeleton]
    nocturnal: float
    nearest_m: float
    farthest_m: float
    group: int = 1
    shaggy: float = 0.4
    infrared: float = 1.25
    feeding: float = 0.3


def _species(label: str, build: Build, marks: _Marks, nocturnal: float, metres: tuple[float, float]) -> Species:
    def skeleton(pose: Pose) -> Skeleton:
        return _quadruped(build, marks, pose)

    return Species(label, build.height * 1.1, build.length, 2 * build.trunk[3], skeleton, nocturnal, *metres)


def draw_animal(species: Species, pose: Pose, px_per_m: float, seed: int) -> Sprite:
    """Draw one animal at a scale, unlit."""
    rng = np.random.default_rng([seed, 5])
    oversample = 2 if px_per_m < 200 else 1
    tubes, eyes = species.skeleton(pose)
    placed = [_project(tube, pose.turn, px_per_m * oversample) for tube in tubes]
    ids, origin = _paint(placed)
    tint = np.float32(1 + rng.normal(0, 0.07)) + np.asarray([1, 0, -1], dtype=np.float32) * rng.normal(0, 0.02)
    colour = _shrink(_colours(ids, tubes, placed, origin[1]), oversample) * tint.astype(np.float32)
    alpha = _fur_edge(_shrink((ids > 0) * np.uint8(255), oversample) / 255, species, px_per_m, rng)
    colour = _blend(colour, 0.011 * px_per_m)
    colour *= (1 + _fur(species, px_per_m, alpha.shape, rng))[..., None]
    ox, oy = origin[0] / oversample, origin[1] / oversample
    spots = tuple(_eye_pixel(eye, pose.turn, px_per_m, (ox, oy)) for eye in eyes)
    return Sprite(np.clip(colour, 0, 255), alpha, _relief(alpha, px_per_m), (ox, oy), tuple(s for s in spots if s))


def _quadruped(build: Build, marks: _Marks, pose: Pose) -> Skeleton:
    half = build.length / 2
    along = np.linspace(-half, half, 5)
    trunk = [(float(x), y, 0.0) for x, y in zip(along, build.spine, strict=True)]
    chest = (half - 0.06 * build.length, build.spine[4] + 0.25 * build.trunk[4], 0.0)
    head = _head(build, pose, chest)
    forward, _, thick, thin = build.neck
    middle = ((chest[0] + head.rear[0]) / 2 + 0.1 * forward, (chest[1] + head.rear[1]) / 2, 0.0)
    tubes = [
        Tube(trunk, build.trunk, build.coat, build.belly),
        Tube([chest, middle, head.rear], [thick, (thick + thin) / 2, thin], build.coat, _between(build)),
        *_skull(build, head),
        *_legs(build, pose),
        *marks(build, pose, head),
    ]
    eyes = [head.at(0.3 * head.length, 0.35 * build.skull[1], s * 0.8 * build.skull[1]) for s in (-1, 1)]
    return tubes, eyes


_JACKETS: tuple[Colour, ...] = ((64, 84, 62), (128, 52, 44), (52, 66, 98), (150, 110, 50), (70, 70, 74))


def _person(pose: Pose) -> Skeleton:
    """A walker with a rucksack; the head is no portrait of anybody."""
    jacket = _JACKETS[int(pose.individual * 4.99)]
    hip, neck = (0.0, 0.92, 0.0), (0.05, 1.42, 0.0)
    tubes = [
        Tube([hip, (0.02, 1.15, 0.0), neck], [0.15, 0.16, 0.13], jacket),
        Tube([(-0.17, 1.05, 0.0), (-0.17, 1.36, 0.0)], [0.13, 0.1], (58, 54, 60)),
        Tube([(0.05, 1.5, 0.0), (0.07, 1.62, 0.0)], [0.06, 0.095], (186, 148, 122)),
        Tube([(0.04, 1.68, 0.0), (0.1, 1.69, 0.0)], [0.1, 0.09], (60, 52, 44), front=0.01),
    ]
    for side, phase in ((1, pose.stride), (-1, pose.stride + math.pi)):
        swing = (0.08 + 0.24 * pose.pace) * math.sin(phase)
        lift = 0.1 * pose.pace * max(0.0, math.cos(phase))
        knee = (0.6 * swing + 0.05, 0.5 + 0.4 * lift, 0.09 * side)
        foot = (swing, 0.09 + lift, 0.1 * side)
        elbow = (-0.5 * swing - 0.03, 1.14, 0.24 * side)
        hand = (-swing + 0.08, 0.93, 0.24 * side)
        tubes += [
            Tube([(0.0, 0.9, 0.08 * side), knee, foot], [0.105, 0.075, 0.055], (66, 70, 82)),
            Tube([foot, (foot[0] + 0.17, foot[1] - 0.05, foot[2])], [0.055, 0.04], (48, 40, 34)),
            Tube([(0.04, 1.4, 0.17 * side), elbow, hand], [0.065, 0.055, 0.045], jacket),
            Tube([hand, (hand[0] + 0.03, hand[1] - 0.06, hand[2])], [0.04, 0.035], (186, 148, 122)),
        ]
    return tubes, []


def _between(build: Build) -> Colour:
    """A colour between coat and belly, for parts that are seen from the side."""
    return tuple((3 * a + b) // 4 for a, b in zip(build.coat, build.belly, strict=True))  # type: ignore[return-value]


def _head(build: Build, pose: Pose, chest: Point) -> _Head:
    forward, up, _, _ = build.neck
    reach = math.hypot(forward, up)
    angle = math.atan2(up, forward) + (0.35 * pose.head if pose.head > 0 else 1.35 * pose.head)
    lowest = 0.55 * build.skull[0] * math.sin(math.radians(60)) + 0.03
    rear = (chest[0] + reach * math.cos(angle), max(chest[1] + reach * math.sin(angle), lowest), 0.0)
    return _Head(rear, build.skull[0], math.radians(build.nod - 28 * min(pose.head, 0)))


def _skull(build: Build, head: _Head) -> list[Tube]:
    length, back, front = build.skull
    tubes = [
        Tube(
            [head.at(-0.02, 0, 0), head.at(0.35 * length, 0, 0), head.at(length, -0.1 * back, 0)],
            [back * 0.95, back * 0.85, front],
            build.face,
            build.belly,
            front=0.01,
        )
    ]
    ear, wide = build.ear
    for side in (-1, 1):
        root = head.at(-0.01, 0.75 * back, side * 0.6 * back)
        tip = head.at(-0.01 - 0.4 * ear, 0.75 * back + 0.85 * ear, side * (0.6 * back + 0.4 * ear * (wide > 0.03)))
        mid: Point = tuple((a + b) / 2 for a, b in zip(root, tip, strict=True))  # type: ignore[assignment]
        tubes.append(Tube([root, mid, tip], [0.7 * wide, wide, 0.15 * wide], build.coat, build.face))
        eye = head.at(0.36 * length, 0.3 * back, side * 0.72 * back)
        tubes.append(Tube([eye, _plus(eye, 0.005, 0, 0)], [0.09 * back + 0.003] * 2, (20, 16, 14), front=0.03))
    return tubes


def _legs(build: Build, pose: Pose) -> list[Tube]:
    tubes = []
    width = 0.55 * build.trunk[3]
    swing = build.stride * (0.25 + 0.75 * pose.pace)
    for i, (front, side) in enumerate(((True, 1), (True, -1), (False, 1), (False, -1))):
        phase = pose.stride + (0, math.pi, math.pi * 0.85, -0.15 * math.pi)[i]
        dx, lift = swing * math.sin(phase), max(0.0, math.cos(phase)) * 0.22 * swing * pose.pace
        tubes += _leg(build, front, side * width, dx, lift)
    return tubes


def _leg(build: Build, front: bool, z: float, dx: float, lift: float) -> list[Tube]:
    half = build.length / 2
    if front:
        top = (half - 0.14 * build.length, build.spine[4] - 0.1 * build.trunk[4], z * 0.8)
        bends = ((0.02, 0.52, 0.05), (-0.02, 0.27, 0.55))
    else:
        top = (-half + 0.13 * build.length, build.spine[0] - 0.1 * build.trunk[0], z * 0.8)
        bends = ((0.09, 0.6, 0.1), (-0.07, 0.33, 0.6))
    scale = top[1]
    joints = [(top[0] + b[0] * scale + b[2] * dx, b[1] * scale + 0.6 * lift, z) for b in bends]
    foot = (top[0] + dx, lift + build.leg[1] * 0.6, z)
    toe = (foot[0] + 1.6 * build.leg[1], foot[1], z)
    thick, thin = build.leg
    radii = [thick * (1 if front else 1.15), thick * 0.72, thin * 1.25]
    upper = Tube([top, joints[0], joints[1]], radii, build.coat, build.foot)
    return [upper, Tube([joints[1], foot, toe], [thin * 1.2, thin, thin * 0.9], build.foot)]


_Outline = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Placed:
    """A tube on the page: outline and end circles in pixels (y down, origin at the animal's ground point), nearness."""

    outline: _Outline
    ends: tuple[tuple[float, float, float], tuple[float, float, float]]
    near: float


def _turned(points: npt.NDArray[np.float64], turn: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Turn points about the vertical axis: page coordinates (n, 2) in metres, y up, and nearness (n,)."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x, y, z = points.T
    near = x * sin + z * cos
    return np.stack([x * cos - z * sin, y - 0.12 * near], axis=1), near  # the camera looks down a little


def _project(tube: Tube, turn: float, px_per_m: float) -> _Placed:
    page, near = _turned(np.asarray(tube.points, dtype=np.float64), turn)
    line, radii = _smooth(page * px_per_m, np.asarray(tube.radii, dtype=np.float64) * px_per_m)
    step = np.gradient(line, axis=0)
    step /= np.maximum(np.hypot(step[:, :1], step[:, 1:]), 1e-6)
    side = np.stack([-step[:, 1], step[:, 0]], axis=1) * radii[:, None]
    outline = np.concatenate([line + side, (line - side)[::-1]]) * (1, -1)
    ends = tuple((float(line[i, 0]), -float(line[i, 1]), float(radii[i])) for i in (0, -1))
    return _Placed(outline, (ends[0], ends[1]), float(near.mean()) + tube.front)


def _smooth(line: _Outline, radii: npt.NDArray[np.float64]) -> tuple[_Outline, npt.NDArray[np.float64]]:
    """A Catmull-Rom curve through the points, with the radii along it."""
    padded = np.concatenate([2 * line[:1] - line[1:2], line, 2 * line[-1:] - line[-2:-1]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for i in range(len(line) - 1):
        a, b, c, d = padded[i : i + 4]
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    curve = np.concatenate([*pieces, line[-1:]])
    along = np.linspace(0, len(line) - 1, len(curve))
    return curve, np.interp(along, np.arange(len(line)), radii)


def _paint(placed: list[_Placed]) -> tuple[npt.NDArray[np.int32], tuple[float, float]]:
    """Draw all tubes, far ones first; returns tube number + 1 per pixel (0 for none) and the ground point."""
    every = np.concatenate([p.outline for p in placed])
    pad = max(max(end[2] for end in p.ends) for p in placed) + 8
    left, top = every.min(axis=0) - pad
    right, bottom = every.max(axis=0) + pad
    page = Image.new("I", (int(right - left) // 2 * 2 + 2, int(bottom - top) // 2 * 2 + 2))
    pen = ImageDraw.Draw(page)
    for i in sorted(range(len(placed)), key=lambda i: placed[i].near):
        pen.polygon((placed[i].outline - (left, top)).ravel().tolist(), fill=i + 1)
        for x, y, r in placed[i].ends:
            pen.ellipse((x - left - r, y - top - r, x - left + r, y - top + r), fill=i + 1)
    return np.array(page), (-float(left), -float(top))


def _colours(ids: npt.NDArray[np.int32], tubes: list[Tube], placed: list[_Placed], top_row: float) -> Bytes:
    """Colour every pixel by its tube, lighter or darker towards the tube's lower side; the far side is in shade."""
    top = np.asarray([t.top for t in tubes], dtype=np.float32)
    bottom = np.asarray([t.bottom or t.top for t in tubes], dtype=np.float32)
    near = np.asarray([p.near - t.front for p, t in zip(placed, tubes, strict=True)], dtype=np.float32)
    shade = 1 - 0.4 * smoothstep(-near / (np.abs(near).max() + 1e-6), 0.25, 0.9)
    first = np.asarray([p.outline[:, 1].min() for p in placed], dtype=np.float32) + top_row
    last = np.asarray([p.outline[:, 1].max() for p in placed], dtype=np.float32) + top_row
    rows = np.arange(ids.shape[0], dtype=np.float32)[:, None]
    share = smoothstep((rows - first) / np.maximum(last - first, 1), 0.5, 0.95)[..., None]  # (rows, tubes, 1)
    table = (top + (bottom - top) * share) * shade[:, None]  # (rows, tubes, 3): a colour for each row of each tube
    which = np.maximum(ids - 1, 0)
    return np.asarray(table.astype(np.uint8)[np.arange(ids.shape[0])[:, None], which])


def _shrink(values: Bytes, factor: int) -> Field:
    """Average down by a whole factor: (h, w) or (h, w, 3) uint8 to float32."""
    return np.asarray(Image.fromarray(values).reduce(factor), dtype=np.float32)


def _fur_edge(alpha: Field, species: Species, px_per_m: float, rng: np.random.Generator) -> Field:
    """Ruffle the outline by noise, so that it is hair and not a line."""
    reach = 0.6 + 0.008 * species.shaggy * px_per_m
    soft = _blur(alpha, reach)
    tufts = patch("leaves", rng, alpha.shape, scale=max(0.35, px_per_m / 300))
    edge = 4 * soft * (1 - soft)  # only there: tufts of noise elsewhere would be flying hair
    return smoothstep(soft + 0.22 * species.shaggy * tufts * edge, 0.3, 0.7)


def _fur(species: Species, px_per_m: float, shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    hair = patch("fur", rng, shape, scale=max(0.3, px_per_m / 350))
    patches = patch("clouds", rng, shape, scale=max(0.3, px_per_m / 250))
    return np.asarray((0.04 + 0.1 * species.shaggy) * hair + 0.06 * patches, dtype=np.float32)


def _relief(alpha: Field, px_per_m: float) -> Field:
    """Which way the surface faces, guessed from the outline: its blurred mask falls off towards the edges."""
    coarse = 4  # it is smooth: a quarter of the size is enough, and quick
    small = _shrink((alpha * 255).astype(np.uint8), coarse) / 255
    slope = np.zeros_like(small)
    for radius_m, weight in ((0.09, 2.2), (0.03, 1.0)):
        radius = radius_m * px_per_m / coarse
        slope += weight * radius * np.gradient(_blur(small, radius), axis=0)
    large = Image.fromarray(slope).resize((alpha.shape[1], alpha.shape[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(large, dtype=np.float32), -1, 1)


def _blur(values: Field, radius: float) -> Field:
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8), "L")
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius)), np.float32) / 255


def _blend(colour: Field, radius: float) -> Field:
    """Let neighbouring colours run into one another, as fur does."""
    image = Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32)


def _eye_pixel(eye: Point, turn: float, px_per_m: float, origin: tuple[float, float]) -> tuple[float, float] | None:
    """Where an eye is on the page, if it is on the side that the camera sees."""
    page, near = _turned(np.asarray([eye]), turn)
    if near[0] <= _turned(np.asarray([(eye[0], eye[1], 0.0)]), turn)[1][0]:
        return None
    return origin[0] + float(page[0, 0]) * px_per_m, origin[1] - float(page[0, 1]) * px_per_m


_KINDS = (
    replace(_species("badger", _BADGER, _badger_marks, 0.6, (1.5, 2.3)), shaggy=0.7, infrared=0.95),
    replace(_species("boar", _BOAR, _boar_marks, 0.45, (2.4, 3.9)), group=3, shaggy=1.0, infrared=1.6),
    replace(_species("deer", _DEER, _deer_marks, 0.3, (2.6, 4.2)), group=2, shaggy=0.25),
    replace(_species("fox", _FOX, _fox_marks, 0.4, (1.6, 2.6)), shaggy=0.6, infrared=1.1),
    Species("person", 1.75, 0.45, 0.5, _person, 0.2, 2.9, 4.8, group=2, shaggy=0.08, infrared=1.5, feeding=0.0),
)
SPECIES = {species.label: species for species in _KINDS}
"""What can be drawn, by label."""
