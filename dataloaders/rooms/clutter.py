"""Small things that lie and stand on the furniture."""

import numpy as np

from dataloaders.rooms.pieces import (
    Box,
    Material,
    Piece,
    Range,
    metal,
    pick_colour,
    spans,
    spot,
    vivid,
)


def book_row(rng: np.random.Generator, x: Range, y: Range, z: Range) -> Piece:
    """Upright books that fill a part of the range, in groups of one height."""
    piece, left = [], x[0]
    while left < x[1] - 0.08 and rng.random() < 0.9:
        right = min(left + rng.uniform(0.08, 0.35), x[1])
        height, front = z[0] + rng.uniform(0.6, 0.95) * (z[1] - z[0]), y[1] - rng.uniform(0.0, 0.06)
        spines = Material("spines", vivid(rng).colour, vivid(rng).colour, rng.uniform(0.02, 0.05))
        piece.append(Box("books", spines, (left, right), (y[0], front), (z[0], height)))
        left = right + (rng.uniform(0.02, 0.2) if rng.random() < 0.3 else 0.0)
    return piece


def clutter(rng: np.random.Generator, x: Range, y: Range, top: float, count: int) -> Piece:
    """Small things side by side on a surface at height `top`."""
    makers = (book_pile, book_pile, sheet, sheet, carton, vase, vase, vase, table_lamp)
    piece = []
    for cell in spans(x, count, 0.06):
        if rng.random() < 0.75 and cell[1] - cell[0] > 0.1:
            piece += makers[rng.integers(len(makers))](rng, cell, y, top)
    return piece


def book_pile(rng: np.random.Generator, x: Range, y: Range, top: float) -> Piece:
    """Up to four books that lie on each other."""
    piece, place = [], (spot(rng, x, 0.24), spot(rng, y, 0.18))
    for _ in range(rng.integers(1, 5)):
        thick = rng.uniform(0.02, 0.05)
        cover = vivid(rng)
        piece.append(Box("books", cover, spot(rng, place[0], 0.22), spot(rng, place[1], 0.16), (top, top + thick)))
        top += thick
    return piece


def sheet(rng: np.random.Generator, x: Range, y: Range, top: float) -> Piece:
    """A written sheet of paper."""
    page = Material("writing", (0.96, 0.96, 0.94), (0.45, 0.45, 0.5), 0.025)
    return [Box("paper", page, spot(rng, x, 0.21), spot(rng, y, 0.3), (top, top + 0.004))]


def carton(rng: np.random.Generator, x: Range, y: Range, top: float) -> Piece:
    """A cardboard box."""
    brown = Material("plain", pick_colour(rng, ((0.66, 0.50, 0.33), (0.72, 0.58, 0.42))), (0.55, 0.40, 0.26))
    width, depth, height = rng.uniform(0.12, 0.35, 3)
    return [Box("box", brown, spot(rng, x, width), spot(rng, y, depth), (top, top + height))]


def vase(rng: np.random.Generator, x: Range, y: Range, top: float) -> Piece:
    """A vase, a cup, a bottle."""
    size, height = rng.uniform(0.06, 0.14), rng.uniform(0.08, 0.3)
    return [Box("otherprop", vivid(rng), spot(rng, x, size), spot(rng, y, size), (top, top + height))]


def table_lamp(rng: np.random.Generator, x: Range, y: Range, top: float) -> Piece:
    """A foot and a shade that glows."""
    x, y = spot(rng, x, 0.26), spot(rng, y, 0.26)
    middle_x, middle_y = sum(x) / 2, sum(y) / 2
    pole = [(middle - 0.02, middle + 0.02) for middle in (middle_x, middle_y)]
    lampshade = Material(
        "plain", pick_colour(rng, ((0.95, 0.85, 0.62), (0.93, 0.90, 0.82))), (0.9, 0.75, 0.5), 0.3, 0.6
    )
    return [
        Box("lamp", metal(rng), x=pole[0], y=pole[1], z=(top, top + 0.25)),
        Box("lamp", lampshade, x, y, (top + 0.25, top + rng.uniform(0.42, 0.52))),
    ]
