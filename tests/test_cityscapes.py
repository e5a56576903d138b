"""CityScapes: what a sample holds, which labels it takes, small resolution, augmentation, what bad data say."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dataloaders import open_dataset
from dataloaders.cityscapes import AUGMENTATIONS, SPLIT_FILE, CityScapes
from dataloaders.options import DataOptions
from utils.config import DataloadSection
from utils.errors import UserError

TARGETS = {"seg": 19, "depth": 1}
COLUMNS = ("img", "depth", "label2", "label7", "label19")
MEAN_BGR = np.array([104.00698793, 116.66876762, 122.67891434])


def make_files(seed: int, height: int = 12, width: int = 16) -> dict[str, np.ndarray]:
    """The arrays of one frame. The coarser labels are the finer ones, cut off."""
    random = np.random.RandomState(seed)
    labels = random.randint(-1, 19, (height, width))
    labels[0, :3] = (-1, 0, 18)
    files = {
        "img": random.uniform(0, 1, (height, width, 3)).astype(np.float32),
        "depth": random.uniform(0.01, 0.5, (height, width, 1)).astype(np.float32),
        "label2": np.minimum(labels, 1),
        "label7": np.minimum(labels, 6),
        "label19": labels,
    }
    files["img"][0, :2] = [(0, 0, 0), (1, 1, 1)]
    files["depth"][0, :5, 0] = (0, -0.1, np.nan, np.inf, 1e-6)
    return files


def write_root(root: Path, frames: Mapping[str, dict[str, np.ndarray]]) -> Path:
    """A data root in which every frame is train and test."""
    rows = [[f"{column}/{name}.npy" for column in COLUMNS] for name in frames]
    for row, files in zip(rows, frames.values(), strict=True):
        for path, column in zip(row, COLUMNS, strict=True):
            (root / path).parent.mkdir(exist_ok=True)
            np.save(root / path, files[column])
    (root / SPLIT_FILE).write_text(json.dumps({"train": rows, "test": rows}))
    return root


# What a sample holds


def test_sample_holds_what_the_files_hold(tmp_path: Path) -> None:
    files = make_files(1)
    sample = CityScapes(write_root(tmp_path, {"a": make_files(0), "b": files}), "test", TARGETS)[(0, 1)]

    shapes = {key: (array.dtype, array.shape) for key, array in sample.items() if key != "name"}
    assert shapes == {
        "img": (np.float32, (3, 12, 16)),
        "seg": (np.int64, (12, 16)),
        "depth": (np.float32, (1, 12, 16)),
        "depth_valid": (bool, (1, 12, 16)),
    }
    assert sample["name"] == "b"
    expected = files["img"][:, :, ::-1].astype(np.float64) * 255 - MEAN_BGR
    np.testing.assert_allclose(sample["img"], expected.transpose(2, 0, 1), rtol=0, atol=3e-5)
    np.testing.assert_array_equal(sample["seg"], np.where(files["label19"] == -1, 255, files["label19"]))
    assert sample["seg"][0, :3].tolist() == [255, 0, 18]
    valid = np.ones((12, 16), dtype=bool)
    valid[0, :4] = False
    np.testing.assert_array_equal(sample["depth_valid"][0], valid)
    np.testing.assert_array_equal(sample["depth"][0][valid], files["depth"][:, :, 0][valid])
    assert np.isfinite(sample["depth"]).all()


@pytest.mark.parametrize("num_classes", [2, 7, 19])
def test_number_of_classes_chooses_the_labels(tmp_path: Path, num_classes: int) -> None:
    files = make_files(0)
    write_root(tmp_path, {"a": files})
    for column in {"depth", "label2", "label7", "label19"} - {f"label{num_classes}"}:
        (tmp_path / column / "a.npy").unlink()
    sample = CityScapes(tmp_path, "test", {"seg": num_classes})[(0, 0)]
    labels = files[f"label{num_classes}"]
    np.testing.assert_array_equal(sample["seg"], np.where(labels < 0, 255, labels))
    assert set(sample) == {"img", "seg", "name"}


def test_other_numbers_of_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tasks_num_class gives seg 40 classes.*2, 7 or 19"):
        CityScapes(write_root(tmp_path, {"a": make_files(0)}), "test", {"seg": 40, "depth": 1})


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_labels_may_be_stored_as_any_whole_numbers(tmp_path: Path, dtype: type) -> None:
    files = make_files(0)
    expected = np.where(files["label19"] < 0, 255, files["label19"])
    root = write_root(tmp_path, {"a": files | {"label19": files["label19"].astype(dtype)}})
    np.testing.assert_array_equal(CityScapes(root, "test", TARGETS)[(0, 0)]["seg"], expected)


def test_depth_may_lack_its_last_axis_and_arrays_may_be_of_double_precision(tmp_path: Path) -> None:
    files = make_files(0)
    other = {"depth": files["depth"][:, :, 0].astype(np.float64), "img": files["img"].astype(np.float64)}
    dataset = CityScapes(write_root(tmp_path, {"a": files, "b": files | other}), "test", TARGETS)
    first, second = dataset[(0, 0)], dataset[(0, 1)]
    for key in ("img", "depth", "depth_valid"):
        np.testing.assert_array_equal(second[key], first[key])
        assert second[key].dtype == first[key].dtype


# Small resolution


def test_small_resolution_averages_the_image_and_picks_nearest_targets(tmp_path: Path) -> None:
    files = make_files(0, 256, 512)
    sample = CityScapes(write_root(tmp_path, {"a": files}), "test", TARGETS, small_res=True)[(0, 0)]
    means = files["img"].reshape(128, 2, 256, 2, 3).mean(axis=(1, 3))[:, :, ::-1] * 255 - MEAN_BGR
    np.testing.assert_allclose(sample["img"], means.transpose(2, 0, 1), rtol=0, atol=1e-3)
    labels, depth = files["label19"][::2, ::2], files["depth"][::2, ::2, 0]
    np.testing.assert_array_equal(sample["seg"], np.where(labels < 0, 255, labels))
    np.testing.assert_array_equal(sample["depth"][sample["depth_valid"]], depth[(depth > 0) & np.isfinite(depth)])


def test_small_resolution_leaves_small_files_as_they_are(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0, 128, 256)})
    small, whole = (CityScapes(root, "test", TARGETS, small_res=choice)[(0, 0)] for choice in (True, False))
    for key in ("img", "seg", "depth", "depth_valid"):
        np.testing.assert_array_equal(small[key], whole[key])


# Augmentation


def test_geometric_augmentation_brings_things_nearer_and_changes_nothing_else(tmp_path: Path) -> None:
    sample = CityScapes(write_root(tmp_path, {"a": make_files(0)}), "test", TARGETS)
    frame = sample.read(sample.frames[0])
    for seed in range(10):
        release = AUGMENTATIONS["release"]((10, 10))(frame, np.random.default_rng(seed))
        geometric = AUGMENTATIONS["geometric"]((10, 10))(frame, np.random.default_rng(seed))
        factor = np.random.default_rng(seed).uniform(0.5, 1.5)  # the augmentation's first draw
        np.testing.assert_array_equal(geometric["img"], release["img"])
        np.testing.assert_array_equal(geometric["seg"], release["seg"])
        np.testing.assert_allclose(geometric["depth"], release["depth"] * factor, rtol=1e-5)


@pytest.mark.parametrize("augmentation", ["release", "geometric"])
def test_padding_is_black_and_labelled_nowhere(tmp_path: Path, augmentation: str) -> None:
    files = make_files(0)
    files["label19"][:] = 3
    files["depth"][:] = 0.25
    root = write_root(tmp_path, {"a": files})
    sample = CityScapes(root, "train", TARGETS, (32, 32), augmentation)[(0, 0)]
    padding = sample["seg"] == 255
    assert padding[0].all()
    assert not padding.all()
    np.testing.assert_array_equal(sample["depth_valid"][0], ~padding)
    np.testing.assert_allclose(sample["img"][:, 0, 0], -MEAN_BGR, rtol=1e-6)


def test_a_run_opens_it_by_name(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0)})
    settings = DataloadSection(dataset="CityScapes", dataroot=str(root), crop_h=6, crop_w=8, small_res=True)
    options = DataOptions.of(settings, TARGETS, seed=0)
    assert open_dataset("CityScapes", options, "train", training=True)[(0, 0)]["img"].shape == (3, 6, 8)
    assert open_dataset("CityScapes", options, "val", training=False)[(0, 0)]["img"].shape == (3, 128, 256)


# What bad data says


def test_missing_data_root_and_split_file_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a folder.*cityscape\.json.*--set dataload\.dataroot="):
        CityScapes(tmp_path / "nowhere", "train", TARGETS)
    with pytest.raises(UserError, match=r"has no cityscape\.json.*--set dataload\.dataroot="):
        CityScapes(tmp_path, "train", TARGETS)


def test_rows_of_another_length_are_answered_with_the_columns(tmp_path: Path) -> None:
    (tmp_path / SPLIT_FILE).write_text(json.dumps({"test": [["img/a.npy", "depth/a.npy", "label19/a.npy"]]}))
    with pytest.raises(UserError, match=r"frame 0 of split 'test' .* the 5 paths img, depth, label2, label7, label19"):
        CityScapes(tmp_path, "test", TARGETS)


def filled(column: str, value: float) -> np.ndarray:
    """The column's array of frame 0 as floating-point numbers, with one value replaced."""
    array = make_files(0)[column].astype(np.float32)
    array[3, 4] = value
    return array


@pytest.mark.parametrize(
    ("column", "content", "message"),
    [
        ("img", make_files(0)["img"] * 255, r"holds values from 0 to 255, but RGB is 0\.\.1"),
        ("img", filled("img", -0.1), r"holds values from -0\.1 to 1,"),
        ("img", filled("img", np.nan), r"holds values from nan to nan"),
        ("img", make_files(0)["img"][:, :, 0], r"must hold one array \[H, W, 3\] of floating-point RGB"),
        ("img", np.zeros((12, 16, 3), dtype=np.uint8), r"must hold one array \[H, W, 3\] of floating-point RGB"),
        ("img", np.zeros((3, 12, 16), dtype=np.float32), r"must hold one array \[H, W, 3\]"),
        ("img", np.zeros((0, 16, 3), dtype=np.float32), "holds an array without a single value"),
        ("label19", filled("label19", 19), r"holds 19 where a class 0\.\.18 or -1 \(ignore\) should be"),
        ("label19", filled("label19", -2), "holds -2 where a class"),
        ("label19", filled("label19", 2.5), r"holds 2\.5 where a class"),
        ("label19", filled("label19", np.nan), "holds nan where a class"),
        ("label19", make_files(0)["label19"][:, :, None], r"must hold one array \[H, W\] of class numbers"),
        ("label19", make_files(0)["label19"] > 2, r"must hold one array \[H, W\] of class numbers"),
        ("label19", make_files(0, 6, 16)["label19"], r"is 6x16 pixels, but its image .*img/a\.npy is 12x16"),
        ("depth", np.ones((12, 16, 3), dtype=np.float32), r"must hold one array \[H, W, 1\] of floating-point inverse"),
        ("depth", np.ones((12, 16, 1), dtype=np.uint16), r"must hold one array \[H, W, 1\] of floating-point inverse"),
        ("depth", make_files(0, 12, 8)["depth"], r"is 12x8 pixels, but its image"),
    ],
)
def test_file_that_contradicts_the_format_is_named(
    tmp_path: Path, column: str, content: np.ndarray, message: str
) -> None:
    root = write_root(tmp_path, {"a": make_files(0) | {column: content}})
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path))}/{column}/a.npy {message}"):
        CityScapes(root, "test", TARGETS)[(0, 0)]


def test_image_may_leave_its_range_by_a_rounding_error(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"a": make_files(0) | {"img": filled("img", 1 + 1e-6)}})
    assert CityScapes(root, "test", TARGETS)[(0, 0)]["img"][2, 3, 4] == pytest.approx(255 - MEAN_BGR[2], abs=1e-3)
