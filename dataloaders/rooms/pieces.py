"""What things in a room are made of: boxes, materials, and the parts that pieces of furniture share.

A piece of furniture is a list of `Box`. Its own coordinates are metres: x along its width with 0 in the
middle, y from its back (0, the side that goes to a wall) to its front, z up from the floor (0). A piece
that hangs on a wall is the same with a z that starts higher.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door",
    "window", "bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain",
    "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refrigerator",
    "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
"""NYU v2's 40 classes (Gupta et al., CVPR 2013); a class's number, 0..39, is its place here."""

Range = tuple[float, float]
Colour = tuple[float, float, float]


class Material(NamedTuple):
    """What a surface looks like: a pattern that mixes two colours."""

    pattern: str  # a key of `view.PATTERNS`
    colour: Colour  # RGB reflectance, 0..1
    second_colour: Colour
    period: float = 0.5  # metres after which the pattern begins anew
    glow: float = 0.0  # light of its own, in units of reflectance


class Box(NamedTuple):
    """One box of a piece: its class, its material, and where it lies in the piece's coordinates (metres)."""

    label: str
    material: Material
    x: Range
    y: Range
    z: Range


Piece = list[Box]
PieceMaker = Callable[[np.random.Generator], Piece]


# ----------------------------------------------------------------------------------------- materials

WOODS = ((0.62, 0.43, 0.25), (0.45, 0.28, 0.15), (0.76, 0.58, 0.38), (0.33, 0.20, 0.12), (0.82, 0.68, 0.48))
WHITES = ((0.92, 0.91, 0.88), (0.86, 0.86, 0.84), (0.95, 0.95, 0.95))
FABRICS = (
    (0.55, 0.12, 0.12), (0.15, 0.22, 0.45), (0.20, 0.36, 0.22), (0.50, 0.46, 0.40), (0.72, 0.62, 0.45),
    (0.30, 0.17, 0.30), (0.22, 0.22, 0.24), (0.62, 0.32, 0.14), (0.24, 0.46, 0.52), (0.80, 0.76, 0.70),
)  # fmt: skip


def pick_colour(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float = 0.05) -> Colour:
    """One colour of the palette, moved a little."""
    colour = np.asarray(palette[rng.integers(len(palette))]) + rng.uniform(-spread, spread, 3)
    return tuple(np.clip(colour, 0.02, 0.98).tolist())


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter (> 1)."""
    return tuple(min(channel * factor, 1.0) for channel in colour)


def wood(rng: np.random.Generator) -> Material:
    """Wood with its grain."""
    colour = pick_colour(rng, WOODS)
    return Material("grain", colour, shade(colour, 0.78), rng.uniform(0.04, 0.09))


def white(rng: np.random.Generator) -> Material:
    """Paint or plastic, nearly white."""
    colour = pick_colour(rng, WHITES, 0.02)
    return Material("plain", colour, shade(colour, 0.9))


def fabric(rng: np.random.Generator) -> Material:
    """Cloth: woven, striped or chequered."""
    colour = pick_colour(rng, FABRICS)
    pattern = ("weave", "weave", "stripes", "checks")[rng.integers(4)]
    second_colour = shade(colour, 0.75) if pattern == "weave" else pick_colour(rng, FABRICS)
    return Material(pattern, colour, second_colour, rng.uniform(0.06, 0.2))


def vivid(rng: np.random.Generator) -> Material:
    """Smooth, of any colour."""
    colour = tuple(rng.uniform(0.05, 0.9, 3).tolist())
    return Material("plain", colour, shade(colour, 0.7))


def metal(rng: np.random.Generator) -> Material:
    """Brushed metal."""
    grey = rng.uniform(0.5, 0.8)
    return Material("brushed", (grey, grey, grey * 1.02), (grey * 0.85,) * 3, 0.02)


DARK = Material("plain", (0.05, 0.05, 0.06), (0.09, 0.09, 0.10))
CERAMIC = Material("plain", (0.95, 0.95, 0.94), (0.90, 0.90, 0.90))


def either(rng: np.random.Generator, *makers: Callable[[np.random.Generator], Material]) -> Material:
    """The material of one of the makers."""
    return makers[rng.integers(len(makers))](rng)


# ------------------------------------------------------------------------------------------- helpers


def moved(piece: Piece, x: float, y: float, quarter_turns: int = 0) -> Piece:
    """The piece turned by quarters around its origin (counter-clockwise from above), then shifted."""
    for _ in range(quarter_turns):
        piece = [box._replace(x=(-box.y[1], -box.y[0]), y=box.x) for box in piece]
    return [box._replace(x=(box.x[0] + x, box.x[1] + x), y=(box.y[0] + y, box.y[1] + y)) for box in piece]


def legs(label: str, material: Material, width: float, depth: float, top: float, thick: float) -> Piece:
    """Four legs under the corners of a top that lies at height `top`."""
    left, right = (-width / 2, -width / 2 + thick), (width / 2 - thick, width / 2)
    back, front = (0.0, thick), (depth - thick, depth)
    return [Box(label, material, x, y, (0.0, top)) for x in (left, right) for y in (back, front)]


def fronts(label: str, material: Material, x: Range, y: float, z: Range, columns: int, rows: int) -> Piece:
    """Drawer or door fronts with handles, on the face at depth `y`."""
    handle = Material("plain", (0.15, 0.14, 0.13), (0.2, 0.2, 0.2))
    piece = []
    for left, right in spans(x, columns, 0.02):
        for low, high in spans(z, rows, 0.02):
            middle, level = (left + right) / 2, low + 0.7 * (high - low)
            piece.append(Box(label, material, (left, right), (y, y + 0.015), (low, high)))
            piece.append(
                Box(
                    label,
                    handle,
                    (middle - 0.05, middle + 0.05),
                    (y + 0.015, y + 0.04),
                    (level, level + 0.015),
                )
            )
    return piece


def spans(whole: Range, count: int, gap: float) -> list[Range]:
    """The range cut into `count` equal ranges with a gap around each."""
    edges = np.linspace(whole[0] + gap / 2, whole[1] - gap / 2, count + 1).tolist()
    return [(low + gap / 2, high - gap / 2) for low, high in pairwise(edges)]


def spot(rng: np.random.Generator, within: Range, size: float) -> Range:
    """A range of the size (at most), somewhere within the other."""
    slack = max(within[1] - within[0] - size, 0.0)
    low = within[0] + slack * rng.random()
    return low, min(low + size, within[1])
