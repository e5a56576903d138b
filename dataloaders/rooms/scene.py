"""What a rendered room is: boxes placed without collision, a camera with a view, a light.

World coordinates are metres: x and y along the walls with 0 in the middle of the floor, z up from the floor.
"""

import math
from typing import NamedTuple

import numpy as np

from dataloaders.rooms import furniture, hangings
from dataloaders.rooms.pieces import CLASS_NAMES, Box, Piece, PieceMaker, Range, white
from dataloaders.rooms.rays import Boxes, Camera, cast


class Light(NamedTuple):
    """A lamp under the ceiling, light from everywhere, and a weaker direction from which more of it comes."""

    position: np.ndarray  # [3] float32, metres
    colour: np.ndarray  # [3] float32, RGB strength at 1 m
    ambient: np.ndarray  # [3] float32, RGB
    sky: np.ndarray  # [3] float32, unit vector towards the brighter side


class Room(NamedTuple):
    """All that a picture needs."""

    boxes: Boxes
    camera: Camera
    light: Light


class RoomKind(NamedTuple):
    """Sizes of a kind of room, and what stands in it: makers with the expected number of each."""

    width: Range  # metres
    length: Range  # metres
    along_walls: dict[PieceMaker, float]
    free: dict[PieceMaker, float]  # anywhere on the floor
    hanging: dict[PieceMaker, float]  # on the walls


_HANGING = {hangings.picture: 2.5, hangings.window: 0.7, hangings.notices: 0.5}
_LOOSE = {furniture.cartons: 0.5, furniture.bag: 0.4, furniture.clothes: 0.3}

ROOM_KINDS: dict[str, RoomKind] = {
    "bedroom": RoomKind(
        (3.2, 4.6),
        (3.4, 5.2),
        {
            furniture.bed: 1.0,
            furniture.dresser: 1.0,
            furniture.night_stand: 1.7,
            furniture.wardrobe: 0.8,
            furniture.desk: 0.6,
            furniture.bookshelf: 0.7,
            furniture.armchair: 0.4,
        },
        {
            furniture.rug: 0.7,
            furniture.chair: 0.7,
            furniture.clothes: 0.7,
            furniture.floor_lamp: 0.3,
            **_LOOSE,
        },
        {hangings.mirror: 0.7, furniture.wall_shelves: 0.4, hangings.hanging_clothes: 0.5, **_HANGING},
    ),
    "living room": RoomKind(
        (3.8, 5.8),
        (4.0, 6.5),
        {
            furniture.sofa_and_table: 1.0,
            furniture.television_stand: 0.9,
            furniture.sofa: 0.9,
            furniture.bookshelf: 1.2,
            furniture.fireplace: 0.4,
            furniture.low_cabinet: 0.8,
            furniture.floor_lamp: 1.0,
            furniture.column: 0.4,
        },
        {furniture.armchair: 1.2, furniture.dining_table: 0.5, furniture.chair: 0.4, **_LOOSE},
        {furniture.wall_shelves: 0.6, hangings.mirror: 0.3, **_HANGING},
    ),
    "kitchen": RoomKind(
        (3.0, 4.4),
        (3.4, 5.2),
        {
            furniture.kitchen_row: 1.6,
            furniture.refrigerator: 1.0,
            furniture.low_cabinet: 0.5,
            furniture.wardrobe: 0.3,
        },
        {furniture.dining_table: 1.0, furniture.rug: 0.4, furniture.chair: 0.8, **_LOOSE},
        {hangings.towel: 0.7, furniture.wall_shelves: 0.5, **_HANGING},
    ),
    "study": RoomKind(
        (3.2, 5.0),
        (3.4, 5.6),
        {
            furniture.desk: 1.9,
            furniture.bookshelf: 1.5,
            furniture.low_cabinet: 1.0,
            furniture.sofa: 0.3,
            furniture.column: 0.4,
        },
        {furniture.chair: 1.0, furniture.floor_lamp: 0.4, furniture.dining_table: 0.3, **_LOOSE},
        {hangings.whiteboard: 0.8, furniture.wall_shelves: 0.9, **_HANGING},
    ),
    "bathroom": RoomKind(
        (2.6, 3.4),
        (3.0, 4.0),
        {
            furniture.bathtub: 1.0,
            furniture.vanity: 1.2,
            furniture.toilet: 1.0,
            furniture.low_cabinet: 0.5,
        },
        {furniture.rug: 0.9, furniture.clothes: 0.5, furniture.bag: 0.2},
        {hangings.towel: 1.6, hangings.mirror: 0.4, hangings.window: 0.6, hangings.picture: 0.6},
    ),
    "classroom": RoomKind(
        (5.0, 6.5),
        (5.5, 7.5),
        {furniture.bookshelf: 1.2, furniture.desk: 0.7, furniture.low_cabinet: 1.0},
        {furniture.school_desk: 7.0, furniture.dining_table: 0.7, **_LOOSE},
        {hangings.whiteboard: 1.5, furniture.wall_shelves: 0.5, **_HANGING},
    ),
}


# ------------------------------------------------------------------------------------------ placing

Block = tuple[np.ndarray, np.ndarray]  # lowest and highest corner [3] of an upright box of space, metres


class FloorPlan:
    """What stands where in a room, and the space that is taken."""

    def __init__(self, width: float, length: float) -> None:
        self.sides = (width, length)
        self.taken: list[Block] = []
        self.placed: list[tuple[Piece, np.ndarray, float]] = []  # piece, its origin [3], its yaw in radians

    def put(self, piece: Piece, x: float, y: float, yaw: float) -> None:
        """Place the piece without asking whether it fits."""
        self.placed.append((piece, np.array([x, y, 0.0]), yaw))

    def put_at_wall(self, rng: np.random.Generator, piece: Piece, keep_free: float = 0.0, tries: int = 20) -> None:
        """Stand or hang the piece with its back at some wall; where it finds no room, leave it out.

        Args:
            keep_free: how far before the wall the space must be and stay free, metres, if the piece itself is
                less deep.
        """
        low, high = extent(piece)
        margin = np.array([0.04, 0.0, 0.0])
        needed = low - margin, np.maximum(high + margin, (0.0, keep_free, 0.0))
        for _ in range(tries):
            wall = int(rng.integers(4))
            span, distance = self.sides[wall % 2] / 2, self.sides[1 - wall % 2] / 2
            slack = 2 * span - (high[0] - low[0]) - 0.06
            along, yaw = -span - low[0] + 0.03 + slack * rng.random(), wall * math.pi / 2
            x, y = rotate(along, -distance, yaw)
            if slack > 0 and self.claim(moved_block(needed, x, y, yaw)):
                self.put(piece, x, y, yaw)
                return

    def put_freely(self, rng: np.random.Generator, piece: Piece, tries: int = 20) -> None:
        """Stand the piece somewhere on the floor, turned at will; where it finds no room, leave it out."""
        low, high = extent(piece)
        margin = np.array([0.05, 0.05, 0.0])
        needed = low - margin, high + margin
        for _ in range(tries):
            yaw = rng.integers(4) * math.pi / 2 + rng.normal(0.0, 0.25)
            (x0, y0, _), (x1, y1, _) = moved_block(needed, 0.0, 0.0, yaw)
            slack = np.array(self.sides) - (x1 - x0, y1 - y0) - 0.1
            x, y = slack * (rng.random(2) - 0.5) - ((x0 + x1) / 2, (y0 + y1) / 2)
            if slack.min() > 0 and self.claim(moved_block(needed, x, y, yaw)):
                self.put(piece, x, y, yaw)
                return

    def claim(self, block: Block) -> bool:
        """Take the space if all of it is free; whether it was."""
        low, high = block
        if any((low < other_high).all() and (other_low < high).all() for other_low, other_high in self.taken):
            return False
        self.taken.append(block)
        return True


def extent(piece: Piece) -> Block:
    """The space around a piece in its own coordinates."""
    edges = np.array([(box.x, box.y, box.z) for box in piece])
    return edges[:, :, 0].min(axis=0), edges[:, :, 1].max(axis=0)


def rotate(x: float, y: float, yaw: float) -> tuple[float, float]:
    """The point turned about the origin by an angle in radians."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return cos * x - sin * y, sin * x + cos * y


def moved_block(block: Block, x: float, y: float, yaw: float) -> Block:
    """The upright space around a block that was turned about the vertical, then shifted."""
    (x0, y0, z0), (x1, y1, z1) = block
    xs, ys = np.transpose([rotate(*corner, yaw) for corner in ((x0, y0), (x0, y1), (x1, y0), (x1, y1))])
    return np.array([x + xs.min(), y + ys.min(), z0]), np.array([x + xs.max(), y + ys.max(), z1])


# --------------------------------------------------------------------------------------------- rooms


def furnish(rng: np.random.Generator) -> Room:
    """Draw a room: its kind, size, furniture, light, and a camera that sees much of it."""
    kind = list(ROOM_KINDS.values())[rng.integers(len(ROOM_KINDS))]
    width, length, ceiling = rng.uniform(*kind.width), rng.uniform(*kind.length), rng.uniform(2.35, 2.9)
    plan = FloorPlan(width, length)
    plan.put(shell(rng, width, length, ceiling), 0.0, 0.0, yaw=0.0)
    lamp_at = (rng.uniform(-0.2, 0.2) * width, rng.uniform(-0.2, 0.2) * length)
    plan.put(hangings.ceiling_lamp(rng, ceiling), *lamp_at, yaw=0.0)
    plan.put_at_wall(rng, hangings.door(rng), keep_free=0.7)
    plan.put_at_wall(rng, hangings.window(rng))
    for piece in draw_pieces(rng, kind.along_walls):
        plan.put_at_wall(rng, piece)
    for piece in draw_pieces(rng, kind.hanging):
        plan.put_at_wall(rng, piece)
    for piece in draw_pieces(rng, kind.free):
        plan.put_freely(rng, piece)
    boxes = collect(plan)
    return Room(boxes, find_view(rng, boxes, width, length), draw_light(rng, (*lamp_at, ceiling - 0.2)))


def draw_pieces(rng: np.random.Generator, expected: dict[PieceMaker, float]) -> list[Piece]:
    """Each maker's pieces, as many as expected on average; what comes first in the list finds room."""
    return [make(rng) for make, mean in expected.items() for _ in range(int(mean + rng.random()))]


def shell(rng: np.random.Generator, width: float, length: float, ceiling: float) -> Piece:
    """Floor, ceiling, four walls and their skirting boards. They are thick, so that no ray slips through."""
    x, y, out = (-width / 2, width / 2), (-length / 2, length / 2), 0.5
    wall, skirting = hangings.wall_material(rng), white(rng)
    wide, long, high = (x[0] - out, x[1] + out), (y[0] - out, y[1] + out), (-out, ceiling + out)
    board = (0.0, rng.uniform(0.06, 0.12))
    return [
        Box("floor", hangings.floor_material(rng), wide, long, (-out, 0.0)),
        Box("ceiling", hangings.ceiling_material(rng), wide, long, (ceiling, ceiling + out)),
        Box("wall", wall, (x[0] - out, x[0]), long, high),
        Box("wall", wall, (x[1], x[1] + out), long, high),
        Box("wall", wall, wide, (y[0] - out, y[0]), high),
        Box("wall", wall, wide, (y[1], y[1] + out), high),
        Box("wall", skirting, (x[0], x[0] + 0.012), y, board),
        Box("wall", skirting, (x[1] - 0.012, x[1]), y, board),
        Box("wall", skirting, x, (y[0], y[0] + 0.012), board),
        Box("wall", skirting, x, (y[1] - 0.012, y[1]), board),
    ]


def collect(plan: FloorPlan) -> Boxes:
    """The boxes of all placed pieces in world coordinates."""
    boxes = [box for piece, _, _ in plan.placed for box in piece]
    piece_of_box = np.repeat(np.arange(len(plan.placed)), [len(piece) for piece, _, _ in plan.placed])
    edges = np.array([(box.x, box.y, box.z) for box in boxes])
    label = np.array([CLASS_NAMES.index(box.label) for box in boxes])
    origin = np.array([origin for _, origin, _ in plan.placed])[piece_of_box]
    axes = np.array([yaw_axes(yaw) for _, _, yaw in plan.placed])[piece_of_box]
    materials = [box.material for box in boxes]
    return Boxes(
        centre=(origin + np.einsum("bij,bi->bj", axes, edges.mean(axis=2))).astype(np.float32),
        half=((edges[:, :, 1] - edges[:, :, 0]) / 2).astype(np.float32),
        axes=axes.astype(np.float32),
        label=label.astype(np.uint8),
        thing=(piece_of_box * len(CLASS_NAMES) + label).astype(np.uint16),
        pattern=np.array([material.pattern for material in materials]),
        colours=np.array([(material.colour, material.second_colour) for material in materials], np.float32),
        period=np.array([material.period for material in materials], np.float32),
        glow=np.array([material.glow for material in materials], np.float32),
    )


def yaw_axes(yaw: float) -> np.ndarray:
    """Rows: the x, y and z axis of something turned by the angle (radians) about the vertical."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def draw_light(rng: np.random.Generator, lamp: tuple[float, float, float]) -> Light:
    """A lamp of some strength and warmth at the place, and light from around and from one side."""
    warmth = np.array([1.0, rng.uniform(0.88, 1.0), rng.uniform(0.72, 1.02)])
    sky = rng.normal(size=3) * (1.0, 1.0, 0.3)
    return Light(
        position=np.array(lamp, np.float32),
        colour=(rng.uniform(1.5, 4.0) * warmth).astype(np.float32),
        ambient=np.array([1.0, 1.0, rng.uniform(0.95, 1.1)], np.float32) * np.float32(rng.uniform(0.3, 0.5)),
        sky=(sky / np.linalg.norm(sky)).astype(np.float32),
    )


# ------------------------------------------------------------------------------------------- cameras


def find_view(rng: np.random.Generator, boxes: Boxes, width: float, length: float, tries: int = 40) -> Camera:
    """Of some cameras the one that sees the most things, among those that stand clear of everything."""
    cameras = [draw_camera(rng, width, length) for _ in range(tries)]
    cameras = [camera for camera in cameras if clearance(boxes, camera) > 0.25] or cameras
    cameras.sort(key=lambda camera: things_in_view(boxes, camera), reverse=True)
    return next((camera for camera in cameras if has_free_view(boxes, camera)), cameras[0])


def draw_camera(rng: np.random.Generator, width: float, length: float) -> Camera:
    """Height 1.2-1.8 m, 55-65 degrees wide, a little roll, aimed at some place in the room."""
    position = np.array([*(rng.uniform(-0.5, 0.5, 2) * (width - 0.8, length - 0.8)), rng.uniform(1.2, 1.8)])
    target = np.array([*(rng.uniform(-0.4, 0.4, 2) * (width, length)), 0.0])
    yaw = math.atan2(position[0] - target[0], target[1] - position[1])
    pitch, roll = math.radians(rng.uniform(-28.0, 2.0)), math.radians(rng.normal(0.0, 1.5))
    right, forward, up = yaw_axes(yaw)
    forward, up = (
        math.cos(pitch) * forward + math.sin(pitch) * up,
        math.cos(pitch) * up - math.sin(pitch) * forward,
    )
    right, up = math.cos(roll) * right + math.sin(roll) * up, math.cos(roll) * up - math.sin(roll) * right
    half_width = math.tan(math.radians(rng.uniform(55.0, 65.0)) / 2)
    return Camera(position.astype(np.float32), np.stack([right, forward, up]).astype(np.float32), half_width)


def clearance(boxes: Boxes, camera: Camera) -> float:
    """Distance from the camera to the nearest box, metres; negative inside of one."""
    beyond = np.abs(np.einsum("bij,bj->bi", boxes.axes, camera.position - boxes.centre)) - boxes.half
    return float(beyond.max(axis=1).min())


def things_in_view(boxes: Boxes, camera: Camera) -> int:
    """How many things have a box in the picture 1 to 6 m away, hidden ones included."""
    right, forward, up = ((boxes.centre - camera.position) @ camera.axes.T).T
    reach = camera.half_width * forward
    inside = (np.abs(right) < reach) & (np.abs(up) < 0.75 * reach) & (forward > 1.0) & (forward < 6.0)
    return len(np.unique(boxes.thing[inside]))


def has_free_view(boxes: Boxes, camera: Camera) -> bool:
    """Whether nothing fills the picture: a coarse look finds most of it beyond 1.5 m, little within 0.8 m."""
    depth = cast(boxes, camera, 12, 16).depth
    return float(np.median(depth)) > 1.5 and float(np.mean(depth < 0.8)) < 0.2
