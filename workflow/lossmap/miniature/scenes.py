"""Scenes of real handwritten digits: what the miniature datasets show, and what is known about each picture.

The digits are the UCI ML "optical recognition of handwritten digits" test set (E. Alpaydin, C. Kaynak; CC BY 4.0), as
scikit-learn's `load_digits` ships it: 1,797 digits of 8x8 pixels. Every fifth is held out: no model of the zoo has
seen it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (60, 90, 230),
    "yellow": (230, 210, 40),
    "purple": (170, 70, 200),
    "orange": (240, 140, 30),
    "cyan": (40, 200, 210),
    "white": (240, 240, 240),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIZES = {"small": (0.27, 0.32), "large": (0.37, 0.45)}  # side of a digit, as a share of the canvas's shorter side
SHAPES = (
    (96, 96),
    (96, 96),
    (96, 96),
    (96, 96),
    (96, 96),
    (96, 96),
    (84, 112),
    (112, 84),
)  # (height, width), drawn from


@dataclass(frozen=True)
class Digit:
    """One digit of a scene.

    label: 0 to 9; colour: a key of COLOURS; cell: index into PLACES; size: "small" or "large";
    box: (x, y, width, height) in pixels of the canvas; source: index of the handwritten digit in `load_digits`.
    """

    label: int
    colour: str
    cell: int
    size: str
    box: tuple[int, int, int, int]
    source: int

    @property
    def number(self) -> str:
        """The digit as a word."""
        return NUMBERS[self.label]

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return PLACES[self.cell]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    image: (height, width, 3) uint8; digits: in the order of their cells; masks: (digits, height, width) bool, the
    pixels of each digit's ink that nothing covers.
    """

    image: np.ndarray
    digits: tuple[Digit, ...]
    masks: np.ndarray


@cache
def _handwritten() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target


def digit_pool(part: str, labels: tuple[int, ...] = tuple(range(10))) -> np.ndarray:
    """Indices of the handwritten digits of one part ("training" or "held-out") with one of these labels, ascending."""
    if part not in ("training", "held-out"):
        raise ValueError(f'part: "training" or "held-out", not {part!r}')
    _, target = _handwritten()
    index = np.arange(len(target))
    return index[((index % 5 == 0) == (part == "held-out")) & np.isin(target, labels)]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32: a dark colour with a gradient, and now and then faint lines or dots."""
    base = rng.integers(0, 60, 3)
    slope = rng.uniform(-20, 20, 2)
    ramp = slope[0] * np.linspace(-0.5, 0.5, height)[:, None] + slope[1] * np.linspace(-0.5, 0.5, width)[None]
    clutter = Image.new("L", (width, height))
    draw = ImageDraw.Draw(clutter)
    kind = rng.integers(4)
    if kind == 1:
        for _ in range(rng.integers(2, 7)):
            ends = rng.integers(0, (width, height, width, height)).tolist()
            draw.line(ends, fill=int(rng.integers(15, 50)), width=int(rng.integers(1, 3)))
    elif kind == 2:
        for _ in range(rng.integers(6, 25)):
            x, y, r = rng.integers(0, (width, height, 4)).tolist()
            draw.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(15, 50)))
    tint = rng.uniform(0.5, 1.0, 3).astype(np.float32)
    return base + ramp[..., None].astype(np.float32) + np.asarray(clutter, np.float32)[..., None] * tint


def draw_scene(
    rng: np.random.Generator,
    pool: np.ndarray,
    shape: tuple[int, int] | None = None,
    n_digits: int | None = None,
    colours: tuple[str, ...] = tuple(COLOURS),
) -> Scene:
    """A scene of one to four digits, at most one in each quarter, no two of one colour.

    rng: all that is drawn at random comes from it; pool: indices from `digit_pool`; shape: (height, width) in pixels,
    one of SHAPES if None; n_digits: 1 to 4, at random if None; colours: those to choose from, at least as many as
    there are digits. The digits stand in the central square of the canvas, so that a model that crops its input still
    sees them.
    """
    images, target = _handwritten()
    height, width = SHAPES[rng.integers(len(SHAPES))] if shape is None else shape
    count = int(rng.integers(1, 5)) if n_digits is None else n_digits
    canvas = _background(rng, height, width)
    side = min(height, width)
    left, top, half = (width - side) // 2, (height - side) // 2, side // 2
    inks = rng.permutation(len(colours))[:count]
    digits, masks = [], np.zeros((count, height, width), bool)
    for i, cell in enumerate(sorted(rng.permutation(4)[:count].tolist())):
        source, colour = int(rng.choice(pool)), colours[inks[i]]
        size = "small" if rng.random() < 0.5 else "large"
        edge = round(side * rng.uniform(*SIZES[size]))
        x = left + (cell % 2) * half + int(rng.integers(0, half - edge + 1))
        y = top + (cell // 2) * half + int(rng.integers(0, half - edge + 1))
        ink = Image.fromarray(images[source]).resize((edge, edge), Image.Resampling.BICUBIC)
        ink = np.clip(np.asarray(ink), 0, 1)
        area = canvas[y : y + edge, x : x + edge]
        alpha = (ink * rng.uniform(0.65, 1.0))[..., None]
        area[:] = area * (1 - alpha) + alpha * np.array(COLOURS[colour])
        visible = ink > 0.4
        if rng.random() < 0.18:  # a grey bar covers a part of it, unless that were more than a quarter of the ink
            thick = max(1, int(edge * rng.uniform(0.1, 0.25)))
            start = int(rng.integers(0, edge - thick + 1))
            bar = np.s_[start : start + thick, :] if rng.random() < 0.5 else np.s_[:, start : start + thick]
            if visible[bar].sum() <= 0.25 * visible.sum():
                area[bar] = rng.integers(90, 140)
                visible[bar] = False
        masks[i, y : y + edge, x : x + edge] = visible
        digits.append(Digit(int(target[source]), colour, cell, size, (x, y, edge, edge), source))
    canvas += rng.normal(0, rng.uniform(3, 9), canvas.shape)
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), tuple(digits), masks)


def miniature_images(n: int, seed: int = 0) -> list[Image.Image]:
    """Pictures to try things on: n scenes of held-out digits, which no model of the zoo has seen.

    The same seed, the same pictures; more of them begin with the same.
    """
    rng, pool = np.random.default_rng(seed), digit_pool("held-out")
    return [Image.fromarray(draw_scene(rng, pool).image) for _ in range(n)]
