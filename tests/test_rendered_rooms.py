"""Rendered rooms: geometry against plain NumPy, frames against their own promises."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from dataloaders.rendered import render, render_frame
from dataloaders.rooms.furniture import bed, chair
from dataloaders.rooms.pieces import CLASS_NAMES, PieceMaker
from dataloaders.rooms.rays import Boxes, Camera, cast, pixel_slopes
from dataloaders.rooms.scene import FloorPlan, clearance, extent, find_view, furnish, moved_block
from dataloaders.rooms.showroom import look_at, photograph, showroom
from dataloaders.rooms.view import texture_maps

SMALL = {"height": 48, "width": 64}
WALL = CLASS_NAMES.index("wall")


@pytest.fixture(scope="module")
def frames() -> list[dict[str, np.ndarray]]:
    return [render_frame(seed=3, index=index, height=120, width=160) for index in range(20)]


# ---------------------------------------------------------------------------------------- geometry


def one_box(centre: tuple, half: tuple) -> Boxes:
    return Boxes(
        centre=np.array([centre], np.float32),
        half=np.array([half], np.float32),
        axes=np.eye(3, dtype=np.float32)[None],
        label=np.zeros(1, np.uint8),
        thing=np.zeros(1, np.uint16),
        pattern=np.array(["plain"]),
        colours=np.zeros((1, 2, 3), np.float32),
        period=np.ones(1, np.float32),
        glow=np.zeros(1, np.float32),
    )


def test_level_camera_sees_a_floor_at_height_over_slope() -> None:
    camera = Camera(np.array([0, 0, 1.5], np.float32), np.eye(3, dtype=np.float32), half_width=0.5)
    hits = cast(one_box((0, 0, -1), (50, 50, 1)), camera, height=9, width=12)
    # The lowest row looks down by (4.5 - 0.5) / 6 of half the width per metre, the middle row straight ahead.
    np.testing.assert_allclose(hits.depth[8], 1.5 / (4 / 6 * 0.5), rtol=1e-5)
    assert np.isinf(hits.depth[:5]).all()
    assert (hits.axis[5:] == 2).all()


def test_ray_along_a_face_still_hits_the_box() -> None:
    camera = Camera(np.array([0, -3, 0], np.float32), np.eye(3, dtype=np.float32), half_width=0.5)
    hits = cast(one_box((0, 0, 0), (1, 1, 1)), camera, height=3, width=5)
    np.testing.assert_allclose(hits.depth[1, 2], 2.0)


def test_cast_equals_testing_every_box_for_every_pixel() -> None:
    room = furnish(np.random.default_rng([3, 1]))
    height, width = 60, 80
    hits = cast(room.boxes, room.camera, height, width)
    right, up = np.meshgrid(*pixel_slopes(room.camera, height, width))
    rays = np.stack([right, np.ones_like(right), up], axis=-1).astype(np.float64) @ room.camera.axes
    nearest = np.full((height, width), np.inf)
    for centre, half, axes in zip(room.boxes.centre, room.boxes.half, room.boxes.axes, strict=True):
        start, slope = axes @ (room.camera.position - centre), rays @ axes.T
        ends = np.stack([(-half - start) / slope, (half - start) / slope])
        enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
        nearest = np.where((enter < leave) & (enter > 0), np.minimum(nearest, enter), nearest)
    agree = np.isclose(hits.depth, nearest, rtol=1e-3)
    assert agree.mean() > 0.998  # float32 decides the pixels on outlines otherwise


@pytest.mark.parametrize("index", range(3))
def test_normals_are_those_of_the_depth(index: int) -> None:
    height, width = 240, 320
    frame = render_frame(3, index, height, width)
    camera = furnish(np.random.default_rng([3, index])).camera
    right, up = np.meshgrid(*pixel_slopes(camera, height, width))
    point = np.stack([right, np.ones_like(right), up], axis=-1).astype(np.float64) * frame["depth"][..., None]
    across, down = point[2:-2, 4:] - point[2:-2, :-4], point[4:, 2:-2] - point[:-4, 2:-2]
    normal = np.cross(down, across)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12

    # One plane over 5 x 5 pixels: valid, one normal, and inverse depth, affine on a plane, without a kink.
    inner = (slice(2, -2), slice(2, -2))
    window = np.ones((5, 5))
    valid = cv2.erode(frame["depth_valid"].astype(np.uint8), window)[inner] > 0
    spread = sum(cv2.morphologyEx(part, cv2.MORPH_GRADIENT, window) for part in cv2.split(frame["normal"]))
    inverse = 1 / np.maximum(frame["depth"], 0.1)
    kink = sum(
        np.abs(np.diff(inverse, 2, axis=axis)[cut]) for axis, cut in ((0, np.s_[1:-1, 2:-2]), (1, np.s_[2:-2, 1:-1]))
    )
    plane = valid & (spread[inner] < 1e-4) & (cv2.dilate(kink, window, borderValue=1) < 1e-4)
    cosine = np.sum(normal * frame["normal"][inner], axis=-1)[plane]
    assert plane.mean() > 0.3
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.0


def test_normals_are_unit_vectors_towards_the_camera(frames: list) -> None:
    for index, frame in enumerate(frames):
        camera = furnish(np.random.default_rng([3, index])).camera
        right, up = np.meshgrid(*pixel_slopes(camera, 120, 160))
        x, y, z = np.moveaxis(frame["normal"], -1, 0)
        np.testing.assert_allclose(np.linalg.norm(frame["normal"], axis=-1), 1, atol=1e-5)
        assert (x * right + y + z * up <= 1e-6).all()


def test_furniture_stays_apart() -> None:
    rng = np.random.default_rng(0)
    plan = FloorPlan(4.0, 4.0)
    for _ in range(40):
        plan.put_freely(rng, chair(rng))
    spaces = [moved_block(extent(piece), *origin[:2], yaw) for piece, origin, yaw in plan.placed]
    assert 5 < len(spaces) < 40
    for (low, high), (other_low, other_high) in combinations(spaces, 2):
        assert not ((low < other_high) & (other_low < high)).all()


def test_cameras_stand_outside_of_things() -> None:
    most_of_the_room = one_box((0, 0, 1.5), (1.4, 1.4, 0.5))
    cameras = [find_view(np.random.default_rng(seed), most_of_the_room, 4.5, 4.5) for seed in range(20)]
    assert min(clearance(most_of_the_room, camera) for camera in cameras) > 0.25


# ------------------------------------------------------------------------------------------ frames


def test_shapes_types_and_ranges(frames: list) -> None:
    expected = {
        "img": ((120, 160, 3), np.uint8),
        "seg": ((120, 160), np.uint8),
        "normal": ((120, 160, 3), np.float32),
        "normal_valid": ((120, 160), np.bool_),
        "depth": ((120, 160), np.float32),
        "depth_valid": ((120, 160), np.bool_),
        "keypoint": ((120, 160), np.float32),
        "edge": ((120, 160), np.float32),
    }
    for frame in frames:
        assert {name: (array.shape, array.dtype) for name, array in frame.items()} == expected
        assert ((frame["seg"] < 40) | (frame["seg"] == 255)).all()
        assert np.array_equal(frame["depth"] > 0, frame["depth_valid"])
        assert 0.2 < frame["depth"][frame["depth_valid"]].min() <= frame["depth"].max() < 12
        for name in ("keypoint", "edge"):
            assert frame[name].min() >= 0
            assert 0.2 < frame[name].max() <= 1


def test_every_view_shows_a_furnished_room(frames: list) -> None:
    shares = np.array([np.bincount(frame["seg"].ravel(), minlength=256)[:40] for frame in frames]) / (120 * 160)
    assert (shares > 0.002).sum(axis=1).min() >= 5
    assert (shares.mean(axis=0) > 0.001).sum() >= 15
    assert 0.2 < shares[:, WALL].mean() < 0.5
    assert all(90 < frame["img"].mean() < 170 and frame["img"].std() > 15 for frame in frames)
    assert all(np.median(frame["depth"]) > 1 for frame in frames)


def test_invalid_shares_are_like_those_of_real_frames(frames: list) -> None:
    for name, low, high in (("normal_valid", 0.15, 0.55), ("depth_valid", 0.01, 0.25)):
        invalid = [1 - frame[name].mean() for frame in frames]
        assert low < min(invalid) <= max(invalid) < high
    ignored = [(frame["seg"] == 255).mean() for frame in frames]
    assert 0.02 < min(ignored) <= max(ignored) < 0.35


def test_a_frame_depends_on_seed_and_index_alone() -> None:
    frame = render_frame(7, 2, **SMALL)
    render_frame(7, 3, **SMALL)
    again = render(np.random.default_rng([7, 2]), **SMALL)
    assert all(np.array_equal(frame[name], again[name]) for name in frame)
    others = [render_frame(8, 2, **SMALL), render_frame(7, 1, **SMALL)]
    assert all(np.abs(frame["depth"] - other["depth"]).mean() > 0.1 for other in others)


def test_the_room_does_not_depend_on_the_size_of_the_picture() -> None:
    large, small = render_frame(7, 2, 240, 320), render_frame(7, 2, 120, 160)
    assert np.mean(large["seg"][::2, ::2] == small["seg"]) > 0.75
    assert np.mean(large["normal_valid"][::2, ::2] == small["normal_valid"]) > 0.85


def test_texture_maps_find_steps_and_corners() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 128
    maps = texture_maps(image)
    assert maps["edge"][20, 9:11].min() > 0.8
    assert maps["edge"][20, 20] == maps["edge"][3, 3] == 0
    assert maps["keypoint"][10, 10] > 5 * maps["keypoint"][20, 10]


# ------------------------------------------------------------------------------------------- showroom


@pytest.mark.parametrize("make", [chair, bed])
def test_showroom_shows_the_whole_piece(make: PieceMaker) -> None:
    name = CLASS_NAMES.index(make.__name__)
    for seed in range(10):
        room = showroom(np.random.default_rng(seed), make)
        shown = room.boxes.label[cast(room.boxes, room.camera, 96, 96).box] == name
        assert 0.04 < shown.mean() < 0.7
        assert clearance(room.boxes, room.camera) > 0.15
        border = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
        assert border.mean() < 0.15


def test_look_at_sees_the_target_in_the_middle_and_the_world_upright() -> None:
    target = np.array([1.0, -2.0, 0.5])
    camera = look_at(np.array([0.0, 2.0, 1.5]), target, half_width=0.4)
    right, forward, up = camera.axes @ (target - camera.position)
    np.testing.assert_allclose([right, forward, up], [0, np.sqrt(18), 0], atol=1e-5)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(camera.axes) > 0  # right-handed: nothing is mirrored
    assert camera.axes[0, 2] == 0 < camera.axes[2, 2]


def test_photographs_of_all_shapes_show_the_same_middle() -> None:
    room = showroom(np.random.default_rng(0), chair)
    square, wide = photograph(room, 64, 64), photograph(room, 64, 128)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    assert np.abs(wide[:, 32:96].astype(float) - square).mean() < 12  # exposure differs with what else is seen
    assert np.corrcoef(wide[:, 32:96].ravel(), square.ravel())[0, 1] > 0.97
