"""Normals from depth: against planes by formula, rendered rooms, and the released frames."""

import cv2
import numpy as np
import pytest

from dataloaders.prepare.nyu_v2 import CAMERA
from dataloaders.prepare.surface_normals import OFFSETS, Intrinsics, surface_normals
from dataloaders.rooms.scene import furnish
from dataloaders.rooms.view import Frame, render_frame
from tests.released_frames import RELEASED_FRAMES, needs_released_frames

HEIGHT, WIDTH = 240, 320


def angles(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Degrees between vectors of any length, [..., 3] -> [...]."""
    cosine = np.sum(found * true, axis=-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(true, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def rays(camera: Intrinsics, height: int, width: int) -> np.ndarray:
    """Right, forward, up for each metre forward, at the centres of the pixels: [H, W, 3]."""
    right = (np.arange(width) + 0.5 - camera.centre_x) / camera.focal_x
    up = (camera.centre_y - np.arange(height) - 0.5) / camera.focal_y
    return np.stack(np.broadcast_arrays(right, 1.0, up[:, None]), axis=-1)


def depth_of_plane(normal: tuple[float, ...], distance: float, camera: Intrinsics, *size: int) -> np.ndarray:
    """Depth where n . P = -distance: [H, W] float32."""
    return (-distance / (rays(camera, *size) @ np.array(normal))).astype(np.float32)


def camera_of_room(index: int) -> Intrinsics:
    focal = WIDTH / 2 / furnish(np.random.default_rng([3, index])).camera.half_width
    return Intrinsics(focal, focal, WIDTH / 2, HEIGHT / 2)


def plane_pixels(frame: Frame) -> np.ndarray:
    """Where the whole window of a fit is measured and on one plane: [H, W] bool."""
    window = np.ones((2 * OFFSETS.max() + 1,) * 2)
    measured = cv2.erode(frame["depth_valid"].astype(np.uint8), window, borderValue=0) > 0
    turns = sum(cv2.morphologyEx(part, cv2.MORPH_GRADIENT, window) for part in cv2.split(frame["normal"]))
    # Inverse depth is affine on a plane: parallel planes beside each other show as a step in its slope.
    inverse = 1 / np.maximum(frame["depth"], 0.1)
    bend = np.abs(cv2.Laplacian(inverse, cv2.CV_32F, ksize=1))
    return measured & (turns < 1e-4) & (cv2.dilate(bend, window) < 1e-4)


@pytest.mark.parametrize("normal", [(0, -1, 0), (0, 0, 1), (0.6, -0.8, 0), (-0.36, -0.48, 0.8)])
def test_normal_of_a_plane_is_found_exactly(normal: tuple[float, ...]) -> None:
    camera = Intrinsics(260, 250, 150, 20)  # looks down: the horizon is near the upper edge
    depth = depth_of_plane(normal, 1.5, camera, 120, 160)
    measured = (depth > 0.3) & (depth < 20)
    found, fitted = surface_normals(np.where(measured, depth, 0), measured, camera)
    assert fitted.mean() > 0.2
    assert not fitted[~measured].any()
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[fitted], axis=-1), 1, atol=1e-5)
    assert angles(found[fitted], np.array(normal)).max() < 0.1


def test_planes_of_rooms_are_met_to_two_degrees_under_a_sensors_noise() -> None:
    clean, noisy = [], []
    rng = np.random.default_rng(0)
    for index in range(4):
        frame, camera = render_frame(3, index, HEIGHT, WIDTH), camera_of_room(index)
        plane = plane_pixels(frame)
        for errors, deviation in ((clean, 0), (noisy, 1.5e-3)):  # 1/metres: what Kinect's disparity is good for
            inverse = 1 / np.maximum(frame["depth"], 0.1) + rng.normal(0, deviation, plane.shape)
            depth = np.where(frame["depth_valid"], 1 / inverse, 0).astype(np.float32)
            found, fitted = surface_normals(depth, frame["depth_valid"], camera)
            assert fitted[plane].all()
            errors.append(angles(found[plane], frame["normal"][plane]))
    assert np.concatenate(clean).size > 0.1 * 4 * HEIGHT * WIDTH
    assert np.concatenate(clean).mean() < 0.01
    assert np.concatenate(noisy).mean() < 2


def test_what_is_much_nearer_or_farther_does_not_bend_the_plane() -> None:
    camera = Intrinsics(260, 260, 80, 60)
    depth = depth_of_plane((0.6, -0.8, 0), 2.0, camera, 120, 160)
    depth[:, 80:] = 1.0  # something flat that faces the camera stands before it
    found, fitted = surface_normals(depth, np.ones(depth.shape, bool), camera)
    assert fitted[:, 70:90].all()
    assert angles(found[:, :80], np.array((0.6, -0.8, 0))).max() < 0.1
    assert angles(found[:, 80:], np.array((0, -1, 0))).max() < 0.1


def test_without_enough_points_there_is_no_normal() -> None:
    camera = Intrinsics(260, 260, 80, 60)
    depth = depth_of_plane((0, -1, 0), 2.0, camera, 120, 160)
    alone = np.zeros(depth.shape, bool)
    alone[40, 60] = alone[80:84, 100:104] = True  # a point, and 16 points
    assert not surface_normals(depth, alone, camera)[1].any()
    line = np.zeros(depth.shape, bool)
    line[60] = True
    assert not surface_normals(depth, line, camera)[1].any()


def test_points_count_up_to_a_difference_of_five_percent() -> None:
    camera = Intrinsics(260, 260, 80, 60)
    facing = np.array((0, -1, 0))
    for step, bends in ((1.045, True), (1.055, False)):
        depth = depth_of_plane((0, -1, 0), 2.0, camera, 120, 160)
        depth[:, 80:] *= step
        for picture in (depth, depth[:, ::-1].copy()):
            found, _ = surface_normals(picture, np.ones(depth.shape, bool), camera)
            assert (angles(found[:, 79:81], facing).min() > 1) == bends
            assert (angles(found, facing).max() > 0.1) == bends


def test_a_plane_is_fitted_to_twenty_points_and_to_no_fewer() -> None:
    camera = Intrinsics(260, 260, 80, 60)
    depth = depth_of_plane((0, -1, 0), 2.0, camera, 120, 160)
    window = [(60 + down, 80 + across) for down in OFFSETS for across in OFFSETS]
    window.sort(key=lambda place: place != (60, 80))  # the centre first
    for count in (19, 20):
        measured = np.zeros(depth.shape, bool)
        measured[tuple(np.transpose(window[:count]))] = True
        assert surface_normals(depth, measured, camera)[1][60, 80] == (count == 20)


@pytest.mark.parametrize("normal", [(0.6, -0.8, 0), (0, -0.8, 0.6)])
def test_rays_go_through_the_middle_of_pixels(normal: tuple[float, ...]) -> None:
    camera = Intrinsics(20, 20, 20, 20)  # so wide that half a pixel is more than a degree
    depth = depth_of_plane(normal, 2.0, camera, 40, 40)
    measured = (depth > 0) & (depth < 20)
    found, fitted = surface_normals(np.where(measured, depth, 0), measured, camera)
    assert fitted.mean() > 0.2
    assert angles(found[fitted], np.array(normal)).max() < 0.1


def test_result_does_not_depend_on_the_bands_of_rows() -> None:
    camera = Intrinsics(260, 260, 80, 50)
    depth = depth_of_plane((-0.36, -0.48, 0.8), 1.5, camera, 101, 160)
    depth = np.where((depth > 0) & (depth < 30), depth, 30).astype(np.float32)
    whole, _ = surface_normals(depth, np.ones(depth.shape, bool), camera)
    lower = camera._replace(centre_y=camera.centre_y - 45)
    part, _ = surface_normals(depth[45:], np.ones((56, 160), bool), lower)
    np.testing.assert_allclose(whole[54:], part[9:], atol=2e-4)


def test_camera_of_a_picture_of_another_size_sees_the_same_rays() -> None:
    whole, half = rays(CAMERA, 480, 640), rays(CAMERA.scaled(0.5, 0.5), 240, 320)
    pairs = (whole[::2] + whole[1::2]) / 2
    np.testing.assert_allclose((pairs[:, ::2] + pairs[:, 1::2]) / 2, half, atol=1e-12)
    # The toolbox: x = (column - 325.58...) / 518.85..., columns counted from 1.
    np.testing.assert_allclose(whole[7, 99, [0, 2]], [(100 - 325.582449) / 518.857901, (253.736166 - 8) / 519.469611])


@needs_released_frames
def test_released_normals_are_met_on_real_frames() -> None:
    medians = []
    for file in sorted((RELEASED_FRAMES / "depth").glob("*.npy")):
        depth = np.load(file)
        colours = cv2.imread(str(RELEASED_FRAMES / "normal_mask" / f"{file.stem}.png"))[..., ::-1]
        found, fitted = surface_normals(depth, depth > 3e-5, CAMERA)
        both = fitted & (colours != 255).any(axis=-1)
        medians.append(np.median(angles(found[both], colours[both] / 127.5 - 1)))
    assert len(medians) == 4
    assert max(medians) < 0.7
