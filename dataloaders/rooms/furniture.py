"""The furniture of the rooms. `dataloaders.rooms.pieces` explains the coordinates of a piece."""

from itertools import pairwise

import numpy as np

from dataloaders.rooms.clutter import book_row, carton, clutter, table_lamp, vase
from dataloaders.rooms.pieces import (
    CERAMIC,
    DARK,
    WHITES,
    Box,
    Colour,
    Material,
    Piece,
    either,
    fabric,
    fronts,
    legs,
    metal,
    moved,
    pick_colour,
    shade,
    spans,
    spot,
    vivid,
    white,
    wood,
)

# ---------------------------------------------------------------------------------- against the walls


def bed(rng: np.random.Generator) -> Piece:
    """A bed with a headboard, a blanket and pillows."""
    width, length, top = rng.uniform(1.0, 1.9), rng.uniform(1.9, 2.1), rng.uniform(0.45, 0.6)
    frame, blanket, pillow, half = wood(rng), fabric(rng), either(rng, white, fabric), width / 2
    piece = [
        Box("bed", frame, (-half, half), (0.0, 0.06), (0.0, rng.uniform(0.85, 1.25))),
        Box("bed", frame, (-half, half), (0.06, length), (0.08, 0.25)),
        Box("bed", white(rng), (-half + 0.02, half - 0.02), (0.06, length - 0.02), (0.25, top)),
        Box("bed", blanket, (-half - 0.01, half + 0.01), (rng.uniform(0.5, 0.8), length), (0.26, top + 0.03)),
    ]
    for x in spans((-half, half), 1 if width < 1.3 else 2, 0.12):
        piece.append(Box("pillow", pillow, x, (0.1, 0.45), (top, top + 0.13)))
    return piece


def sofa(rng: np.random.Generator) -> Piece:
    """A sofa for one to three, with pillows."""
    width, depth, seat = rng.uniform(1.0, 2.2), rng.uniform(0.8, 0.95), rng.uniform(0.4, 0.46)
    cover, half = fabric(rng), width / 2
    cushion = cover._replace(colour=shade(cover.colour, 1.15))
    piece = [
        Box("sofa", cover, (-half, half), (0.0, 0.22), (0.0, rng.uniform(0.75, 0.9))),
        Box("sofa", cover, (-half + 0.18, half - 0.18), (0.22, depth - 0.03), (0.05, seat - 0.12)),
    ]
    for x in ((-half, -half + 0.18), (half - 0.18, half)):
        piece.append(Box("sofa", cover, x, (0.22, depth), (0.0, seat + 0.18)))
    for x in spans((-half + 0.18, half - 0.18), max(1, round((width - 0.36) / 0.65)), 0.015):
        piece.append(Box("sofa", cushion, x, (0.22, depth), (seat - 0.12, seat)))
        if rng.random() < 0.5:
            piece.append(Box("pillow", fabric(rng), spot(rng, x, 0.4), (0.22, 0.36), (seat, seat + 0.36)))
    return piece


def sofa_and_table(rng: np.random.Generator) -> Piece:
    """A sofa with a low table on a rug before it."""
    seat, rug, half = sofa(rng), fabric(rng), rng.uniform(0.9, 1.3)
    table = moved(table_of_height(rng, "table", rng.uniform(0.35, 0.48), 1.0, 0.5), 0.0, 1.25)
    return [*seat, *table, Box("floor mat", rug, (-half, half), (0.6, rng.uniform(1.9, 2.3)), (0.0, 0.012))]


def table_of_height(rng: np.random.Generator, label: str, top: float, width: float, depth: float) -> Piece:
    """A board on four legs with things on it."""
    board, half = either(rng, wood, wood, white), width / 2
    return [
        Box(label, board, (-half, half), (0.0, depth), (top - 0.04, top)),
        *legs(label, either(rng, lambda _: board, metal), width, depth, top - 0.04, 0.05),
        *clutter(rng, (-half, half), (0.05, depth - 0.05), top, 3),
    ]


def desk(rng: np.random.Generator) -> Piece:
    """A desk with drawers, a monitor, things, and a chair before it."""
    width, depth, top = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.75), rng.uniform(0.72, 0.78)
    board, half = either(rng, wood, wood, white), width / 2
    drawers = (half - 0.4, half)
    monitor = spot(rng, (-0.4, 0.3), 0.52)
    foot = sum(monitor) / 2
    return [
        Box("desk", board, (-half, half), (0.0, depth), (top - 0.035, top)),
        Box("desk", board, (-half, -half + 0.04), (0.02, depth - 0.02), (0.0, top - 0.035)),
        Box("desk", board, drawers, (0.02, depth - 0.04), (0.02, top - 0.035)),
        *fronts("desk", board, drawers, depth - 0.04, (0.05, top - 0.06), 1, 3),
        Box("television", DARK, (foot - 0.1, foot + 0.1), (0.12, 0.28), (top, top + 0.015)),
        Box("television", DARK, (foot - 0.03, foot + 0.03), (0.17, 0.2), (top + 0.015, top + 0.12)),
        Box("television", DARK, monitor, (0.2, 0.24), (top + 0.1, top + 0.44)),
        *clutter(rng, (-half, half), (0.32, depth - 0.02), top, 4),
        *moved(chair(rng), rng.uniform(-0.3, -0.1), depth + rng.uniform(0.35, 0.6), 2),
    ]


def storage(rng: np.random.Generator, label: str, size: Colour, columns: int, rows: int) -> Piece:
    """A closed body on the floor with drawer or door fronts; `size` is width, depth, height."""
    (width, depth, height), body = size, either(rng, wood, wood, white)
    half = width / 2
    return [
        Box(label, body, (-half, half), (0.0, depth), (0.0, height)),
        *fronts(
            label,
            body._replace(colour=shade(body.colour, 1.1)),
            (-half, half),
            depth,
            (0.06, height),
            columns,
            rows,
        ),
    ]


def dresser(rng: np.random.Generator) -> Piece:
    """A chest of drawers, with a television or things on it."""
    size = (rng.uniform(0.9, 1.4), rng.uniform(0.42, 0.5), rng.uniform(0.75, 1.0))
    half, top = size[0] / 2, size[2]
    if rng.random() < 0.5:
        on_top = [Box("television", DARK, spot(rng, (-half, half), 0.8), (0.15, 0.2), (top, top + 0.5))]
    else:
        on_top = clutter(rng, (-half, half), (0.1, size[1] - 0.05), top, 4)
    return [*storage(rng, "dresser", size, 2, int(rng.integers(3, 5))), *on_top]


def night_stand(rng: np.random.Generator) -> Piece:
    """A small chest with a lamp on it."""
    size = (rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.45), rng.uniform(0.45, 0.6))
    half = size[0] / 2
    on_top = table_lamp(rng, (-half, half), (0.03, size[1] - 0.05), size[2])
    return [*storage(rng, "night stand", size, 1, 2), *on_top]


def wardrobe(rng: np.random.Generator) -> Piece:
    """A tall cabinet with two doors."""
    return storage(rng, "cabinet", (rng.uniform(0.8, 1.6), rng.uniform(0.5, 0.6), rng.uniform(1.7, 2.1)), 2, 1)


def low_cabinet(rng: np.random.Generator) -> Piece:
    """A low cabinet with things on it."""
    size = (rng.uniform(0.7, 1.4), rng.uniform(0.4, 0.5), rng.uniform(0.6, 0.9))
    half = size[0] / 2
    return [
        *storage(rng, "cabinet", size, 2, 1),
        *clutter(rng, (-half, half), (0.05, size[1] - 0.05), size[2], 4),
    ]


def television_stand(rng: np.random.Generator) -> Piece:
    """A low body with a large television."""
    size = (rng.uniform(1.2, 1.7), rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.55))
    screen, top = rng.uniform(0.45, 0.6), size[2]
    return [
        *storage(rng, "otherfurniture", size, 3, 1),
        Box("television", DARK, (-0.2, 0.2), (0.12, 0.32), (top, top + 0.03)),
        Box("television", DARK, (-screen, screen), (0.18, 0.24), (top + 0.03, top + 0.03 + 1.15 * screen)),
    ]


def open_shelves(rng: np.random.Generator, label: str, width: float, bottom: float, top: float, levels: int) -> Piece:
    """Sides, back and boards with books and things on them."""
    board, half, depth = either(rng, wood, wood, white), width / 2, rng.uniform(0.25, 0.36)
    edges = np.linspace(bottom, top - 0.025, levels + 1).tolist()
    piece = [Box(label, board, (-half + 0.03, half - 0.03), (0.0, 0.02), (bottom, top))]
    piece += [Box(label, board, x, (0.0, depth), (bottom, top)) for x in ((-half, -half + 0.03), (half - 0.03, half))]
    piece += [Box(label, board, (-half + 0.03, half - 0.03), (0.02, depth - 0.005), (z, z + 0.025)) for z in edges]
    for low, high in pairwise(edges):
        inside = (-half + 0.05, half - 0.05), (0.03, depth - 0.04), (low + 0.025, high - 0.02)
        if rng.random() < 0.8:
            piece += book_row(rng, *inside)
        else:
            piece += vase(rng, *inside[:2], inside[2][0])
    return piece


def bookshelf(rng: np.random.Generator) -> Piece:
    """Shelves that stand on the floor."""
    return open_shelves(rng, "bookshelf", rng.uniform(0.7, 1.3), 0.0, rng.uniform(1.3, 2.1), int(rng.integers(4, 6)))


def wall_shelves(rng: np.random.Generator) -> Piece:
    """Shelves that hang on the wall."""
    low = rng.uniform(1.2, 1.4)
    return open_shelves(rng, "shelves", rng.uniform(0.7, 1.2), low, low + rng.uniform(0.4, 0.7), 2)


def kitchen_row(rng: np.random.Generator) -> Piece:
    """Base cabinets, a counter with a sink, and cabinets above."""
    half, top, upper = rng.uniform(1.0, 1.5), 0.9, rng.uniform(1.4, 1.5)
    body = either(rng, wood, white)
    stone = Material(
        "speckles", pick_colour(rng, ((0.75, 0.72, 0.68), (0.3, 0.3, 0.32), (0.6, 0.5, 0.4))), (0.5,) * 3, 0.2
    )
    splash = Material("tiles", pick_colour(rng, WHITES), (0.6, 0.6, 0.58), 0.12)
    sink = spot(rng, (-half + 0.2, half - 0.2), 0.6)
    tap = sum(sink) / 2
    return [
        Box("cabinet", body, (-half, half), (0.0, 0.56), (0.0, top - 0.04)),
        *fronts("cabinet", body, (-half, half), 0.56, (0.1, top - 0.06), round(half / 0.25), 1),
        Box("counter", stone, (-half, half), (0.0, 0.62), (top - 0.04, top)),
        Box("wall", splash, (-half, half), (0.0, 0.01), (top, upper)),
        Box("sink", metal(rng), sink, (0.12, 0.52), (top, top + 0.012)),
        Box("sink", DARK, (sink[0] + 0.04, sink[1] - 0.04), (0.16, 0.48), (top + 0.012, top + 0.014)),
        Box("sink", metal(rng), (tap - 0.02, tap + 0.02), (0.07, 0.11), (top, top + 0.3)),
        Box("sink", metal(rng), (tap - 0.02, tap + 0.02), (0.11, 0.26), (top + 0.26, top + 0.3)),
        *clutter(rng, (-half, sink[0]), (0.1, 0.5), top, 3),
        *clutter(rng, (sink[1], half), (0.1, 0.5), top, 3),
        Box("cabinet", body, (-half, half), (0.0, 0.32), (upper, upper + 0.7)),
        *fronts("cabinet", body, (-half, half), 0.32, (upper, upper + 0.7), round(half / 0.25), 1),
    ]


def refrigerator(rng: np.random.Generator) -> Piece:
    """A refrigerator with two doors."""
    width, depth, height = rng.uniform(0.65, 0.9), rng.uniform(0.65, 0.75), rng.uniform(1.65, 1.85)
    body, half, seam = either(rng, white, metal), width / 2, rng.uniform(0.9, 1.2)
    handle, place = (
        Material("plain", (0.35, 0.35, 0.36), (0.4, 0.4, 0.4)),
        ((-half + 0.05, -half + 0.08), (depth + 0.06, depth + 0.1)),
    )
    return [
        Box("refrigerator", body, (-half, half), (0.0, depth), (0.0, height)),
        Box("refrigerator", body, (-half, half), (depth + 0.01, depth + 0.06), (0.06, seam - 0.01)),
        Box("refrigerator", body, (-half, half), (depth + 0.01, depth + 0.06), (seam, height)),
        *[Box("refrigerator", handle, *place, z) for z in ((seam - 0.4, seam - 0.05), (seam + 0.05, seam + 0.35))],
    ]


def vanity(rng: np.random.Generator) -> Piece:
    """A wash basin in a cabinet, a mirror over it, and a towel beside it."""
    half, glass = rng.uniform(0.4, 0.7), Material("sky", (0.55, 0.62, 0.66), (0.72, 0.76, 0.78), 1.5, 0.1)
    return [
        *storage(rng, "cabinet", (2 * half, 0.5, 0.8), 2, 1),
        Box("counter", white(rng), (-half - 0.01, half + 0.01), (0.0, 0.54), (0.8, 0.83)),
        Box("sink", CERAMIC, (-0.25, 0.25), (0.1, 0.48), (0.83, 0.9)),
        Box("sink", metal(rng), (-0.02, 0.02), (0.04, 0.08), (0.83, 1.05)),
        Box("mirror", glass, (-half + 0.05, half - 0.05), (0.0, 0.02), (1.1, 1.1 + rng.uniform(0.6, 0.85))),
        Box("towel", fabric(rng), (half + 0.06, half + 0.45), (0.0, 0.06), (0.75, 1.35)),
    ]


def toilet(rng: np.random.Generator) -> Piece:
    """A toilet with its tank."""
    return [
        Box("toilet", CERAMIC, (-0.22, 0.22), (0.0, 0.2), (0.35, 0.8)),
        Box("toilet", CERAMIC, (-0.12, 0.12), (0.1, 0.55), (0.0, 0.36)),
        Box("toilet", CERAMIC, (-0.19, 0.19), (0.2, 0.68), (0.36, 0.43)),
    ]


def bathtub(rng: np.random.Generator) -> Piece:
    """A bathtub, open above, with a shower curtain."""
    half, deep, rim = rng.uniform(0.75, 0.85), rng.uniform(0.7, 0.8), rng.uniform(0.5, 0.58)
    cloth = fabric(rng)._replace(pattern="folds", period=0.14)
    return [
        Box("bathtub", CERAMIC, (-half, half), (0.0, 0.07), (0.0, rim)),
        Box("bathtub", CERAMIC, (-half, half), (deep - 0.07, deep), (0.0, rim)),
        Box("bathtub", CERAMIC, (-half, -half + 0.07), (0.07, deep - 0.07), (0.0, rim)),
        Box("bathtub", CERAMIC, (half - 0.07, half), (0.07, deep - 0.07), (0.0, rim)),
        Box("bathtub", CERAMIC, (-half + 0.07, half - 0.07), (0.07, deep - 0.07), (0.0, 0.15)),
        Box(
            "shower curtain",
            cloth,
            (-half, -half + rng.uniform(0.4, 0.9)),
            (deep + 0.01, deep + 0.05),
            (0.2, 2.0),
        ),
    ]


def fireplace(rng: np.random.Generator) -> Piece:
    """A brick fireplace with things on the mantel."""
    brick = Material("bricks", pick_colour(rng, ((0.55, 0.25, 0.18), (0.5, 0.45, 0.4))), (0.75, 0.72, 0.68), 0.22)
    return [
        Box("otherstructure", brick, (-0.7, 0.7), (0.0, 0.35), (0.0, 1.15)),
        Box("otherstructure", DARK, (-0.4, 0.4), (0.35, 0.355), (0.0, 0.7)),
        Box("otherstructure", wood(rng), (-0.8, 0.8), (0.0, 0.42), (1.15, 1.21)),
        *clutter(rng, (-0.75, 0.75), (0.05, 0.35), 1.21, 5),
    ]


def column(rng: np.random.Generator) -> Piece:
    """A column or chimney from floor to ceiling."""
    half = rng.uniform(0.12, 0.25)
    return [Box("otherstructure", white(rng), (-half, half), (0.0, 2 * half), (0.0, 3.0))]


# ------------------------------------------------------------------------------------- free-standing


def chair(rng: np.random.Generator) -> Piece:
    """A chair on four legs, with a back."""
    width, seat, top = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48), rng.uniform(0.8, 1.0)
    frame, cover = either(rng, wood, metal), either(rng, wood, fabric, vivid)
    half = width / 2
    posts = [(-half, -half + 0.04), (half - 0.04, half)]
    return [
        *legs("chair", frame, width, width, seat - 0.05, 0.04),
        Box("chair", cover, (-half, half), (0.0, width), (seat - 0.05, seat)),
        *[Box("chair", frame, x, (0.0, 0.035), (seat, top)) for x in posts],
        Box(
            "chair",
            cover,
            (-half + 0.04, half - 0.04),
            (0.005, 0.03),
            (seat + rng.uniform(0.08, 0.2), top - 0.01),
        ),
    ]


def armchair(rng: np.random.Generator) -> Piece:
    """An upholstered chair."""
    cover, half = fabric(rng), rng.uniform(0.36, 0.45)
    return [
        Box("chair", cover, (-half, half), (0.0, 0.18), (0.0, rng.uniform(0.8, 1.0))),
        Box("chair", cover, (-half + 0.14, half - 0.14), (0.18, 0.78), (0.06, 0.44)),
        Box("chair", cover, (-half, -half + 0.14), (0.18, 0.8), (0.0, 0.6)),
        Box("chair", cover, (half - 0.14, half), (0.18, 0.8), (0.0, 0.6)),
    ]


def dining_table(rng: np.random.Generator) -> Piece:
    """A table with two chairs on each long side."""
    width, depth = rng.uniform(1.3, 1.8), rng.uniform(0.75, 0.95)
    piece = table_of_height(rng, "table", rng.uniform(0.72, 0.77), width, depth)
    seat = chair(rng)  # one set: the chairs of a table are alike
    for x in (-width / 4, width / 4):
        piece += moved(seat, x + rng.uniform(-0.03, 0.03), -rng.uniform(0.25, 0.5))
        piece += moved(seat, x + rng.uniform(-0.03, 0.03), depth + rng.uniform(0.25, 0.5), 2)
    return piece


def school_desk(rng: np.random.Generator) -> Piece:
    """A small desk with a chair before it."""
    table = table_of_height(rng, "desk", 0.72, rng.uniform(0.8, 1.2), 0.5)
    return [*table, *moved(chair(rng), rng.uniform(-0.05, 0.05), rng.uniform(0.75, 0.95), 2)]


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A lamp on a tall pole."""
    pole, top = metal(rng), rng.uniform(1.3, 1.6)
    lampshade = Material("plain", (0.95, 0.88, 0.7), (0.9, 0.75, 0.5), 0.3, 0.6)
    return [
        Box("lamp", pole, (-0.14, 0.14), (0.04, 0.32), (0.0, 0.03)),
        Box("lamp", pole, (-0.015, 0.015), (0.165, 0.195), (0.03, top)),
        Box("lamp", lampshade, (-0.18, 0.18), (0.0, 0.36), (top, top + 0.28)),
    ]


def cartons(rng: np.random.Generator) -> Piece:
    """One or two cardboard boxes on the floor."""
    low = carton(rng, (-0.25, 0.25), (0.0, 0.5), 0.0)
    high = carton(rng, (-0.2, 0.2), (0.05, 0.45), low[0].z[1]) if rng.random() < 0.4 else []
    return [*low, *high]


def bag(rng: np.random.Generator) -> Piece:
    """A bag with a pocket."""
    cloth = fabric(rng)
    return [
        Box("bag", cloth, (-0.18, 0.18), (0.0, 0.2), (0.0, 0.34)),
        Box("bag", cloth._replace(colour=shade(cloth.colour, 0.7)), (-0.13, 0.13), (0.2, 0.26), (0.03, 0.22)),
    ]


def clothes(rng: np.random.Generator) -> Piece:
    """A heap of clothes on the floor."""
    piece, top = [], 0.0
    for _ in range(rng.integers(2, 5)):
        thick = rng.uniform(0.04, 0.1)
        piece.append(
            Box(
                "clothes",
                fabric(rng),
                spot(rng, (-0.4, 0.4), 0.5),
                spot(rng, (0.0, 0.5), 0.35),
                (top, top + thick),
            )
        )
        top += thick
    return piece


def rug(rng: np.random.Generator) -> Piece:
    """A rug."""
    half = rng.uniform(0.4, 0.8)
    return [Box("floor mat", fabric(rng), (-half, half), (0.0, rng.uniform(0.6, 1.2)), (0.0, 0.012))]
