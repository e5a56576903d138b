"""A single piece of furniture in an empty room, and a camera that looks at it: pictures to be classified."""

import math

import numpy as np

from dataloaders.rooms.pieces import PieceMaker
from dataloaders.rooms.rays import Camera, cast, surface_normals
from dataloaders.rooms.scene import FloorPlan, Room, collect, draw_light, extent, shell
from dataloaders.rooms.view import shade

ROOM_SIDE, CEILING = 9.0, 2.8  # metres


def showroom(rng: np.random.Generator, make: PieceMaker) -> Room:
    """Draw a room with the maker's piece in the middle of a wall, seen obliquely from before it."""
    piece = make(rng)
    plan = FloorPlan(ROOM_SIDE, ROOM_SIDE)
    plan.put(shell(rng, ROOM_SIDE, ROOM_SIDE, CEILING), 0.0, 0.0, yaw=0.0)
    back = -ROOM_SIDE / 2 + rng.uniform(0.0, 0.3)
    plan.put(piece, 0.0, back, yaw=0.0)
    low, high = (corner + np.array([0.0, back, 0.0]) for corner in extent(piece))
    lamp = (rng.uniform(-1.5, 1.5), back + rng.uniform(1.5, 3.0), CEILING - 0.1)
    return Room(collect(plan), camera_towards(rng, low, high), draw_light(rng, lamp))


def camera_towards(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> Camera:
    """A camera up to 50 degrees beside the front, whose picture is a little wider than the space low..high [3]."""
    radius = np.linalg.norm(high - low) / 2
    side, height = math.radians(rng.uniform(-50.0, 50.0)), math.radians(rng.uniform(8.0, 30.0))
    away = np.array([math.sin(side) * math.cos(height), math.cos(side) * math.cos(height), math.sin(height)])
    half_width = math.tan(math.radians(rng.uniform(45.0, 55.0)) / 2)
    distance = rng.uniform(0.95, 1.25) * radius / half_width
    target = (low + high) / 2 + rng.uniform(-0.12, 0.12, 3) * radius
    position = target + distance * away
    position[2] = np.clip(position[2], 0.2, CEILING - 0.3)
    return look_at(position, target, half_width)


def look_at(position: np.ndarray, target: np.ndarray, half_width: float) -> Camera:
    """A level camera at the position whose optical axis meets the target."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    axes = np.stack([right, forward, np.cross(right, forward)])
    return Camera(position.astype(np.float32), axes.astype(np.float32), half_width)


def photograph(room: Room, height: int, width: int) -> np.ndarray:
    """The image, [H, W, 3] uint8 RGB; its shorter side spans the camera's field of view."""
    camera = room.camera._replace(half_width=room.camera.half_width * max(1.0, width / height))
    hits = cast(room.boxes, camera, height, width)
    return shade(room._replace(camera=camera), hits, surface_normals(room.boxes, hits, camera))
