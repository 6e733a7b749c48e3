"""What a drawn station's camera looks at when no animal is there: ground, trees, rocks, water, grass.

A landscape is drawn once per station, without light: colours, distances, what stands in front of what, and what
moves in the wind. Light, animals and the camera are added in :mod:`trainer.demo.scenes`. Drawn in plain central
perspective, so that an animal placed at a distance has the right size and is hidden by what is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from trainer.demo.textures import Bytes, Field, patch, sample, smoothstep

WIDTH, HEIGHT = 1280, 960
FOCAL_PX = 1300.0
"""About 52 degrees from side to side, as most camera traps have."""
CAMERA_HEIGHT_M = 0.85
SKY_M = 1000.0

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Habitat:
    """The recipe of a station's surroundings.

    Attributes:
        name: as it appears in the banner.
        ground: three colours that mix in patches.
        backdrop: dark and light colour of the vegetation at the far end.
        horizon: row where the ground ends, as a share of the height.
        open_sky: 0 (closed forest) to 1.
        trunks: how many far and near trees, and the colour of their bark.
        litter: colours of what lies on the ground; none where empty.
        grass: blades on the whole ground, their colour and height in metres.
        bushes: how many, their colour and size in metres.
        canopy: clumps of leaves that hang into the picture from above.
        rocks: how many.
        water, track: whether there is a pond, whether a path runs towards the camera.
    """

    name: str
    ground: tuple[Colour, Colour, Colour]
    backdrop: tuple[Colour, Colour]
    horizon: float = 0.38
    open_sky: float = 0.0
    trunks: tuple[int, int, Colour] = (0, 0, (90, 84, 76))
    litter: tuple[Colour, ...] = ()
    grass: tuple[int, Colour, float] = (0, (90, 110, 50), 0.2)
    bushes: tuple[int, Colour, float] = (0, (70, 90, 45), 0.6)
    canopy: int = 0
    rocks: int = 0
    water: bool = False
    track: bool = False


HABITATS = (
    Habitat(
        "BEECH HOLLOW",
        ground=((120, 86, 58), (94, 66, 44), (142, 108, 74)),
        backdrop=((74, 76, 58), (150, 152, 120)),
        open_sky=0.25,
        trunks=(26, 4, (122, 120, 112)),
        litter=((164, 112, 66), (132, 84, 48), (188, 142, 92), (104, 68, 42), (146, 124, 98)),
        grass=(800, (104, 116, 62), 0.16),
        canopy=5,
    ),
    Habitat(
        "SPRUCE RIDE",
        ground=((78, 64, 44), (62, 76, 38), (96, 78, 52)),
        backdrop=((30, 40, 28), (72, 88, 58)),
        open_sky=0.08,
        trunks=(36, 3, (92, 72, 58)),
        litter=((110, 82, 54), (84, 62, 42), (70, 90, 44)),
        grass=(3600, (74, 102, 44), 0.2),
        bushes=(9, (64, 100, 44), 0.55),
    ),
    Habitat(
        "MEADOW EDGE",
        ground=((104, 118, 58), (126, 126, 70), (88, 108, 50)),
        backdrop=((54, 70, 38), (112, 128, 74)),
        horizon=0.34,
        open_sky=0.8,
        trunks=(3, 1, (96, 84, 70)),
        grass=(15000, (122, 138, 64), 0.3),
        bushes=(3, (78, 100, 48), 0.8),
        canopy=3,
    ),
    Habitat(
        "WATER HOLE",
        ground=((116, 98, 74), (98, 82, 60), (134, 118, 90)),
        backdrop=((58, 64, 40), (128, 130, 84)),
        open_sky=0.45,
        trunks=(9, 1, (100, 90, 78)),
        litter=((120, 104, 80), (90, 78, 60)),
        grass=(3200, (124, 122, 66), 0.34),
        bushes=(6, (96, 104, 56), 0.6),
        rocks=4,
        water=True,
    ),
    Habitat(
        "ROCK GULLY",
        ground=((112, 108, 96), (92, 96, 74), (128, 122, 110)),
        backdrop=((70, 76, 62), (138, 140, 122)),
        horizon=0.36,
        open_sky=0.3,
        trunks=(12, 3, (178, 174, 164)),
        litter=((150, 146, 134), (96, 92, 84), (150, 126, 70)),
        grass=(2600, (112, 122, 66), 0.2),
        bushes=(4, (84, 104, 54), 0.5),
        rocks=22,
    ),
    Habitat(
        "HEATH TRACK",
        ground=((110, 92, 70), (92, 74, 66), (128, 116, 78)),
        backdrop=((60, 68, 44), (118, 116, 84)),
        horizon=0.36,
        open_sky=0.7,
        trunks=(7, 1, (128, 92, 66)),
        litter=((126, 110, 92), (88, 72, 60)),
        grass=(5200, (150, 134, 84), 0.26),
        bushes=(22, (112, 78, 84), 0.42),
        track=True,
    ),
)


@dataclass(frozen=True)
class Landscape:
    """One station's view, without light.

    Attributes:
        name: the station.
        albedo: uint8 RGB (960, 1280, 3).
        distance: float32 (960, 1280), metres from the camera; 1000 is sky.
        standing: float32 (960, 1280), metres to what stands upright there and so hides what is behind it;
            infinite where there is only ground or sky.
        horizon: row where the flat ground would end.
        moving: int32 (n,), flat indices of the pixels that move in the wind.
        moving_phase, moving_reach: float32 (n,), for each of them, how waves of wind run through the picture,
            and how far it moves, growing towards the camera.
    """

    name: str
    albedo: Bytes
    distance: Field
    standing: Field
    horizon: int
    moving: npt.NDArray[np.int32]
    moving_phase: Field
    moving_reach: Field

    def ground_row(self, distance_m: float) -> float:
        """The row at which something at this distance stands."""
        return self.horizon + FOCAL_PX * CAMERA_HEIGHT_M / distance_m


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture in whole pixels, clipped to it; right and bottom are not in it."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """The part of a rectangle that is in the picture; empty where there is none."""
        first_x, first_y = min(max(0, int(left)), WIDTH), min(max(0, int(top)), HEIGHT)
        return cls(
            first_x,
            first_y,
            max(first_x, min(WIDTH, int(right) + 1)),
            max(first_y, min(HEIGHT, int(bottom) + 1)),
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Indices of an array whose first axes are rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def empty(self) -> bool:
        return self.right == self.left or self.bottom == self.top

    def x(self) -> Field:
        """Its columns, (1, w)."""
        return np.arange(self.left, self.right, dtype=np.float32)[None, :]

    def y(self) -> Field:
        """Its rows, (h, 1)."""
        return np.arange(self.top, self.bottom, dtype=np.float32)[:, None]


class _Canvas:
    """A landscape while it is drawn."""

    def __init__(self, habitat: Habitat, seed: int) -> None:
        self.habitat = habitat
        self.rng = np.random.default_rng([seed, 77])
        self.horizon = round(habitat.horizon * HEIGHT)
        self.rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
        self.columns = np.arange(WIDTH, dtype=np.float32)[None, :]
        below = np.maximum(self.rows - self.horizon, 0.5)
        self.ground_m = np.minimum(FOCAL_PX * CAMERA_HEIGHT_M / below, 60.0)  # (h, 1)
        self.colour = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        self.distance = np.broadcast_to(self.ground_m, (HEIGHT, WIDTH)).copy()
        self.standing = np.full((HEIGHT, WIDTH), np.inf, np.float32)
        self.sway = np.zeros((HEIGHT, WIDTH), np.float32)

    def row(self, distance_m: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return self.horizon + FOCAL_PX * CAMERA_HEIGHT_M / np.asarray(distance_m, dtype=np.float64)

    def scatter_ground(self, count: int, nearest_m: float = 1.75, farthest_m: float = 30.0) -> npt.NDArray[np.float64]:
        """Random places on the ground, evenly over the picture, far ones first: (count, 3) of x, y, metres."""
        first, last = float(self.row(farthest_m)), float(self.row(nearest_m))
        y = np.sort(self.rng.uniform(first, last, count))
        x = self.rng.uniform(-20, WIDTH + 20, count)
        return np.stack([x, y, FOCAL_PX * CAMERA_HEIGHT_M / (y - self.horizon)], axis=1)

    def put(self, mask: npt.NDArray[np.bool_], colour: npt.ArrayLike, distance: npt.ArrayLike, box: Box) -> None:
        """Put something upright where it is nearer than what stands there; arrays cover ``box``."""
        far = np.broadcast_to(np.asarray(distance, dtype=np.float32), mask.shape)
        visible = mask & (far < self.standing[box.slices])
        self.colour[box.slices][visible] = np.asarray(colour, dtype=np.float32)[visible]
        self.standing[box.slices][visible] = far[visible]
        self.distance[box.slices][visible] = far[visible]
        self.sway[box.slices][visible] = 0


def draw_landscape(station: int, seed: int) -> Landscape:
    """Draw the station with this number; the same numbers give the same picture."""
    habitat = HABITATS[station % len(HABITATS)]
    canvas = _Canvas(habitat, seed * 1000 + station)
    _backdrop(canvas)
    _ground(canvas)
    if habitat.water:
        _pond(canvas)
    _litter(canvas)
    _trees(canvas)
    _rocks(canvas)
    _bushes(canvas)
    _grass(canvas)
    _canopy(canvas)
    _foreground(canvas)
    again = "" if station < len(HABITATS) else f" {station // len(HABITATS) + 1}"
    soft = Image.fromarray(np.clip(canvas.colour, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    moving = np.flatnonzero(canvas.sway > 0.1).astype(np.int32)
    rows, columns = (moving // WIDTH).astype(np.float32), (moving % WIDTH).astype(np.float32)
    return Landscape(
        habitat.name + again,
        np.array(soft),
        canvas.distance,
        canvas.standing,
        canvas.horizon,
        moving,
        columns / 95 + rows / 70,
        np.maximum(rows - canvas.horizon, 40),
    )


def _mix(low: npt.ArrayLike, high: npt.ArrayLike, share: Field) -> Field:
    """Blend two colours by a share of shape (h, w) or (h, 1): float32 (h, w, 3)."""
    a, b = np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)
    return np.asarray(a + (b - a) * share[..., None], dtype=np.float32)


def _backdrop(canvas: _Canvas) -> None:
    """Vegetation at the far end, and sky above where the forest is open."""
    habitat, rng = canvas.habitat, canvas.rng
    top = canvas.horizon + 40
    leaves = patch("leaves", rng, (top, WIDTH))
    stems = patch("bark", rng, (top, WIDTH))
    share = smoothstep(0.5 * leaves + 0.6 * stems, -1.5, 1.8)
    canvas.colour[:top] = _mix(habitat.backdrop[0], habitat.backdrop[1], share)
    canvas.distance[:top] = 45.0
    if habitat.open_sky > 0:
        ragged = 45 * patch("clouds", rng, (1, WIDTH), scale=1.4) + 28 * leaves
        edge = canvas.horizon * (0.1 + 0.75 * habitat.open_sky)
        sky = canvas.rows[:top] < edge + ragged
        if habitat.open_sky < 0.4:  # only holes between the leaves
            sky &= leaves + 0.8 * stems > 0.9 - habitat.open_sky
        canvas.colour[:top][sky] = 235
        canvas.distance[:top][sky] = SKY_M


def _ground(canvas: _Canvas) -> None:
    rng = canvas.rng
    first = canvas.horizon - 2
    metres = canvas.ground_m[first:]
    across = (canvas.columns - WIDTH / 2) * metres / FOCAL_PX
    shift = rng.uniform(0, 1000, 2)
    patches = sample("clouds", across * 60 + shift[0], metres * 60 + shift[1])
    blades = sample("leaves", across * 420 + shift[1], metres * 300)
    fine = patch("sand", rng, (HEIGHT - first, WIDTH))
    a, b, c = canvas.habitat.ground
    colour = _mix(a, b, smoothstep(patches, -0.8, 0.8))
    colour += (np.asarray(c, dtype=np.float32) - colour) * smoothstep(blades - patches * 0.3, 0.3, 1.6)[..., None]
    grain = 1 + np.minimum(1, 6 / metres) * 0.16 * blades + 0.07 * fine
    if canvas.habitat.track:
        colour = _track(canvas, colour, across, metres, patches)
    edge = 9 * patch("patches", rng, (HEIGHT - first, WIDTH), scale=0.7)
    share = smoothstep(canvas.rows[first:] - canvas.horizon + edge, 0, 26)[..., None]
    canvas.colour[first:] += (colour * grain[..., None] - canvas.colour[first:]) * share


def _track(canvas: _Canvas, colour: Field, across: Field, metres: Field, patches: Field) -> Field:
    """A sandy path that winds towards the camera."""
    middle = 0.5 + 0.7 * np.sin(metres / 4.5) + 0.12 * patches
    worn = 1 - smoothstep(np.abs(across - middle), 0.45, 0.85)
    rut = 1 - 0.14 * np.exp(-(((np.abs(across - middle) - 0.3) / 0.1) ** 2))
    sand = np.asarray((176, 156, 124), dtype=np.float32) * rut[..., None]
    return np.asarray(colour + (sand - colour) * (0.85 * worn)[..., None], dtype=np.float32)


def _pond(canvas: _Canvas) -> None:
    """Still water that mirrors the backdrop, with a dark wet rim."""
    rng = canvas.rng
    first = canvas.horizon + 4
    metres = canvas.ground_m[first:]
    across = (canvas.columns - WIDTH / 2) * metres / FOCAL_PX
    ripple = patch("ripples", rng, (HEIGHT - first, WIDTH))
    shore = ((across - rng.uniform(-0.6, 0.6)) / 2.3) ** 2 + ((metres - 6.4) / 1.9) ** 2
    shore = shore + 0.16 * sample("clouds", across * 120 + rng.uniform(0, 999), metres * 120)
    wet = smoothstep(shore, 1.0, 1.5)
    canvas.colour[first:] *= (0.55 + 0.45 * wet)[..., None]
    mirror = np.clip(2 * canvas.horizon - canvas.rows[first:] * 1.0 + 4 * ripple, 0, canvas.horizon - 3)
    rows = mirror.astype(np.int32)
    reflected = canvas.colour[rows, np.broadcast_to(canvas.columns.astype(np.int32), rows.shape)]
    water = reflected * np.asarray((0.62, 0.66, 0.66), dtype=np.float32) + (10 + 9 * ripple)[..., None]
    canvas.colour[first:] = np.where((shore < 1.0)[..., None], water, canvas.colour[first:])


def _stamp(polygons: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Draw polygons (n, corners, 2) in order; returns (960, 1280) with 1 + the number of the topmost, 0 for none."""
    page = Image.new("I", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(page)
    for i, corners in enumerate(polygons.reshape(len(polygons), -1).tolist(), start=1):
        pen.polygon(corners, fill=i)
    return np.array(page)


def _litter(canvas: _Canvas) -> None:
    """Leaves, needles or pebbles: flat, so they hide nothing."""
    if not canvas.habitat.litter:
        return
    rng = canvas.rng
    places = canvas.scatter_ground(9000)
    size = 0.035 * FOCAL_PX / places[:, 2] * rng.uniform(0.5, 1.5, len(places)) + 0.8
    corners = _leaf_shapes(places[:, 0], 0 * places[:, 1], size, rng.uniform(0, np.pi, len(places)), rng)
    ids = _stamp(corners * (1, 0.45) + np.stack([0 * size, places[:, 1]], axis=1)[:, None])  # seen from the side
    palette = np.asarray(canvas.habitat.litter, dtype=np.float32)
    colours = palette[rng.integers(0, len(palette), len(places))] * rng.uniform(0.65, 1.2, (len(places), 1))
    if canvas.habitat.water:  # none afloat
        ids[: int(canvas.row(4.2))] = 0
    rows, columns = np.nonzero(ids)
    canvas.colour[rows, columns] *= 0.25
    canvas.colour[rows, columns] += 0.75 * colours[ids[rows, columns] - 1].astype(np.float32)


def _trees(canvas: _Canvas) -> None:
    far, near, bark = canvas.habitat.trunks
    rng = canvas.rng
    for metres in np.sort(rng.uniform(11, 34, far))[::-1]:
        _trunk(canvas, float(rng.uniform(-20, WIDTH + 20)), float(metres), float(rng.uniform(0.07, 0.2)), bark)
    sides = rng.permutation(np.linspace(0.06, 0.94, max(near, 2)))[:near] * WIDTH
    for x in sides:
        _trunk(canvas, float(x + rng.normal(0, 40)), float(rng.uniform(3.6, 8.5)), float(rng.uniform(0.1, 0.2)), bark)


def _trunk(canvas: _Canvas, x: float, metres: float, radius_m: float, bark: Colour) -> None:
    rng = canvas.rng
    base = float(canvas.row(metres))
    half = max(radius_m * FOCAL_PX / metres, 1.5)
    lean = float(rng.normal(0, 0.035))
    reach = 2.2 * half + abs(lean) * base
    box = Box.around(x - reach, 0, x + reach, base)
    if box.empty:
        return
    rows, columns = box.y(), box.x()
    up = base - rows
    centre = x + lean * up + 0.12 * half * np.sin(up / 70 + rng.uniform(0, 6))
    width = half * (1 - 0.00035 * up + 0.55 * np.exp(-up / (0.22 * FOCAL_PX / metres)))
    t = (columns - centre) / width
    mask = np.abs(t) < 1
    shade = 0.42 + 0.58 * np.sqrt(np.maximum(0, 1 - (0.85 * t + 0.25) ** 2))
    rough = patch("bark", rng, mask.shape, scale=max(0.35, 5 / metres))
    colour = np.asarray(bark, dtype=np.float32) * rng.uniform(0.75, 1.1) * (shade * (1 + 0.2 * rough))[..., None]
    if min(bark) > 150:  # birch: dark scars across the white bark
        scars = patch("ripples", rng, mask.shape, scale=3 / metres + 0.3)
        colour *= (1 - 0.65 * smoothstep(scars, 1.1, 1.5))[..., None]
    canvas.put(mask, colour, metres, box)


def _rocks(canvas: _Canvas) -> None:
    rng = canvas.rng
    for _ in range(canvas.habitat.rocks):
        metres = float(rng.choice([rng.uniform(2.4, 5), rng.uniform(5, 16)]))
        size_m = float(rng.uniform(0.08, 0.3) if metres < 5 else rng.uniform(0.2, 0.8))
        _rock(canvas, float(rng.uniform(0, WIDTH)), metres, size_m)


def _rock(canvas: _Canvas, x: float, metres: float, size_m: float) -> None:
    rng = canvas.rng
    size = size_m * FOCAL_PX / metres
    base = float(canvas.row(metres))
    box = Box.around(x - 1.5 * size, base - 1.3 * size, x + 1.5 * size, base + 0.2 * size)
    if box.empty:
        return
    u = (box.x() - x) / size
    v = (base - box.y()) / size
    angle = np.arctan2(v, u)
    rim = 1 + 0.16 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(5 * angle + rng.uniform(0, 6))
    r = np.hypot(u / 1.2, v / 0.75) / rim
    mask = (r < 1) & (v > -0.1)
    facets = patch("patches", rng, mask.shape, scale=max(0.3, size / 120))
    light = 0.62 + 0.42 * v - 0.16 * u + 0.13 * facets - 0.25 * smoothstep(r, 0.75, 1)
    colour = np.asarray((134, 130, 120), dtype=np.float32) * light[..., None]
    moss = smoothstep(facets + 1.2 * v, 1.0, 1.7)[..., None] * 0.7
    colour = colour * (1 - moss) + np.asarray((92, 104, 52), dtype=np.float32) * light[..., None] * moss
    canvas.put(mask, colour, metres, box)


def _bushes(canvas: _Canvas) -> None:
    count, colour, size_m = canvas.habitat.bushes
    rng = canvas.rng
    for metres in np.sort(rng.uniform(3.2, 18, count))[::-1]:
        x = float(rng.choice([rng.uniform(0, WIDTH), rng.uniform(0, 0.3 * WIDTH), rng.uniform(0.7, 1) * WIDTH]))
        spread = size_m * float(rng.uniform(0.6, 1.2)) * FOCAL_PX / float(metres)
        base = float(canvas.row(metres))
        _leaves(canvas, (x, base - 0.42 * spread), (0.5 * spread, 0.26 * spread), float(metres), colour, 420, base)


def _canopy(canvas: _Canvas) -> None:
    rng = canvas.rng
    for _ in range(canvas.habitat.canopy):
        metres = float(rng.uniform(3.5, 9))
        middle = (float(rng.uniform(0, WIDTH)), float(rng.uniform(-30, 0.16 * HEIGHT)))
        _leaves(canvas, middle, (420 / metres, 140 / metres), metres, (98, 122, 58), 360, float(HEIGHT))


def _leaves(
    canvas: _Canvas,
    middle: tuple[float, float],
    spread: tuple[float, float],
    metres: float,
    colour: Sequence[int],
    count: int,
    base: float,
) -> None:
    """A clump of leaves around a point, none below ``base``: bushes, ferns, branches."""
    rng = canvas.rng
    x = middle[0] + spread[0] * rng.normal(0, 1, count)
    y = middle[1] + spread[1] * rng.normal(0, 1, count)
    y = np.minimum(y, base - rng.uniform(0, 6, count))
    size = 0.03 * FOCAL_PX / metres * rng.uniform(0.5, 1.3, count) + 1
    ids = _stamp(_leaf_shapes(x, y, size, rng.normal(0.4, 0.9, count), rng))
    height = np.clip((middle[1] + spread[1] - y) / (3 * spread[1] + 1), 0, 1)
    tones = np.asarray(colour, dtype=np.float32) * (0.5 + 0.6 * height + rng.normal(0, 0.12, count))[:, None]
    _put_ids(canvas, ids, tones, np.full(count, metres), np.full(count, 0.5))


def _leaf_shapes(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    size: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Pointed ovals, (n, 6, 2): six corners around each middle."""
    along = np.asarray([1.0, 0.3, -0.5, -1.0, -0.5, 0.3])
    across = np.asarray([0.0, 0.42, 0.36, 0.0, -0.36, -0.42]) * rng.uniform(0.4, 1.1, (len(x), 1))
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    u = x[:, None] + size[:, None] * (along * cos - across * sin)
    v = y[:, None] + size[:, None] * (along * sin + across * cos)
    return np.stack([u, v], axis=2)


def _put_ids(
    canvas: _Canvas,
    ids: npt.NDArray[np.int32],
    colours: npt.NDArray[np.float64],
    metres: npt.NDArray[np.float64],
    sway: npt.NDArray[np.float64],
) -> None:
    """Put stamped polygons that stand upright into the landscape, each with its own colour, distance and sway."""
    rows, columns = np.nonzero(ids)
    which = ids[rows, columns] - 1
    nearer = metres[which] < canvas.standing[rows, columns]
    rows, columns, which = rows[nearer], columns[nearer], which[nearer]
    canvas.colour[rows, columns] = colours[which]
    canvas.standing[rows, columns] = metres[which]
    canvas.distance[rows, columns] = metres[which]
    canvas.sway[rows, columns] = sway[which]


def _grass(canvas: _Canvas) -> None:
    count, colour, height_m = canvas.habitat.grass
    if not count:
        return
    rng = canvas.rng
    places = canvas.scatter_ground(count, 1.9, 26.0)
    across = (places[:, 0] - WIDTH / 2) * places[:, 2] / FOCAL_PX
    tufts = sample("patches", across * 90 + rng.uniform(0, 999), places[:, 2] * 90)
    kept = tufts + rng.normal(0, 0.5, count) > -0.5
    places, across = places[kept], across[kept]
    if canvas.habitat.track:
        places = places[np.abs(across - 0.5 - 0.7 * np.sin(places[:, 2] / 4.5)) > 0.6]
    _blades(canvas, places, height_m, colour)


def _foreground(canvas: _Canvas) -> None:
    """A few blades right in front of the camera: at night they glare and hide what is behind them."""
    rng = canvas.rng
    count = 46 if canvas.habitat.grass[0] > 1000 else 14
    metres = np.sort(rng.uniform(1.25, 1.8, count))[::-1]
    clumps = rng.uniform(0, WIDTH, 4)
    x = clumps[rng.integers(0, 4, count)] + rng.normal(0, 60, count)
    places = np.stack([x, canvas.row(metres), metres], axis=1)
    _blades(canvas, places, canvas.habitat.grass[2] * 1.1, canvas.habitat.grass[1])


def _blades(canvas: _Canvas, places: npt.NDArray[np.float64], height_m: float, colour: Colour) -> None:
    """Grass: thin bent triangles from the ground up; the tips are lighter and move most."""
    rng = canvas.rng
    count = len(places)
    x, y, metres = places.T
    tall = height_m * rng.uniform(0.35, 1.15, count) * FOCAL_PX / metres
    bend = rng.normal(0.08, 0.3, count) * tall
    wide = np.maximum(0.0028 * FOCAL_PX / metres, 0.55)
    corners = np.stack(
        [
            np.stack([x - wide, y], 1),
            np.stack([x - wide * 0.7 + 0.35 * bend, y - 0.6 * tall], 1),
            np.stack([x + bend, y - tall], 1),
            np.stack([x + wide * 0.7 + 0.35 * bend, y - 0.6 * tall], 1),
            np.stack([x + wide, y], 1),
        ],
        axis=1,
    )
    ids = _stamp(corners)
    rows, columns = np.nonzero(ids)
    which = ids[rows, columns] - 1
    nearer = metres[which] < canvas.standing[rows, columns]
    rows, columns, which = rows[nearer], columns[nearer], which[nearer]
    tip = np.clip((y[which] - rows) / tall[which], 0, 1)
    tone = rng.uniform(0.6, 1.15, count)[which] * (0.45 + 0.65 * tip)
    dry = np.asarray(colour, dtype=np.float32) + rng.normal(0, 9, (count, 3))[which]
    canvas.colour[rows, columns] = dry * tone[:, None]
    canvas.standing[rows, columns] = metres[which]
    canvas.distance[rows, columns] = metres[which]
    canvas.sway[rows, columns] = tip
