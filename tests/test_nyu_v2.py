"""NYU v2: what a sample holds, which frames form a split, what augmentation depends on, what bad data say."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders import open_dataset
from dataloaders.nyu_v2 import SPLIT_FILE, NYUv2
from dataloaders.options import DataOptions
from dataloaders.transforms import IMAGE_MEAN_BGR, Sample
from tests.test_transforms import make_sample
from utils.config import DataloadSection
from utils.errors import UserError

TARGETS = ("seg", "normal", "depth")
FOLDERS = {"img": "img", "seg": "seg", "normal": "normal_mask", "depth": "depth"}


def write_frame(root: Path, name: str, sample: Sample) -> list[str]:
    """Write the four files of a frame below `root`; their paths relative to it."""
    paths = []
    for key, array in sample.items():
        path = root / FOLDERS[key] / f"{name}.{'npy' if key == 'depth' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if key == "depth":
            np.save(path, array)
        else:
            assert cv2.imwrite(str(path), array)
        paths.append(str(path.relative_to(root)))
    return paths


def make_root(root: Path, names: Sequence[str], **size: int) -> list[list[str]]:
    """A bare folder with one frame per name, frame i made from seed i; the rows for a split file."""
    return [write_frame(root, name, make_sample(seed, **size)) for seed, name in enumerate(names)]


def write_split_file(root: Path, splits: object) -> None:
    (root / SPLIT_FILE).write_text(json.dumps(splits))


def names_of(root: Path, split: str, **options: str | int) -> list[str]:
    return [frame["img"].stem for frame in NYUv2(root, split, TARGETS, **options).frames]


# What a sample holds


def test_sample_holds_what_the_files_hold(tmp_path: Path) -> None:
    make_root(tmp_path, ["a", "b"])
    files = make_sample(1)
    sample = NYUv2(tmp_path, "test", TARGETS)[(0, 1)]

    shapes = {key: (array.dtype, array.shape) for key, array in sample.items() if key != "name"}
    assert shapes == {
        "img": (np.float32, (3, 12, 16)),
        "seg": (np.int64, (12, 16)),
        "normal": (np.float32, (3, 12, 16)),
        "normal_valid": (bool, (1, 12, 16)),
        "depth": (np.float32, (1, 12, 16)),
        "depth_valid": (bool, (1, 12, 16)),
    }
    assert sample["name"] == "b"
    for channel, mean in enumerate((104.00698793, 116.66876762, 122.67891434)):  # B, G, R
        expected = files["img"][:, :, channel] - mean
        np.testing.assert_allclose(sample["img"][channel], expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(sample["normal"][channel], files["normal"][:, :, channel])
    np.testing.assert_array_equal(sample["seg"], files["seg"])
    np.testing.assert_array_equal(sample["depth"][0], files["depth"])


def test_validity_excludes_white_normals_and_unmeasured_depth_alone(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    sample = NYUv2(tmp_path, "test", ("normal", "depth"))[(0, 0)]
    normal_valid = np.ones((12, 16), dtype=bool)
    normal_valid[:2, :5] = False
    depth_valid = np.ones((12, 16), dtype=bool)
    depth_valid[:4, :2] = False
    depth_valid[4, 0] = False  # exactly the bound
    np.testing.assert_array_equal(sample["normal_valid"][0], normal_valid)
    np.testing.assert_array_equal(sample["depth_valid"][0], depth_valid)


def test_decoded_normals_are_components_with_zero_where_ignored(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    raw = NYUv2(tmp_path, "test", ("normal",))[(0, 0)]
    decoded = NYUv2(tmp_path, "test", ("normal",), normals="decoded")[(0, 0)]
    np.testing.assert_array_equal(decoded["normal_valid"], raw["normal_valid"])
    expected = np.where(raw["normal_valid"], raw["normal"] / 127.5 - 1, 0)
    np.testing.assert_allclose(decoded["normal"], expected, atol=1e-6)
    assert decoded["normal"].dtype == np.float32
    np.testing.assert_allclose(decoded["normal"][:, 5, 5], (-1, -1, 1))
    assert (raw["normal"][:, 0, 0] == 255).all()


def test_depth_that_is_no_number_counts_as_unmeasured(tmp_path: Path) -> None:
    files = make_sample(0)
    files["depth"][6, :3] = (np.nan, np.inf, -np.inf)
    write_frame(tmp_path, "a", files)
    sample = NYUv2(tmp_path, "test", ("depth",))[(0, 0)]
    assert not sample["depth_valid"][0, 6, :3].any()
    assert (sample["depth"][0, 6, :3] == 0).all()
    assert sample["depth_valid"][0, 6, 3:].all()


def test_targets_not_asked_for_are_neither_read_nor_needed(tmp_path: Path) -> None:
    rows = make_root(tmp_path, ["a", "b"])
    for path in (tmp_path / "depth").iterdir():
        path.unlink()
    assert set(NYUv2(tmp_path, "test", ("seg", "normal"))[(0, 0)]) == {
        "img",
        "seg",
        "normal",
        "normal_valid",
        "name",
    }
    write_split_file(tmp_path, {"test": rows})
    assert len(NYUv2(tmp_path, "test", ("seg", "normal"))) == 2
    with pytest.raises(UserError, match=r"^2 files .*depth/a\.npy"):
        NYUv2(tmp_path, "test", TARGETS)


# Which frames form a split


def test_bare_folder_is_train_and_test_and_says_so(tmp_path: Path) -> None:
    make_root(tmp_path, ["c", "a", "b", "d"])
    (tmp_path / "seg" / "d.png").unlink()
    dataset = NYUv2(tmp_path, "test", TARGETS)
    assert [frame["img"].stem for frame in dataset.frames] == ["a", "b", "c"]
    assert f"{tmp_path} has no {SPLIT_FILE}: its 3 frames serve as train and as test" in dataset.notes
    assert any("1 images" in note and "left out" in note for note in dataset.notes)
    assert names_of(tmp_path, "train") == names_of(tmp_path, "val") == ["a", "b", "c"]
    assert len(NYUv2(tmp_path, "test", ("normal", "depth"))) == 4


def test_listed_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = make_root(tmp_path, ["a", "b", "c", "d"])
    absolute = [str(tmp_path / path) for path in rows[3]]
    write_split_file(tmp_path, {"train": rows[:3], "train1": rows[2:0:-1], "train2": rows[:1], "test": [absolute]})
    assert names_of(tmp_path, "train") == ["a", "b", "c"]
    assert names_of(tmp_path, "train1") == ["c", "b"]
    assert names_of(tmp_path, "train2") == ["a"]
    assert names_of(tmp_path, "test") == names_of(tmp_path, "val") == ["d"]
    assert NYUv2(tmp_path, "test", TARGETS).notes == ()


def test_listed_val_does_not_pass_for_the_test_split(tmp_path: Path) -> None:
    rows = make_root(tmp_path, ["a", "b"])
    write_split_file(tmp_path, {"train": rows[:1], "val": rows[1:]})
    assert names_of(tmp_path, "val", validation="held_out") == ["b"]
    with pytest.raises(UserError, match="has no split 'val'"):
        NYUv2(tmp_path, "val", TARGETS)


@pytest.mark.parametrize(("frames", "policy_frames"), [(2, 1), (3, 1), (5, 1), (20, 4)])
def test_train_is_divided_alike_in_every_run(tmp_path: Path, frames: int, policy_frames: int) -> None:
    names = [f"{number:02d}" for number in range(frames)]
    make_root(tmp_path, names)
    train1, train2 = names_of(tmp_path, "train1", seed=0), names_of(tmp_path, "train2", seed=1)
    assert sorted(train1 + train2) == names
    assert len(train2) == policy_frames
    assert train1 == sorted(train1)
    assert train2 == names_of(tmp_path, "train2", seed=2)
    assert train2 != names[-policy_frames:] or frames < 20, "the division is random, not the end of the list"


def test_held_out_frames_are_in_no_training_split(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(20)]
    rows = make_root(tmp_path, [*names, "test"])
    listed = {"train": rows[:20], "test": rows[20:]}
    for splits in (listed, listed | {"train1": rows[:16], "train2": rows[16:20]}):
        write_split_file(tmp_path, splits)
        held_out = names_of(tmp_path, "val", validation="held_out")
        assert len(held_out) == 2
        train = names_of(tmp_path, "train", validation="held_out")
        assert train == [name for name in names if name not in held_out]
        parts = [names_of(tmp_path, part, validation="held_out") for part in ("train1", "train2")]
        assert sorted(parts[0] + parts[1]) == train
        assert names_of(tmp_path, "val") == ["test"]
        assert any("held out" in note for note in NYUv2(tmp_path, "val", TARGETS, validation="held_out").notes)

    write_split_file(tmp_path, listed | {"val": rows[3:5]})
    assert names_of(tmp_path, "val", validation="held_out") == names[3:5]
    assert names_of(tmp_path, "train", validation="held_out") == [*names[:3], *names[5:]]
    assert not {*names[3:5]} & {*names_of(tmp_path, "train1", validation="held_out")}
    assert names_of(tmp_path, "train") == names
    assert names_of(tmp_path, "val") == ["test"]


def test_at_least_one_frame_is_held_out(tmp_path: Path) -> None:
    make_root(tmp_path, ["a", "b", "c"])
    parts = [names_of(tmp_path, part, validation="held_out") for part in ("val", "train1", "train2")]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert sorted(name for part in parts for name in part) == ["a", "b", "c"]


# Augmentation


def test_augmented_sample_depends_on_its_key_alone(tmp_path: Path) -> None:
    rows = make_root(tmp_path, ["a", "b"], height=40, width=40)

    def fetch(key: tuple[int, int], seed: int = 3, split: str = "train") -> np.ndarray:
        return NYUv2(tmp_path, split, TARGETS, (8, 8), "release", seed=seed)[key]["img"]

    dataset = NYUv2(tmp_path, "train", TARGETS, (8, 8), "release", seed=3)
    first = dataset[(5, 1)]["img"]
    np.random.seed(0)
    dataset[(0, 0)]
    assert first.shape == (3, 8, 8)
    np.testing.assert_array_equal(dataset[(5, 1)]["img"], first)
    np.testing.assert_array_equal(fetch((5, 1)), first)
    write_split_file(tmp_path, {"train": [rows[1], rows[1]], "test": [rows[1], rows[1]]})
    np.testing.assert_array_equal(fetch((5, 1)), first)
    for other in (fetch((6, 1)), fetch((5, 0)), fetch((5, 1), seed=4), fetch((5, 1), split="test")):
        assert not np.array_equal(other, first)


def test_padding_of_a_training_sample_is_the_negative_mean(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    sample = NYUv2(tmp_path, "train", TARGETS, (64, 64), "geometric", normals="decoded")[(0, 0)]
    np.testing.assert_allclose(sample["img"][:, 0, 0], -IMAGE_MEAN_BGR)
    assert sample["seg"][0, 0] == 255
    assert (sample["normal"][:, 0, 0] == 0).all()
    assert not sample["normal_valid"][0, 0, 0]
    assert not sample["depth_valid"][0, 0, 0]


# What bad data says


def test_missing_data_root_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"nowhere is not a folder.*{SPLIT_FILE}.*--set dataload\.dataroot="):
        NYUv2(tmp_path / "nowhere", "train", TARGETS)
    with pytest.raises(UserError, match=r"0 in img/\*\.png.*--set dataload\.dataroot="):
        NYUv2(tmp_path, "train", TARGETS)


def test_crop_and_augmentation_belong_together(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    with pytest.raises(ValueError, match="both or neither"):
        NYUv2(tmp_path, "train", TARGETS, crop_size=(8, 8))


ROW = ["img/a.png", "seg/a.png", "normal_mask/a.png", "depth/a.npy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", r"holds a list, but must be of the form"),
        ('{"test": {}}', "split 'test' .* is not a list"),
        (json.dumps({"test": [ROW, ROW[:3]]}), "frame 1 of split 'test' .* is not a list of the 4 paths"),
        (json.dumps({"test": [[*ROW[:3], 4]]}), "frame 0 of split 'test'"),
        (json.dumps({"train": [ROW]}), "has no split 'test', only train"),
        (json.dumps({"test": []}), "split 'test' .* is empty"),
        (json.dumps({"test": [ROW], "train": [ROW], "train1": [ROW]}), "'train1' alone"),
        (
            json.dumps({"test": [["img/x.png", *ROW[1:3], "depth/x.npy"]]}),
            r"^2 files .*/img/x\.png, .*x\.npy\)",
        ),
    ],
)
def test_bad_split_file_is_named_with_its_fault(tmp_path: Path, content: str, message: str) -> None:
    make_root(tmp_path, ["a"])
    (tmp_path / SPLIT_FILE).write_text(content)
    with pytest.raises(UserError, match=message):
        NYUv2(tmp_path, "test", TARGETS)


def test_many_missing_files_are_counted_and_three_named(tmp_path: Path) -> None:
    write_split_file(tmp_path, {"test": [ROW, ROW]})
    with pytest.raises(UserError, match=r"^8 files") as caught:
        NYUv2(tmp_path, "test", TARGETS)
    assert str(caught.value).count(str(tmp_path / "")) == 4  # the split file and three of its files


def test_one_frame_cannot_be_divided(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    assert names_of(tmp_path, "train1") == ["a"]
    with pytest.raises(UserError, match=r"split 'train2' .* is empty.*at least 2"):
        NYUv2(tmp_path, "train2", TARGETS)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("img/a.png", b"", "not a whole image"),
        ("img/a.png", b"text", "not a whole image"),
        ("depth/a.npy", b"text", "cannot be read as a NumPy array"),
        ("depth/a.npy", b"", "cannot be read as a NumPy array"),
        ("depth/a.npy", np.ones((12, 16), dtype=np.int32), "floating-point metres"),
        ("depth/a.npy", np.ones((12, 16, 2), dtype=np.float32), "floating-point metres"),
        (
            "depth/a.npy",
            np.ones((6, 16), dtype=np.float32),
            r"is 6x16 pixels, but its image .*img/a\.png is 12x16",
        ),
        ("depth/a.npy", np.array([[None]]), "cannot be read as a NumPy array"),
        ("seg/a.png", np.ones((12, 16, 3), dtype=np.uint8), "one channel of 8 bits"),
        ("seg/a.png", np.ones((12, 16), dtype=np.uint16), "one channel of 8 bits"),
        ("seg/a.png", np.ones((12, 8), dtype=np.uint8), "is 12x8 pixels"),
        ("normal_mask/a.png", np.ones((12, 16), dtype=np.uint8), "three channels of 8 bits"),
        ("normal_mask/a.png", np.ones((12, 16, 3), dtype=np.uint16), "three channels of 8 bits"),
    ],
)
def test_bad_file_is_named_with_its_fault(tmp_path: Path, file: str, content: bytes | np.ndarray, message: str) -> None:
    make_root(tmp_path, ["a"])
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        assert cv2.imwrite(str(path), content)
    with pytest.raises(UserError, match=f"{file} .*{message}|{file} {message}"):
        NYUv2(tmp_path, "test", TARGETS)[(0, 0)]


def test_truncated_image_is_refused(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    path = tmp_path / "img" / "a.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.png is not a whole image"):
        NYUv2(tmp_path, "test", TARGETS)[(0, 0)]


def test_unknown_data_set_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    make_root(tmp_path, ["a"])
    settings = DataloadSection(dataset="NYU_v2", dataroot=str(tmp_path))
    options = DataOptions.of(settings, {"seg": 40, "normal": 3, "depth": 1}, seed=0)
    assert len(open_dataset("NYU_v2", options, "test", training=False)) == 1
    with pytest.raises(UserError, match=r"'NYU'.*NYU_v2"):
        open_dataset("NYU", options, "test", training=False)
