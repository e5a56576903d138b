"""Rays against boxes: what a camera sees of a room that is nothing but boxes.

World coordinates are metres, z up. Camera coordinates are x right, y forward (the optical axis), z up.
"""

from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """All boxes of a room, one row each."""

    centre: np.ndarray  # [B, 3] float32, metres
    half: np.ndarray  # [B, 3] float32, half of the size along the box's own axes, metres
    axes: np.ndarray  # [B, 3, 3] float32, rows are the box's own axes in the world
    label: np.ndarray  # [B] uint8, class 0..39
    thing: np.ndarray  # [B] uint16, equal for the boxes that a person would label as one object
    pattern: np.ndarray  # [B] names of patterns
    colours: np.ndarray  # [B, 2, 3] float32, the two RGB reflectances that the pattern mixes
    period: np.ndarray  # [B] float32, metres
    glow: np.ndarray  # [B] float32


class Camera(NamedTuple):
    """A pinhole camera with square pixels."""

    position: np.ndarray  # [3] float32, metres
    axes: np.ndarray  # [3, 3] float32, rows right, forward, up in the world
    half_width: float  # tangent of half the horizontal field of view


class Hits(NamedTuple):
    """What the ray of each pixel meets first."""

    depth: np.ndarray  # [H, W] float32, metres along the optical axis, infinite where nothing is met
    box: np.ndarray  # [H, W] int16, row of `Boxes`
    axis: np.ndarray  # [H, W] uint8, 0, 1 or 2: the box's axis that is normal to the face


def pixel_slopes(camera: Camera, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How far a ray goes right [W] and up [H] for each metre forward, at the pixels' centres."""
    right = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * (2 / width)
    up = (height / 2 - 0.5 - np.arange(height, dtype=np.float32)) * (2 / width)
    return right * np.float32(camera.half_width), up * np.float32(camera.half_width)


def cast(boxes: Boxes, camera: Camera, height: int, width: int) -> Hits:
    """Intersect all rays with all boxes, nearest hit wins.

    A box is tried only within the rectangle of the picture that it can cover, with all rays there at once.
    A camera inside of a box does not see this box.
    """
    right, up = pixel_slopes(camera, height, width)
    hits = Hits(
        depth=np.full((height, width), np.inf, np.float32),
        box=np.zeros((height, width), np.int16),
        axis=np.zeros((height, width), np.uint8),
    )
    origins = np.einsum("bij,bj->bi", boxes.axes, camera.position - boxes.centre)
    directions = boxes.axes @ camera.axes.T  # [B, 3, 3]: right, forward, up -> the box's axes
    for box, (top, bottom, left, end) in enumerate(screen_rectangles(boxes, camera, height, width).tolist()):
        if top >= bottom or left >= end:
            continue
        window = slice(top, bottom), slice(left, end)
        near, far, axis = slab_test(origins[box], directions[box], boxes.half[box], right[left:end], up[top:bottom])
        closer = (near < far) & (near > 0) & (near < hits.depth[window])
        np.copyto(hits.depth[window], near, where=closer)
        np.copyto(hits.axis[window], axis, where=closer)
        hits.box[window][closer] = box
    return hits


def screen_rectangles(boxes: Boxes, camera: Camera, height: int, width: int) -> np.ndarray:
    """Top, bottom, left, right of the pixels that each box may cover: [B, 4] int; empty for hidden boxes."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    corners = boxes.centre[:, None] + np.einsum("ci,bi,bij->bcj", signs, boxes.half, boxes.axes)
    right, forward, up = np.moveaxis((corners - camera.position) @ camera.axes.T, -1, 0)  # [B, 8] each
    reach_right, reach_up = camera.half_width * forward, camera.half_width * height / width * forward
    beyond = (right > reach_right, right < -reach_right, up > reach_up, up < -reach_up, forward <= 0)
    hidden = np.any([plane.all(axis=1) for plane in beyond], axis=0)
    behind = (forward < 0.01).any(axis=1)  # a corner that has no place in the picture: try all pixels

    scale = width / 2 / camera.half_width / np.maximum(forward, 0.01)
    columns, rows = width / 2 + right * scale, height / 2 - up * scale
    low = np.stack([rows.min(axis=1), columns.min(axis=1)], axis=1)
    high = np.stack([rows.max(axis=1), columns.max(axis=1)], axis=1)
    low[behind], high[behind | hidden] = 0, (height, width)
    high[hidden] = 0
    low = np.clip(np.floor(low), 0, (height, width)).astype(int)
    high = np.clip(np.ceil(high), 0, (height, width)).astype(int)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def slab_test(
    origin: np.ndarray, direction: np.ndarray, half: np.ndarray, right: np.ndarray, up: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays enter and leave the three slabs whose intersection is a box (Kay and Kajiya, 1986).

    Args:
        origin: [3], the camera in the box's axes. direction: [3, 3], right, forward, up -> the box's axes.
        half: [3], half of the box's size. right, up: [w], [h], slopes of the rays.

    Returns:
        Depth of the last entry and of the first exit, [h, w] each: a hit where the first is smaller; and the
        axis of the last entry, [h, w] uint8.
    """
    near = far = axis = None
    for k in range(3):
        slope = (direction[k, 2] * up)[:, None] + (direction[k, 0] * right + direction[k, 1])
        slope[slope == 0] = 1e-20  # a ray along the slab meets it very far away
        inverse = np.reciprocal(slope)
        middle, reach = -origin[k] * inverse, half[k] * np.abs(inverse)
        entry, leave = middle - reach, middle + reach
        if near is None:
            near, far, axis = entry, leave, np.zeros(slope.shape, np.uint8)
        else:
            axis[entry > near] = k
            near, far = np.maximum(near, entry), np.minimum(far, leave)
    return near, far, axis


def ray_directions(camera: Camera, height: int, width: int) -> np.ndarray:
    """World directions of the rays, one metre forward each: [H, W, 3]."""
    right, up = pixel_slopes(camera, height, width)
    return up[:, None, None] * camera.axes[2] + (right[:, None] * camera.axes[0] + camera.axes[1])


def surface_normals(boxes: Boxes, hits: Hits, camera: Camera) -> np.ndarray:
    """World normals of what the pixels show, on the camera's side: [H, W, 3] float32, unit vectors."""
    normal = boxes.axes[hits.box, hits.axis]
    away = np.einsum("hwi,hwi->hw", normal, ray_directions(camera, *hits.depth.shape)) > 0
    return np.where(away[..., None], -normal, normal)
