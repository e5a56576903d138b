"""Tiny-Taskonomy: what a sample holds, its masks and weights, resizing, augmentation, what bad data say."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders import open_dataset
from dataloaders.options import DataOptions
from dataloaders.taskonomy import AUGMENTATIONS, CLASS_WEIGHTS_FILE, SPLIT_FILE, Taskonomy
from utils.config import DataloadSection
from utils.errors import UserError

TARGETS = ("seg", "normal", "depth", "keypoint", "edge")
COLUMNS = ("rgb", *TARGETS)
CLASS_WEIGHTS = np.linspace(0.5, 2.1, 17)
MEAN_BGR = np.array([104.00698793, 116.66876762, 122.67891434])


def make_files(seed: int, height: int = 256, width: int = 256) -> dict[str, np.ndarray]:
    """The pictures of one frame; a block of depth was not measured."""
    random = np.random.RandomState(seed)
    files = {
        "rgb": random.randint(0, 256, (height, width, 3)).astype(np.uint8),
        "seg": random.randint(0, 18, (height, width)).astype(np.uint8),
        "normal": random.randint(0, 256, (height, width, 3)).astype(np.uint8),
        "depth": random.randint(0, 64500, (height, width)).astype(np.uint16),
        "keypoint": random.randint(0, 400, (height, width)).astype(np.uint16),
        "edge": random.randint(0, 6000, (height, width)).astype(np.uint16),
    }
    files["depth"][10:90, 20:120] = 65535
    return files


def write_root(root: Path, frames: Mapping[str, dict[str, np.ndarray]]) -> Path:
    """A data root in which every frame is train and test, the last one alone test_small."""
    rows = [[f"{column}/{name}.png" for column in COLUMNS] for name in frames]
    for row, files in zip(rows, frames.values(), strict=True):
        for path, column in zip(row, COLUMNS, strict=True):
            (root / path).parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(root / path), files[column])
    (root / SPLIT_FILE).write_text(json.dumps({"train": rows, "test": rows, "test_small": rows[-1:]}))
    np.save(root / CLASS_WEIGHTS_FILE, CLASS_WEIGHTS)
    return root


# What a sample holds


def test_sample_holds_what_the_files_hold(tmp_path: Path) -> None:
    files = make_files(1)
    sample = Taskonomy(write_root(tmp_path, {"a": make_files(0), "b": files}), "test", TARGETS)[(0, 1)]

    shapes = {key: (array.dtype, array.shape) for key, array in sample.items() if key != "name"}
    maps, masks = (np.float32, (1, 256, 256)), (bool, (1, 256, 256))
    assert shapes == {
        "img": (np.float32, (3, 256, 256)),
        "seg": (np.int64, (256, 256)),
        "seg_weight": (np.float32, (256, 256)),
        "normal": (np.float32, (3, 256, 256)),
        "normal_valid": masks,
        "depth": maps,
        "depth_valid": masks,
        "keypoint": maps,
        "keypoint_valid": masks,
        "edge": maps,
        "edge_valid": masks,
    }
    assert sample["name"] == "b"
    np.testing.assert_allclose(sample["img"], (files["rgb"] - MEAN_BGR).transpose(2, 0, 1), rtol=0, atol=3e-5)
    normal = files["normal"].transpose(2, 0, 1) / 255 * 2 - 1
    np.testing.assert_allclose(sample["normal"], normal, rtol=0, atol=1e-6)
    measured = files["depth"] != 65535
    depth = np.log(1 + files["depth"].astype(np.float64)) / np.log(2**16)
    np.testing.assert_allclose(sample["depth"][0][measured], depth[measured], rtol=1e-5)
    for target, strongest in (("keypoint", 0.005), ("edge", 0.08)):
        expected = np.clip(files[target] / 2**16, 0, strongest) / strongest * 2 - 1
        np.testing.assert_allclose(sample[target][0], expected, rtol=0, atol=1e-6)
        assert sample[target].min() == -1
        assert sample[target].max() == 1
        assert sample[f"{target}_valid"].all()


def test_class_0_is_the_value_0_and_every_class_has_its_weight(tmp_path: Path) -> None:
    files = make_files(0)
    files["seg"][0, :5] = (0, 1, 2, 16, 17)
    sample = Taskonomy(write_root(tmp_path, {"a": files}), "test", ("seg",))[(0, 0)]
    assert sample["seg"][0, :5].tolist() == [0, 0, 1, 15, 16]
    np.testing.assert_array_equal(sample["seg"], np.where(files["seg"] == 0, 0, files["seg"].astype(int) - 1))
    np.testing.assert_array_equal(sample["seg_weight"], CLASS_WEIGHTS.astype(np.float32)[sample["seg"]])


def test_normals_and_depth_are_valid_where_depth_was_measured(tmp_path: Path) -> None:
    files = make_files(0)
    files["depth"][0, :2] = (64499, 64500)
    sample = Taskonomy(write_root(tmp_path, {"a": files}), "test", TARGETS)[(0, 0)]
    assert sample["depth_valid"][0, 0, :2].tolist() == [True, False]
    np.testing.assert_array_equal(sample["depth_valid"][0], files["depth"] < 64500)
    np.testing.assert_array_equal(sample["normal_valid"], sample["depth_valid"])


def test_targets_not_asked_for_are_neither_read_nor_needed(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0)})
    for column in ("seg", "keypoint", "edge"):
        (root / column / "a.png").unlink()
    (root / CLASS_WEIGHTS_FILE).unlink()
    assert set(Taskonomy(root, "test", ("normal",))[(0, 0)]) == {"img", "normal", "normal_valid", "name"}
    (root / "depth" / "a.png").unlink()
    with pytest.raises(UserError, match=r"^1 files .*depth/a\.png"):  # it tells which normals are valid
        Taskonomy(root, "test", ("normal",))


def test_files_of_any_size_become_256x256_by_their_nearest_pixels(tmp_path: Path) -> None:
    files = make_files(0, 512, 768)
    files["depth"] = make_files(0)["depth"]
    sample = Taskonomy(write_root(tmp_path, {"a": files}), "test", TARGETS)[(0, 0)]
    np.testing.assert_allclose(sample["img"].transpose(1, 2, 0) + MEAN_BGR, files["rgb"][::2, ::3], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(sample["seg_weight"], CLASS_WEIGHTS.astype(np.float32)[sample["seg"]])
    np.testing.assert_array_equal(np.maximum(files["seg"][::2, ::3], 1) - 1, sample["seg"])
    np.testing.assert_array_equal(sample["depth_valid"][0], files["depth"] < 64500)
    np.testing.assert_allclose(sample["edge"][0], np.minimum(files["edge"][::2, ::3] / 5242.88, 1) * 2 - 1, atol=1e-6)


def test_the_release_validates_on_the_small_test_split(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0), "b": make_files(1)})
    assert [frame["img"].stem for frame in Taskonomy(root, "val", ("edge",)).frames] == ["b"]
    assert [frame["img"].stem for frame in Taskonomy(root, "test", ("edge",)).frames] == ["a", "b"]


# Augmentation


@pytest.mark.parametrize("augmentation", ["release", "geometric"])
def test_padding_is_invalid_for_every_target(tmp_path: Path, augmentation: str) -> None:
    files = make_files(0)
    files["depth"][:] = 0  # a distance like any other, but also what stands in padding before it is encoded
    sample = Taskonomy(write_root(tmp_path, {"a": files}), "train", TARGETS, (480, 480), augmentation)[(0, 0)]
    padding = sample["seg"] == 255
    assert padding[0].all()
    assert not padding.all()
    assert (sample["seg"][~padding] < 17).all()
    np.testing.assert_array_equal(sample["seg_weight"] == 0, padding)
    for target in ("normal", "depth", "keypoint", "edge"):
        np.testing.assert_array_equal(sample[f"{target}_valid"][0], ~padding)
    np.testing.assert_allclose(sample["img"][:, 0, 0], -MEAN_BGR, rtol=1e-6)


@pytest.mark.parametrize("augmentation", ["release", "geometric"])
def test_mirrored_normals_point_to_the_other_side(augmentation: str) -> None:
    normal = make_files(0)["normal"][:64, :64]
    sample = {"img": normal, "normal": normal}
    mirrored = AUGMENTATIONS[augmentation]((64, 64)).mirror(sample)["normal"][:, ::-1].astype(int)
    np.testing.assert_array_equal(mirrored[:, :, :2], normal[:, :, :2])
    np.testing.assert_array_equal(mirrored[:, :, 2], 255 - normal[:, :, 2].astype(int))


def test_geometric_augmentation_divides_linear_depth_and_keeps_its_validity(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0)})
    release, geometric = (
        Taskonomy(root, "train", TARGETS, (100, 100), augmentation) for augmentation in ("release", "geometric")
    )
    factors = []
    for pass_number in range(6):
        before, after = release[(pass_number, 0)], geometric[(pass_number, 0)]
        for key in before.keys() - {"depth", "name"}:
            np.testing.assert_array_equal(after[key], before[key])
        far = before["depth_valid"] & (before["depth"] > 0.8)
        distances = [2 ** (16 * sample["depth"][far].astype(np.float64)) - 1 for sample in (before, after)]
        factors.append(np.median(distances[0] / distances[1]))
        np.testing.assert_allclose(distances[0] / distances[1], factors[-1], rtol=1e-3)
    assert 0.5 < min(factors) < 1 < max(factors) < 1.5


def test_a_run_opens_it_by_name(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0)})
    settings = DataloadSection(dataset="Taskonomy", dataroot=str(root), crop_h=64, crop_w=48)
    options = DataOptions.of(settings, {"seg": 17, "normal": 3, "depth": 1, "keypoint": 1, "edge": 1}, seed=0)
    assert open_dataset("Taskonomy", options, "train", training=True)[(0, 0)]["edge"].shape == (1, 64, 48)
    assert open_dataset("Taskonomy", options, "val", training=False)[(0, 0)]["edge"].shape == (1, 256, 256)


# What bad data says


@pytest.mark.parametrize(
    ("column", "content", "message"),
    [
        ("rgb", b"text", "is not a whole image"),
        ("seg", np.full((256, 256), 18, dtype=np.uint8), r"holds the value 18, but 17 classes have values 0\.\.17"),
        ("seg", np.ones((256, 256), dtype=np.uint16), "must have one channel of 8 bits that holds class numbers"),
        ("normal", np.ones((256, 256), dtype=np.uint8), "must have three channels of 8 bits"),
        ("depth", np.ones((256, 256), dtype=np.uint8), "must have one channel of 16 bits that holds depth"),
        ("keypoint", np.ones((256, 256, 3), dtype=np.uint16), "must have one channel of 16 bits that holds keypoint"),
        ("edge", np.ones((256, 256), dtype=np.uint8), "must have one channel of 16 bits that holds edge"),
    ],
)
def test_file_that_contradicts_the_format_stops_with_its_path(
    tmp_path: Path, column: str, content: np.ndarray | bytes, message: str
) -> None:
    root = write_root(tmp_path, {"a": make_files(0), "b": make_files(1)})
    path = root / column / "b.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        assert cv2.imwrite(str(path), content)
    dataset = Taskonomy(root, "test", TARGETS)
    assert dataset[(0, 0)]["name"] == "a"
    with pytest.raises(UserError, match=f"{re.escape(str(path))} {message}"):
        dataset[(0, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": give the folder that holds it"),
        (np.ones(16), r"must hold one array \[17\]"),
        (np.ones(17, dtype=int), "floating-point class weights"),
        (np.full(17, np.nan), "negative or no finite number"),
        (np.linspace(-1, 1, 17), "negative or no finite number"),
    ],
)
def test_bad_class_weights_are_refused_before_a_frame_is_read(
    tmp_path: Path, content: np.ndarray | None, message: str
) -> None:
    root = write_root(tmp_path, {"a": make_files(0)})
    (root / CLASS_WEIGHTS_FILE).unlink()
    if content is not None:
        np.save(root / CLASS_WEIGHTS_FILE, content)
    with pytest.raises(UserError, match=f"{CLASS_WEIGHTS_FILE}.*{message}"):
        Taskonomy(root, "test", ("seg",))


def test_missing_split_file_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no taskonomy\.json.*--set dataload\.dataroot="):
        Taskonomy(tmp_path, "train", TARGETS)
