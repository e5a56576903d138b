"""What belongs to the walls of a rendered room: doors, windows, pictures; and the room's own surfaces.

Pieces as in `dataloaders.rooms.pieces`: y = 0 is the wall, z counts from the floor.
"""

import numpy as np

from dataloaders.rooms.pieces import (
    WHITES,
    WOODS,
    Box,
    Material,
    Piece,
    Range,
    either,
    fabric,
    pick_colour,
    shade,
    spans,
    vivid,
    white,
    wood,
)

PAINTS = (
    (0.90, 0.88, 0.82),
    (0.85, 0.80, 0.68),
    (0.72, 0.80, 0.84),
    (0.76, 0.82, 0.70),
    (0.86, 0.74, 0.66),
    (0.8, 0.8, 0.8),
)


def wall_material(rng: np.random.Generator) -> Material:
    """Paint, wallpaper or bricks."""
    colour = pick_colour(rng, PAINTS, 0.03)
    pattern, period = (("plain", 1.0), ("plain", 1.0), ("plain", 1.0), ("stripes", 0.3), ("bricks", 0.4))[
        rng.integers(5)
    ]
    return Material(pattern, colour, shade(colour, 0.88), period)


def floor_material(rng: np.random.Generator) -> Material:
    """Planks, tiles or carpet."""
    kind = rng.integers(3)
    if kind == 0:
        colour = pick_colour(rng, WOODS)
        return Material("planks", colour, shade(colour, 0.65), rng.uniform(0.1, 0.18))
    if kind == 1:
        colour = pick_colour(rng, (*WHITES, (0.62, 0.42, 0.32), (0.55, 0.55, 0.52)))
        return Material("tiles", colour, shade(colour, 0.55), rng.uniform(0.25, 0.45))
    colour = pick_colour(rng, ((0.55, 0.48, 0.40), (0.42, 0.44, 0.48), (0.62, 0.55, 0.46), (0.38, 0.28, 0.26)))
    return Material("carpet", colour, shade(colour, 0.7), 0.12)


def ceiling_material(rng: np.random.Generator) -> Material:
    """Plaster or panels."""
    colour = pick_colour(rng, WHITES, 0.02)
    pattern = ("plain", "plain", "tiles")[rng.integers(3)]
    return Material(pattern, colour, shade(colour, 0.85), 0.6)


def ceiling_lamp(rng: np.random.Generator, ceiling: float) -> Piece:
    """A lamp right under the ceiling."""
    half, drop = rng.uniform(0.12, 0.3), rng.uniform(0.08, 0.16)
    bulb = Material("plain", (0.98, 0.96, 0.88), (0.95, 0.9, 0.8), 0.3, 0.9)
    return [Box("lamp", bulb, (-half, half), (-half, half), (ceiling - drop, ceiling))]


def door(rng: np.random.Generator) -> Piece:
    """A closed door with panels, a knob and a frame."""
    half, top, leaf = rng.uniform(0.38, 0.46), rng.uniform(1.98, 2.08), either(rng, wood, white)
    frame, panel = white(rng), leaf._replace(colour=shade(leaf.colour, 0.85))
    knob = Material("plain", (0.75, 0.65, 0.35), (0.6, 0.5, 0.3))
    return [
        Box("door", leaf, (-half, half), (0.0, 0.025), (0.0, top)),
        *[Box("door", frame, x, (0.0, 0.05), (0.0, top)) for x in ((-half - 0.08, -half), (half, half + 0.08))],
        Box("door", frame, (-half - 0.08, half + 0.08), (0.0, 0.05), (top, top + 0.08)),
        *[
            Box("door", panel, x, (0.025, 0.035), z)
            for x in spans((-half, half), 2, 0.12)
            for z in spans((0.1, top), 2 + int(rng.integers(2)), 0.14)
        ],
        Box("door", knob, (half - 0.1, half - 0.05), (0.025, 0.09), (0.98, 1.03)),
    ]


def window_frame(rng: np.random.Generator, x: Range, z: Range) -> Piece:
    """A bright pane behind a frame with a cross."""
    pane = Material("sky", (0.72, 0.84, 0.97), (0.95, 0.97, 1.0), rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.7))
    frame, middle_x, middle_z = white(rng), sum(x) / 2, sum(z) / 2
    sides = [(x[0] - 0.05, x[0]), (middle_x - 0.02, middle_x + 0.02), (x[1], x[1] + 0.05)]
    return [
        Box("window", pane, x, (0.0, 0.015), z),
        *[Box("window", frame, side, (0.0, 0.045), z) for side in sides],
        Box("window", frame, (x[0], x[1]), (0.015, 0.04), (middle_z - 0.02, middle_z + 0.02)),
        Box("window", frame, (x[0] - 0.05, x[1] + 0.05), (0.0, 0.045), (z[1], z[1] + 0.05)),
        Box("window", frame, (x[0] - 0.08, x[1] + 0.08), (0.0, 0.12), (z[0] - 0.04, z[0])),
    ]


def window(rng: np.random.Generator) -> Piece:
    """A window, bare, with blinds or with curtains."""
    half, low, high = rng.uniform(0.4, 0.9), rng.uniform(0.85, 1.1), rng.uniform(1.9, 2.15)
    piece, dressing = window_frame(rng, (-half, half), (low, high)), rng.integers(4)
    if dressing == 0:
        slats = Material("slats", pick_colour(rng, WHITES), (0.45, 0.45, 0.46), 0.05)
        piece.append(Box("blinds", slats, (-half, half), (0.05, 0.08), (rng.uniform(low, 0.5 * (low + high)), high)))
    elif dressing >= 2:
        cloth = fabric(rng)._replace(pattern="folds", period=rng.uniform(0.1, 0.16))
        hem, wide = rng.uniform(0.1, 0.7), rng.uniform(0.25, 0.4)
        piece += [
            Box("curtain", cloth, x, (0.13, 0.19), (hem, high + 0.12))
            for x in ((-half - 0.15, -half - 0.15 + wide), (half + 0.15 - wide, half + 0.15))
        ]
    return piece


def framed(rng: np.random.Generator, label: str, inside: Material, width: float, z: Range) -> Piece:
    """Something flat in a frame; `z` is its lower and upper edge."""
    border, half = either(rng, wood, vivid, white), width / 2
    return [
        Box(label, border, (-half, half), (0.0, 0.025), z),
        Box(label, inside, (-half + 0.04, half - 0.04), (0.025, 0.03), (z[0] + 0.04, z[1] - 0.04)),
    ]


def picture(rng: np.random.Generator) -> Piece:
    """A picture in a frame."""
    low = rng.uniform(1.2, 1.5)
    canvas = Material("blots", vivid(rng).colour, vivid(rng).colour, rng.uniform(0.3, 0.8))
    return framed(rng, "picture", canvas, rng.uniform(0.3, 0.9), (low, low + rng.uniform(0.3, 0.7)))


def mirror(rng: np.random.Generator) -> Piece:
    """A mirror; it reflects nothing but brightness."""
    low, glass = rng.uniform(1.0, 1.2), Material("sky", (0.55, 0.62, 0.66), (0.72, 0.76, 0.78), 1.5, 0.1)
    return framed(rng, "mirror", glass, rng.uniform(0.4, 0.9), (low, low + rng.uniform(0.6, 0.9)))


def whiteboard(rng: np.random.Generator) -> Piece:
    """A whiteboard with lines written on it."""
    low = rng.uniform(0.9, 1.0)
    board = Material("writing", (0.95, 0.96, 0.97), (0.25, 0.3, 0.5), rng.uniform(0.12, 0.2))
    return framed(rng, "whiteboard", board, rng.uniform(1.4, 2.4), (low, low + rng.uniform(0.9, 1.1)))


def notices(rng: np.random.Generator) -> Piece:
    """A few sheets of paper pinned to the wall."""
    page = Material("writing", (0.95, 0.95, 0.92), (0.4, 0.4, 0.45), 0.03)
    piece = []
    for x in spans((-0.4, 0.4), int(rng.integers(1, 4)), 0.08):
        low = rng.uniform(1.2, 1.4)
        piece.append(Box("paper", page, (x[0], min(x[1], x[0] + 0.22)), (0.0, 0.008), (low, low + 0.29)))
    return piece


def towel(rng: np.random.Generator) -> Piece:
    """A towel on the wall."""
    half, low = rng.uniform(0.2, 0.3), rng.uniform(0.7, 0.9)
    return [Box("towel", fabric(rng), (-half, half), (0.0, 0.05), (low, low + 0.6))]


def hanging_clothes(rng: np.random.Generator) -> Piece:
    """Coats on a row of hooks."""
    piece = [Box("otherprop", wood(rng), (-0.45, 0.45), (0.0, 0.03), (1.65, 1.73))]
    for x in spans((-0.45, 0.45), 3, 0.06):
        if rng.random() < 0.8:
            piece.append(Box("clothes", fabric(rng), x, (0.03, 0.14), (rng.uniform(0.8, 1.1), 1.65)))
    return piece
