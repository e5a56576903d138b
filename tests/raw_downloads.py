"""Small raw downloads, as `dataloaders.prepare` reads them, and a look at folders."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from dataloaders.prepare.__main__ import main
from dataloaders.prepare.nyu_v2 import CAMERA
from tests.test_prepare_surface_normals import depth_of_plane

WALL, FLOOR = (0.6, -0.8, 0.0), (0.0, -0.28, 0.96)
"""Normals of what every NYU v2 frame made here shows: a wall in its left half, a floor below a camera that looks
down in its right half."""


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of the last change of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, but for the record of where it came from."""
    return {name: content for name, (content, _) in snapshot(folder).items() if name != "prepared.json"}


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture as OpenCV takes it, BGR or one channel, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def assert_refused(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture) -> None:
    """The command ends with code 2 and one sentence that matches the message."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


# NYU v2


def nyu_v2_depth(height: int, width: int) -> np.ndarray:
    """Depth of a wall beside a floor, seen by NYU v2's camera: [H, W] float32, metres."""
    camera = CAMERA.scaled(width / 640, height / 480)
    depth = depth_of_plane(FLOOR, 1.5, camera, height, width)
    depth[:, : width // 2] = depth_of_plane(WALL, 2.0, camera, height, width)[:, : width // 2]
    # Above the horizon there is no floor but the far end of the room.
    return np.where((depth > 0) & (depth < 8), depth, 8).astype(np.float32)


def write_nyu_v2(folder: Path, num_frames: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Write labeled.mat (HDF5), splits.mat and classes.mat.

    The last two frames are test frames. Frame 2 was hardly measured.

    Returns:
        The arrays of labeled.mat with the axes of pictures: images [N, H, W, 3]; depths, rawDepths and labels
        [N, H, W].
    """
    rng = np.random.default_rng(0)
    shape = num_frames, height, width
    arrays = {
        "images": rng.integers(0, 256, (*shape, 3), np.uint8),
        "depths": np.stack([nyu_v2_depth(height, width)] * num_frames),
        "labels": rng.integers(0, 895, shape).astype(np.uint16),
    }
    share_of_holes = np.full((num_frames, 1, 1), 0.1)
    share_of_holes[1] = 0.97
    arrays["rawDepths"] = np.where(rng.random(shape) < share_of_holes, 0, arrays["depths"]).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "labeled.mat", "w", userblock_size=512) as file:  # MATLAB's header fills the block
        for name, array in arrays.items():
            file[name] = np.stack([frame.T for frame in array])
    numbers = np.arange(1, num_frames + 1, dtype=np.uint16)[:, None]
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": numbers[:-2], "testNdxs": numbers[-2:]})
    scipy.io.savemat(folder / "classes.mat", {"mapClass": (np.arange(894) % 40 + 1)[None].astype(np.uint8)})
    return arrays


def nyu_v2_command(folder: Path, output: Path) -> list[str]:
    """The arguments that prepare the files of `write_nyu_v2`, in one process."""
    sources = ["--labeled", "labeled.mat", "--splits", "splits.mat", "--classes", "classes.mat"]
    paths = [str(folder / word) if word.endswith(".mat") else word for word in sources]
    return ["nyu_v2", *paths, str(output), "--workers", "1"]


# CityScapes


def write_cityscapes(raw: Path, views: Mapping[str, Sequence[str]], height: int, width: int) -> None:
    """Write leftImg8bit, gtFine and disparity: folder -> names "city_000000_000019"."""
    rng = np.random.default_rng(0)
    for folder, names in views.items():
        for name in names:
            place = f"{folder}/{name.partition('_')[0]}/{name}"
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            write_picture(raw / "leftImg8bit" / f"{place}_leftImg8bit.png", image)
            write_picture(
                raw / "gtFine" / f"{place}_gtFine_labelIds.png", rng.integers(0, 34, (height, width), np.uint8)
            )
            disparity = rng.integers(0, 126 * 256, (height, width)).astype(np.uint16)
            disparity[rng.random((height, width)) < 0.2] = 0
            write_picture(raw / "disparity" / f"{place}_disparity.png", disparity)


# Tiny-Taskonomy

TASKONOMY_KINDS = {
    "rgb": "rgb",
    "segment_semantic": "segmentsemantic",
    "normal": "normal",
    "depth_zbuffer": "depth_zbuffer",
    "keypoints2d": "keypoints2d",
    "edge_texture": "edge_texture",
}
"""Folder -> what its files call themselves."""


def write_taskonomy(raw: Path, buildings: Mapping[str, int], size: int = 16) -> None:
    """Write the six pictures of so many views of each building."""
    rng = np.random.default_rng(0)
    for building, num_views in buildings.items():
        for view in range(num_views):
            for folder, domain in TASKONOMY_KINDS.items():
                path = raw / folder / building / f"point_{view}_view_0_domain_{domain}.png"
                write_picture(path, taskonomy_picture(folder, rng, size))


def taskonomy_picture(folder: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise in the form that a kind of picture has."""
    if folder in ("rgb", "normal"):
        return rng.integers(0, 256, (size, size, 3), np.uint8)
    if folder == "segment_semantic":
        return np.minimum(rng.integers(0, 60, (size, size), np.uint8), 17)
    return rng.integers(0, 65536, (size, size)).astype(np.uint16)


# DomainNet


def write_domainnet(raw: Path, domains: Mapping[str, tuple[int, int]]) -> None:
    """Write so many train and test images of each domain, of three classes, and their lists."""
    rng = np.random.default_rng(0)
    for domain, counts in domains.items():
        for split, count in zip(("train", "test"), counts, strict=True):
            lines = []
            for number in range(count):
                name = f"{domain}/class {number % 3}/{split} {number}.png"
                write_picture(raw / name, rng.integers(0, 256, (8, 8, 3), np.uint8))
                lines.append(f"{name} {number % 3}\n")
            (raw / f"{domain}_{split}.txt").write_text("".join(lines))
