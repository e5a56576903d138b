"""Pictures of a room: rays against boxes, light and patterns, and the maps that go with the image.

`render` is the entry; the parts follow in its order: how surfaces look (`shade`), what a real sensor and real
annotators would have left out, and the maps made from the image.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from dataloaders.rooms.pieces import CLASS_NAMES
from dataloaders.rooms.rays import Boxes, Camera, Hits, cast, ray_directions, surface_normals
from dataloaders.rooms.scene import Room, furnish

IGNORE_LABEL = 255
Frame = dict[str, np.ndarray]


def render_frame(seed: int, index: int, height: int, width: int) -> Frame:
    """Frame `index` of the endless sequence that belongs to `seed`; see `render`."""
    return render(np.random.default_rng([seed, index]), height, width)


def render(rng: np.random.Generator, height: int, width: int) -> Frame:
    """Draw a furnished room from the generator and take its picture.

    The room, the camera and the invalid patches do not depend on the size of the picture.

    Returns:
        "img": [H, W, 3] uint8, RGB.
        "seg": [H, W] uint8, classes 0..39 (`pieces.CLASS_NAMES`); 255 on the borders between things.
        "normal": [H, W, 3] float32, unit vectors towards the camera's side, in camera coordinates x right,
            y forward, z up: before a level camera a floor is (0, 0, 1), a wall that faces it (0, -1, 0).
            These are the R, G, B of NYU v2's normal pictures, found by fitting the normals that the depth of
            four real frames implies to their pixels.
        "normal_valid": [H, W] bool, false on a frame and on patches, as in the real pictures.
        "depth": [H, W] float32, metres along the optical axis (not along the ray); 0 in holes.
        "depth_valid": [H, W] bool, false in holes.
        "keypoint": [H, W] float32, 0..1, corner strength of the image.
        "edge": [H, W] float32, 0..1, gradient magnitude of the image after smoothing.
    """
    room = furnish(rng)
    hits = cast(room.boxes, room.camera, height, width)
    normal = surface_normals(room.boxes, hits, room.camera)
    image = shade(room, hits, normal)
    depth_valid, normal_valid = sensed_pixels(rng, room.boxes, hits)
    return {
        "img": image,
        "seg": annotated_classes(room.boxes, hits),
        "normal": normal @ room.camera.axes.T,
        "normal_valid": normal_valid,
        "depth": hits.depth * depth_valid,
        "depth_valid": depth_valid,
        **texture_maps(image),
    }


# -------------------------------------------------------------------------------------------- shading


def shade(room: Room, hits: Hits, normal: np.ndarray) -> np.ndarray:
    """The image, [H, W, 3] uint8 RGB: patterns times light, exposed so that no room is too dark to see."""
    rays = ray_directions(room.camera, *hits.depth.shape)
    point = room.camera.position + rays * hits.depth[..., None]
    reflectance = np.square(surface_colours(room.boxes, hits, point))
    light = incoming_light(room, point, normal) + room.boxes.glow[hits.box][..., None]
    radiance = reflectance * light
    exposed = 1 - np.exp(radiance * (-0.42 / radiance.mean()))
    lens = cv2.GaussianBlur(np.sqrt(exposed), (3, 3), 0.7)  # takes the stairs off the outlines
    return np.rint(lens * 255).astype(np.uint8)


SHADOW_MAP_SIZE = 192
SHADOW_BIAS = 0.05  # metres; less than this in front of a surface casts no shadow on it


def incoming_light(room: Room, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Light that the surfaces receive (Lambert), [H, W, 3]: lamp with shadows, all around, brighter side."""
    light = room.light
    to_lamp = light.position - point
    squared = np.einsum("hwi,hwi->hw", to_lamp, to_lamp)
    cosine = np.maximum(np.einsum("hwi,hwi->hw", to_lamp, normal), 0) / np.sqrt(squared)
    lamp = cosine / (0.5 + squared) * lit_by_lamp(room, point)
    around = 0.75 + 0.15 * normal[..., 2] + 0.35 * (normal @ light.sky)
    return lamp[..., None] * light.colour + around[..., None] * light.ambient


def lit_by_lamp(room: Room, point: np.ndarray) -> np.ndarray:
    """Share of the lamp that the points see, [H, W], 0..1: a shadow map, cast from the lamp."""
    down = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], np.float32)
    lamp = Camera(room.light.position, down, half_width=2.5)
    depth = cast(room.boxes, lamp, SHADOW_MAP_SIZE, SHADOW_MAP_SIZE).depth
    right, forward, up = np.moveaxis((point - lamp.position) @ down.T, -1, 0)
    scale = SHADOW_MAP_SIZE / 2 / lamp.half_width / np.maximum(forward, 0.01)
    columns, rows = SHADOW_MAP_SIZE / 2 - 0.5 + right * scale, SHADOW_MAP_SIZE / 2 - 0.5 - up * scale
    # Outside of the map nothing stands between: those are the upper walls and the ceiling.
    blocker = cv2.remap(depth, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1e6)
    lit = (forward < blocker + SHADOW_BIAS).astype(np.float32)
    soft = 2 * (point.shape[0] // 120) + 1
    return cv2.blur(lit, (soft, soft))


def surface_colours(boxes: Boxes, hits: Hits, point: np.ndarray) -> np.ndarray:
    """Reflectance of what the pixels show, [H, W, 3], 0..1."""
    box, (across, along) = hits.box, places_on_faces(boxes, hits, point)
    elsewhere = box.astype(np.float32)  # no two boxes show the same piece of the noise
    fine, coarse = surface_noise(across + 0.37 * elsewhere, along + 0.73 * elsewhere)
    u, v = across / boxes.period[box], along / boxes.period[box]
    mix = np.zeros_like(u)
    for name in np.unique(boxes.pattern):
        pattern, pixels = PATTERNS[name], (boxes.pattern == name)[box]
        if pixels.any():
            mix[pixels] = pattern(u[pixels], v[pixels], fine[pixels], coarse[pixels])
    first, second = boxes.colours[box, 0], boxes.colours[box, 1]
    grain = 0.98 + 0.04 * fine
    return np.clip((first + (second - first) * mix[..., None]) * grain[..., None], 0, 1)


def places_on_faces(boxes: Boxes, hits: Hits, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres from a corner of the face, [H, W] each: first horizontally, then upwards (backwards on tops)."""
    other_axes = np.array([(1, 2), (0, 2), (0, 1)])  # of a face that is normal to axis 0, 1, 2
    axes = boxes.axes[:, other_axes]  # [B, 3, 2, 3]
    corner = np.einsum("bakj,bj->bak", axes, boxes.centre) - boxes.half[:, other_axes]
    face = hits.box, hits.axis
    place = np.einsum("hwkj,hwj->hwk", axes[face], point) - corner[face]
    return place[..., 0], place[..., 1]


@cache
def noise_tiles() -> tuple[np.ndarray, np.ndarray]:
    """Fine and coarse noise that can be repeated, [256, 256] each, 0..1, and always the same."""
    white = np.random.default_rng(0).random((256, 256), np.float32)
    tiled = np.tile(white, (3, 3))
    return tuple(_stretched(cv2.GaussianBlur(tiled, (0, 0), sigma)[256:512, 256:512]) for sigma in (0.7, 6.0))


def _stretched(noise: np.ndarray) -> np.ndarray:
    return np.clip((noise - noise.mean()) / (5 * noise.std()) + 0.5, 0, 1)


def surface_noise(across: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fine and coarse noise at places on surfaces (metres), [H, W] each, 0..1."""
    return tuple(
        cv2.remap(tile, across * texels, along * texels, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        for tile, texels in zip(noise_tiles(), (130.0, 60.0), strict=True)
    )


def toss(*whole: np.ndarray) -> np.ndarray:
    """A number 0..1 for every pair (or single) of whole numbers, always the same: the tone of one tile."""
    table = noise_tiles()[0].ravel()
    places = sum(number.astype(np.int64) * prime for number, prime in zip(whole, (7919, 104729), strict=False))
    return table[places % table.size]


def planks(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Floor boards with gaps, each of its own tone."""
    row = np.floor(v)
    u = u / 8 + toss(row)
    gap = (v - row < 0.05) | (u - np.floor(u) < 0.006)
    return np.where(gap, 1.0, 0.5 * toss(row, np.floor(u)) + 0.3 * grain(u, 3 * v, fine, coarse))


def grain(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Wavy lines along u."""
    return 0.5 + 0.4 * np.sin(2 * np.pi * (v + 1.5 * coarse)) + 0.2 * (fine - 0.5)


def tiles(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Square tiles with joints."""
    column, row = np.floor(u), np.floor(v)
    joint = (u - column < 0.04) | (v - row < 0.04)
    return np.where(joint, 1.0, 0.25 * toss(column, row) + 0.1 * coarse)


def bricks(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Rows of bricks, every other row shifted."""
    row = np.floor(3 * v)
    return tiles(u + 0.5 * (row % 2), 3 * v, fine, coarse)


def slats(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Thin horizontal slats with shadows between."""
    part = v - np.floor(v)
    return np.where(part < 0.25, 1.0, 0.3 * part)


def spines(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Upright stripes of all widths: the backs of books."""
    book = np.floor(u)
    return np.where(u - book < 0.12, 0.2, toss(book))


def writing(u: np.ndarray, v: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Rows of strokes, broken into words."""
    ink = (v - np.floor(v) < 0.4) & (fine > 0.45) & (toss(np.floor(v), np.floor(u / 6)) > 0.35)
    return ink.astype(np.float32)


Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

PATTERNS: dict[str, Pattern] = {
    "plain": lambda u, v, fine, coarse: 0.5 * coarse,
    "brushed": lambda u, v, fine, coarse: 0.6 * coarse + 0.4 * fine,
    "carpet": lambda u, v, fine, coarse: 0.8 * fine + 0.2 * coarse,
    "weave": lambda u, v, fine, coarse: 0.25 * (np.sin(20 * u) * np.sin(20 * v) + 1) + 0.5 * coarse,
    "stripes": lambda u, v, fine, coarse: (u - np.floor(u) < 0.5).astype(np.float32),
    "checks": lambda u, v, fine, coarse: 0.5 * ((u - np.floor(u) < 0.5) + (v - np.floor(v) < 0.5).astype(np.float32)),
    "folds": lambda u, v, fine, coarse: 0.5 + 0.5 * np.sin(2 * np.pi * u + 2 * coarse),
    "speckles": lambda u, v, fine, coarse: (fine > 0.62).astype(np.float32),
    "blots": lambda u, v, fine, coarse: np.clip(8 * np.abs(coarse - 0.5) - 0.3, 0, 1),
    "sky": lambda u, v, fine, coarse: np.clip(0.5 * v + coarse - 0.3, 0, 1),
    "grain": grain,
    "planks": planks,
    "tiles": tiles,
    "bricks": bricks,
    "slats": slats,
    "spines": spines,
    "writing": writing,
}
"""How two colours mix (0..1) at places u, v on a face, counted in periods, given fine and coarse noise there.
u runs horizontally on walls; v upwards."""


# ------------------------------------------------------------------ what sensors and annotators leave out


def annotated_classes(boxes: Boxes, hits: Hits) -> np.ndarray:
    """Classes, [H, W] uint8, with 255 on borders between things, as people leave them when they label."""
    thing = boxes.thing[hits.box]
    border = cv2.morphologyEx(thing, cv2.MORPH_GRADIENT, square(1, thing.shape[0])) > 0
    return np.where(border, np.uint8(IGNORE_LABEL), boxes.label[hits.box])


def square(radius: float, height: int) -> np.ndarray:
    """Structuring element of a radius given in pixels of a picture 240 pixels high."""
    side = 2 * max(1, round(radius * height / 240)) + 1
    return np.ones((side, side), np.uint8)


GLOSSY = tuple(CLASS_NAMES.index(name) for name in ("window", "mirror", "television", "refrigerator", "whiteboard"))


def sensed_pixels(rng: np.random.Generator, boxes: Boxes, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Where a depth camera has an answer, and where a normal could be fitted to it: [H, W] bool each.

    Depth fails along the outlines of things, on parts of glossy surfaces and in a few patches; normals fail
    more widely there, and on a frame around the picture.
    """
    shape = hits.depth.shape
    spread = cv2.morphologyEx(hits.depth, cv2.MORPH_GRADIENT, square(1, shape[0]))
    outline = spread > 0.1 * hits.depth
    glossy = np.isin(boxes.label[hits.box], GLOSSY)
    rough, smooth, other = blotches(rng, 40, shape), blotches(rng, 10, shape), blotches(rng, 14, shape)
    hole = (outline & (rough > 0)) | (glossy & (smooth > 0.8)) | (smooth + 0.3 * rough > 2.2)
    wide_outline = cv2.dilate(outline.astype(np.uint8), square(1.5, shape[0])) > 0
    misfit = hole | (wide_outline & (rough > -0.8)) | (glossy & (smooth > 0.1)) | (other + 0.3 * rough > 1.9)
    return ~hole, ~misfit & ~frame_mask(rng, shape)


def blotches(rng: np.random.Generator, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit variance with so many cells across the picture: [H, W] float32."""
    coarse = rng.standard_normal((cells * 3 // 4, cells), np.float32) * 1.3
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def frame_mask(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A frame about as wide as in NYU v2's normal pictures (top 8 %, sides 5 %, bottom 2 %): [H, W] bool."""
    top, bottom, left, right = rng.uniform(0.8, 1.1, 4) * (0.08, 0.02, 0.05, 0.05)
    rows, columns = (np.arange(shape[0]) + 0.5) / shape[0], (np.arange(shape[1]) + 0.5) / shape[1]
    return ((rows < top) | (rows > 1 - bottom))[:, None] | ((columns < left) | (columns > 1 - right))


# ------------------------------------------------------------------------------------------ 2D targets


def texture_maps(image: np.ndarray) -> Frame:
    """Corner strength (Shi and Tomasi, 1994) and smoothed gradient magnitude of an RGB image, [H, W], 0..1.

    They stand for Taskonomy's 2D keypoints and 2D texture edges; a step of half the range has an edge of 1.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    gradient = np.sqrt(cv2.Sobel(smooth, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(smooth, cv2.CV_32F, 0, 1) ** 2)
    corner = np.sqrt(np.maximum(cv2.cornerMinEigenVal(smooth, blockSize=5, ksize=3), 0))
    return {"keypoint": np.clip(corner * 8, 0, 1), "edge": np.clip(gradient / 1.5, 0, 1)}
