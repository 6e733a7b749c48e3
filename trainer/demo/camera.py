"""The drawn camera: puts light on a landscape, animals into it, and a banner, noise and EXIF on the photo.

By day colours under sun, cloud or mist; by night a grey picture under infrared light that fades with distance, as
camera traps take them. What this makes is a drawing and says so in its EXIF; it never reads a photo.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from trainer.demo.animals import Pose, Species, Sprite, draw_animal
from trainer.demo.landscape import CAMERA_HEIGHT_M, FOCAL_PX, HEIGHT, SKY_M, WIDTH, Box, Landscape
from trainer.demo.textures import Bytes, Field, patch, sample, smoothstep

BANNER = 56
"""Rows of the burnt-in info strip at the bottom."""
MAKE, MODEL = "Drawn", "Fieldmark scenes"
JPEG_QUALITY = 85

_EXIF_IFD = 0x8769
_TAGS = {0x010E: "A drawing, not a photograph", 0x010F: MAKE, 0x0110: MODEL, 0x0131: "fieldmark demo"}
_NEW_MOON = datetime(2000, 1, 6, 18, 14)
_MOON_DAYS = 29.530588


@dataclass(frozen=True)
class Animal:
    """One animal in a photo: where it stands (pixels from the left, metres away) and how; ``seed`` is its fur."""

    species: Species
    x: float
    distance_m: float
    pose: Pose
    seed: int

    @property
    def px_per_m(self) -> float:
        return FOCAL_PX / self.distance_m


@dataclass(frozen=True)
class Light:
    """A station's view at one moment, without animals.

    Attributes:
        night: infrared; then everything is grey.
        picture: uint8 (960, 1280, 3) by day, (960, 1280) by night.
        field: float32 (960, 1280): brightness by day, strength of the infrared beam by night.
        tint: colour of the daylight.
        haze: colour of the mist by day, and how far one sees, metres.
        grain: standard deviation of the sensor's noise, 0 to 255.
    """

    night: bool
    picture: Bytes
    field: Field
    tint: tuple[float, float, float]
    haze: tuple[tuple[float, float, float], float]
    grain: float


def light_day(landscape: Landscape, hour: float, seed: int) -> Light:
    """Daylight at an hour of the day (0 to 24), with the weather that the seed gives."""
    rng = np.random.default_rng([seed, 1])
    height = max(0.05, math.sin(math.pi * (hour - 5.5) / 15.5))
    warm = (1 - height) * float(rng.uniform(0.5, 1.1))
    sunny = rng.random() < 0.55
    exposure = float(rng.uniform(0.82, 1.1)) * (0.62 + 0.4 * min(1.0, 2.2 * height))
    tint = (exposure * (1 + 0.14 * warm), exposure, exposure * (1 - 0.2 * warm + 0.06 * (not sunny)))
    field = _dapple(landscape, rng) if sunny else np.full((HEIGHT, WIDTH), 0.95, np.float32)
    sight = float(rng.choice([22.0, 70.0, 160.0], p=[0.12, 0.38, 0.5]))
    sky = (158.0, 186.0, 216.0) if sunny else (214.0, 217.0, 220.0)
    haze = tuple(min(255.0, c * t) for c, t in zip(sky, tint, strict=True))
    light = Light(False, landscape.albedo, field, tint, ((haze[0], haze[1], haze[2]), sight), 2.5 + 5 * (1 - height))
    picture = _shade_day(landscape.albedo.astype(np.float32), light, landscape.distance, field)
    return Light(False, np.clip(picture, 0, 255).astype(np.uint8), field, tint, light.haze, light.grain)


def _dapple(landscape: Landscape, rng: np.random.Generator) -> Field:
    """Sun that falls through leaves: patches on the ground in perspective, and upright ones above it."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    columns = np.arange(WIDTH, dtype=np.float32)[None, :]
    far = 12.0  # beyond, the patches would become finer than a pixel
    metres = np.minimum(FOCAL_PX * CAMERA_HEIGHT_M / np.maximum(rows - landscape.horizon, 1), far)
    x = (columns - WIDTH / 2) * metres / FOCAL_PX * 110 + rng.uniform(0, 1000)
    y = np.where(metres < far, metres * 110, far * 110 + landscape.ground_row(far) - rows) + rng.uniform(0, 1000)
    leaves = sample("patches", x, y)
    gap = float(rng.uniform(-0.9, 0.6))
    return np.asarray(0.7 + 0.5 * smoothstep(leaves, gap, gap + 0.8), dtype=np.float32)


def _shade_day(colour: Field, light: Light, metres: npt.ArrayLike, field: Field) -> Field:
    """Light a coloured surface (h, w, 3) at a distance in metres (scalar or (h, w))."""
    mist, sight = light.haze
    clear = np.exp(-np.asarray(metres, dtype=np.float32) / sight)
    lit = colour * np.asarray(light.tint, dtype=np.float32)
    lit *= (field * clear)[..., None]
    lit += np.expand_dims(1 - clear, -1) * np.asarray(mist, dtype=np.float32)
    return np.asarray(lit, dtype=np.float32)


def light_night(landscape: Landscape, seed: int) -> Light:
    """The camera's own infrared light: bright and burnt out near by, black far away, darker towards the corners."""
    rng = np.random.default_rng([seed, 2])
    x = (np.arange(WIDTH, dtype=np.float32)[None, :] - WIDTH * rng.uniform(0.46, 0.54)) / (0.62 * WIDTH)
    y = (np.arange(HEIGHT, dtype=np.float32)[:, None] - HEIGHT * rng.uniform(0.5, 0.6)) / (0.7 * HEIGHT)
    field = np.asarray(float(rng.uniform(8.0, 14.0)) * np.exp(-(x * x) - y * y), dtype=np.float32)
    grey = _infrared(landscape.albedo)
    grey[landscape.distance >= SKY_M] = 0
    picture = _shade_night(grey, landscape.distance, field)
    level = float(rng.uniform(4.0, 9.0))
    return Light(True, np.clip(picture, 0, 255).astype(np.uint8), field, (1, 1, 1), ((0, 0, 0), 1.0), level)


def _infrared(colour: npt.NDArray[np.uint8] | Field) -> Field:
    """How bright a colour is in near infrared, where leaves shine and bark does not: float32 (h, w), 0 to 255."""
    red, green, blue = (colour[..., i].astype(np.float32) for i in range(3))
    leafy = np.maximum(green - np.maximum(red, blue), 0)
    return np.asarray(np.minimum(0.42 * red + 0.36 * green + 0.22 * blue + 1.3 * leafy, 255), dtype=np.float32)


def _shade_night(grey: Field, metres: npt.ArrayLike, field: Field) -> Field:
    """Light a grey surface (h, w) by the beam: inverse square, then the camera's tone curve."""
    light = grey * (1 / 255) * field / (np.asarray(metres, dtype=np.float32) ** 2 + 1.5)
    return np.asarray(250 * np.sqrt(light / (0.95 + 0.55 * light)), dtype=np.float32)


def visible_share(landscape: Landscape, animal: Animal) -> float:
    """Which part of the animal's outline box is in the picture and not hidden, 0 to 1, roughly."""
    kind, scale = animal.species, animal.px_per_m
    across = abs(math.cos(math.radians(animal.pose.turn)))
    half = 0.5 * scale * (kind.length * across + kind.width * (1 - across))
    base = landscape.ground_row(animal.distance_m)
    top, bottom = int(max(base - kind.height * scale, 0)), int(min(base, HEIGHT - BANNER))
    left, right = int(max(animal.x - half, 0)), int(min(animal.x + half, WIDTH))
    if top >= bottom or left >= right:
        return 0.0
    seen = landscape.standing[top:bottom:4, left:right:4] > animal.distance_m
    return float(seen.sum() * 16 / (2 * half * kind.height * scale))


def expose(landscape: Landscape, light: Light, animals: Sequence[Animal], seed: int) -> Image.Image:
    """Take one photo, 1280 x 960 RGB, still without banner. The seed moves the grass and gives the noise."""
    rng = np.random.default_rng([seed, 3])
    picture, standing = _in_the_wind(landscape, light, rng)
    for animal in sorted(animals, key=lambda a: -a.distance_m):
        _paste(picture, standing, landscape, light, animal)
    if light.night and rng.random() < 0.15:
        picture = _moth(picture, rng)
    _add_noise(picture, light.grain, rng)
    image = Image.fromarray(picture)
    return image.convert("RGB") if light.night else image


def _in_the_wind(landscape: Landscape, light: Light, rng: np.random.Generator) -> tuple[Bytes, Field]:
    """Bend what can sway: each such pixel takes its value from some pixels to the side."""
    picture, standing = light.picture.copy(), landscape.standing.copy()
    moving = landscape.moving
    wave = np.sin(landscape.moving_phase + np.float32(rng.uniform(0, 6.3))) + np.float32(0.3)
    shift = np.minimum(landscape.moving_reach * np.float32(rng.gamma(2.0, 0.004)), 9) * wave
    source = np.clip(moving + shift.astype(np.int32), 0, standing.size - 1)
    shape = (standing.size,) if light.night else (standing.size, 3)
    picture.reshape(shape)[moving] = light.picture.reshape(shape)[source]
    standing.reshape(-1)[moving] = landscape.standing.reshape(-1)[source]
    return picture, standing


def _paste(picture: Bytes, standing: Field, landscape: Landscape, light: Light, animal: Animal) -> None:
    sprite = draw_animal(animal.species, animal.pose, animal.px_per_m, animal.seed)
    if light.night and animal.pose.pace > 0.6:
        sprite = _smear(sprite, animal)
    base = landscape.ground_row(animal.distance_m)
    left, top = round(animal.x - sprite.foot[0]), round(base - sprite.foot[1])
    height, width = sprite.alpha.shape
    window = Box.around(left, top, left + width - 1, top + height - 1)
    if window.empty:
        return
    _shadow(picture, standing, light, animal, base)
    box = window.slices
    inner = (
        slice(window.top - top, window.bottom - top),
        slice(window.left - left, window.right - left),
    )
    alpha = sprite.alpha[inner] * (standing[box] > animal.distance_m)
    lit = _lit(sprite, inner, light, animal, light.field[box])
    share = alpha if light.night else alpha[..., None]
    under = picture[box].astype(np.float32)
    picture[box] = np.clip(under + (lit - under) * share, 0, 255).astype(np.uint8)
    if light.night and math.sin(math.radians(animal.pose.turn)) > -0.35:
        _eyeshine(picture, standing, sprite, (left, top), animal)


def _lit(sprite: Sprite, inner: tuple[slice, slice], light: Light, animal: Animal, field: Field) -> Field:
    colour, relief = sprite.colour[inner], sprite.relief[inner]
    if light.night:
        grey = np.minimum(_infrared(colour) * animal.species.infrared, 255)
        return _shade_night(grey * (0.95 + 0.1 * relief), animal.distance_m, field)
    return _shade_day(colour * (0.82 + 0.36 * relief)[..., None], light, animal.distance_m, field)


def _smear(sprite: Sprite, animal: Animal) -> Sprite:
    """Motion blur: at night the shutter is open for long."""
    size = int(np.clip(0.018 * animal.px_per_m * animal.pose.pace, 1, 6))
    kernel = 2 * size + 1

    def along(values: Field) -> Field:
        padded = np.pad(values, ((0, 0), (size, size)) + ((0, 0),) * (values.ndim - 2), mode="edge")
        total = np.cumsum(padded, axis=1, dtype=np.float32)
        first = np.concatenate([np.zeros_like(total[:, :1]), total[:, :-kernel]], axis=1)
        return np.asarray((total[:, kernel - 1 :] - first) / kernel, dtype=np.float32)

    return Sprite(along(sprite.colour), along(sprite.alpha), sprite.relief, sprite.foot, sprite.eyes)


def _shadow(picture: Bytes, standing: Field, light: Light, animal: Animal, base: float) -> None:
    """Darken the ground under the animal."""
    kind, scale = animal.species, animal.px_per_m
    turn = math.radians(animal.pose.turn)
    wide = scale * (0.62 * kind.length * abs(math.cos(turn)) + 0.55 * kind.width)
    flat = scale * (0.09 + 0.1 * kind.length * abs(math.sin(turn)))
    window = Box.around(animal.x - 1.5 * wide, base - 2 * flat, animal.x + 1.5 * wide, base + 2 * flat)
    box = window.slices
    x, y = (window.x() - animal.x) / wide, (window.y() - base) / flat
    dark = (0.3 if light.night else 0.5) * np.exp(-1.6 * (x**4 + y * y))
    dark = dark * (standing[box] > animal.distance_m)
    keep = 1 - dark if light.night else (1 - dark)[..., None]
    picture[box] = (picture[box] * keep).astype(np.uint8)


def _eyeshine(picture: Bytes, standing: Field, sprite: Sprite, corner: tuple[int, int], animal: Animal) -> None:
    """Eyes that look towards the camera throw its light back."""
    radius = 0.010 * animal.px_per_m + 1.0
    for ex, ey in sprite.eyes:
        x, y, reach = corner[0] + ex, corner[1] + ey, int(4 * radius)
        window = Box.around(x - reach, y - reach, x + reach, y + reach)
        box = window.slices
        if (standing[box] < animal.distance_m).any():  # an eye behind a blade of grass does not shine
            continue
        r2 = ((window.x() - x) ** 2 + (window.y() - y) ** 2) / radius**2
        glow = 235 * np.exp(-(r2**2)) + 45 * np.exp(-r2 / 5)
        picture[box] = np.clip(picture[box] + glow, 0, 255).astype(np.uint8)


def _moth(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """An insect right in front of the lens: a bright, blurred streak."""
    page = Image.new("L", (WIDTH // 4, HEIGHT // 4))
    x, y = rng.uniform(0, WIDTH / 4), rng.uniform(0, HEIGHT / 5)
    angle, length = rng.uniform(0, 6.3), rng.uniform(8, 40)
    end = (x + length * math.cos(angle), y + length * math.sin(angle))
    ImageDraw.Draw(page).line((x, y, *end), fill=int(rng.integers(120, 230)), width=int(rng.integers(2, 6)))
    streak = np.asarray(page.filter(ImageFilter.GaussianBlur(1.6)).resize((WIDTH, HEIGHT)), np.int16)
    return np.minimum(picture + streak, 255).astype(np.uint8)


def _add_noise(picture: Bytes, level: float, rng: np.random.Generator) -> None:
    """Sensor noise, in place; the same for all colours, as after a camera's own smoothing."""
    grain = patch("sand", rng, (HEIGHT, WIDTH))
    steps = np.asarray(grain * level, dtype=np.int16)
    if picture.ndim == 3:
        steps = steps[..., None]
    np.clip(picture + steps, 0, 255, out=picture, casting="unsafe")


def moon_phase(moment: datetime) -> float:
    """Age of the moon as a share of its month: 0 new, 0.5 full."""
    return ((moment - _NEW_MOON).total_seconds() / 86400 / _MOON_DAYS) % 1.0


def add_banner(image: Image.Image, moment: datetime, celsius: int, station: str) -> None:
    """Burn the info strip into the bottom of a photo, in place."""
    pen = ImageDraw.Draw(image)
    top = HEIGHT - BANNER
    pen.rectangle((0, top, WIDTH, HEIGHT), fill=(8, 8, 8))
    font = ImageFont.load_default(30)
    middle, white = top + BANNER // 2, (236, 236, 236)
    pen.text((18, middle), "DRAWN", fill=(240, 196, 60), font=font, anchor="lm")
    _draw_moon(pen, (176, middle), 15, moon_phase(moment))
    pen.text((210, middle), f"{celsius}°C  {round(celsius * 1.8 + 32)}°F", fill=white, font=font, anchor="lm")
    pen.text((WIDTH // 2 + 40, middle), f"{moment:%Y-%m-%d  %H:%M:%S}", fill=white, font=font, anchor="mm")
    pen.text((WIDTH - 18, middle), station, fill=white, font=font, anchor="rm")


def _draw_moon(pen: ImageDraw.ImageDraw, centre: tuple[int, int], radius: int, phase: float) -> None:
    """A disc, lit from the right while waxing and from the left while waning (northern hemisphere)."""
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(70, 70, 70))
    for dy in range(-radius, radius + 1):
        half = math.sqrt(radius * radius - dy * dy)
        edge = half * math.cos(2 * math.pi * phase)
        left, right = (edge, half) if phase < 0.5 else (-half, -edge)
        if right - left >= 1:
            pen.line((x + left, y + dy, x + right, y + dy), fill=(250, 246, 214))


def to_jpeg(image: Image.Image, moment: datetime) -> bytes:
    """Encode with the EXIF of a camera trap: make, model, time without an offset, and a word that it is drawn."""
    exif = Image.Exif()
    for tag, value in _TAGS.items():
        exif[tag] = value
    stamp = moment.strftime("%Y:%m:%d %H:%M:%S")
    exif[0x0132] = stamp
    exif.get_ifd(_EXIF_IFD).update({0x9003: stamp, 0x9004: stamp})
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, exif=exif)
    return buffer.getvalue()
