"""CityScapes from raw files: every output against NumPy."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.cityscapes import CityScapes
from dataloaders.prepare.__main__ import main
from tests.raw_downloads import assert_refused, snapshot, write_cityscapes, write_picture

VIEWS = {
    "train": ["bremen_000001_000019", "aachen_000000_000019", "aachen_000001_000019", "aachen_000002_000019"],
    "val": ["ulm_000000_000019"],
}
ULM = "val/ulm/ulm_000000_000019"

# The official table: id -> (train id, category id less 1). Ids that are not here are not evaluated.
OFFICIAL = {
    7: (0, 0), 8: (1, 0), 11: (2, 1), 12: (3, 1), 13: (4, 1), 17: (5, 2), 19: (6, 2), 20: (7, 2), 21: (8, 3),
    22: (9, 3), 23: (10, 4), 24: (11, 5), 25: (12, 5), 26: (13, 6), 27: (14, 6), 28: (15, 6), 31: (16, 6),
    32: (17, 6), 33: (18, 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_cityscapes(folder, VIEWS, 768, 1536)  # three times as large as what is made of it
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = snapshot(raw)
    output = tmp_path_factory.mktemp("made")
    main(["cityscapes", str(raw), str(output), "--workers", "1"])
    assert snapshot(raw) == before
    return output


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def load(prepared: Path, kind: str) -> np.ndarray:
    return np.load(prepared / kind / "ulm_000000_000019.npy")


def test_image_is_the_mean_of_areas_in_rgb(raw: Path, prepared: Path) -> None:
    whole = read(raw / f"leftImg8bit/{ULM}_leftImg8bit.png")[..., ::-1] / 255
    image = load(prepared, "img")
    assert (image.dtype, image.shape) == (np.float32, (256, 512, 3))
    np.testing.assert_allclose(image, whole.reshape(256, 3, 512, 3, 3).mean(axis=(1, 3)), atol=1e-5)


def test_depth_is_inverse_metres_of_the_pixel_in_the_middle(raw: Path, prepared: Path) -> None:
    stored = read(raw / f"disparity/{ULM}_disparity.png")[1::3, 1::3].astype(float)
    depth = load(prepared, "depth")
    assert (depth.dtype, depth.shape) == (np.float32, (256, 512, 1))
    expected = np.where(stored > 0, (stored - 1) / 256 / (2262.52 * 0.209313), 0)
    np.testing.assert_allclose(depth[..., 0], expected, rtol=1e-5)
    assert (depth == 0).mean() > 0.1


def test_labels_follow_the_official_table(raw: Path, prepared: Path) -> None:
    ids = read(raw / f"gtFine/{ULM}_gtFine_labelIds.png")[1::3, 1::3]
    labels = {count: load(prepared, f"label{count}") for count in (2, 7, 19)}
    for identity in range(34):
        train_id, category = OFFICIAL.get(identity, (-1, -1))
        side = -1 if category < 0 else int(category >= 5)  # human and vehicle move
        pixels = ids == identity
        assert pixels.any()
        assert (labels[19][pixels] == train_id).all()
        assert (labels[7][pixels] == category).all()
        assert (labels[2][pixels] == side).all()


def test_splits_are_the_folders_and_train_is_divided(prepared: Path) -> None:
    splits = json.loads((prepared / "cityscape.json").read_text())
    names = {split: [Path(row[0]).stem for row in rows] for split, rows in splits.items()}
    assert names["train"] == sorted(VIEWS["train"])
    assert names["test"] == VIEWS["val"]
    assert sorted(names["train1"] + names["train2"]) == names["train"]
    assert len(names["train2"]) == 1
    kinds = ["img", "depth", "label2", "label7", "label19"]
    assert splits["test"] == [[f"{kind}/ulm_000000_000019.npy" for kind in kinds]]


@pytest.mark.parametrize("classes", [2, 7, 19])
def test_what_is_made_can_be_read(prepared: Path, classes: int) -> None:
    sample = CityScapes(prepared, "test", {"seg": classes, "depth": 1})[(0, 0)]
    labels = load(prepared, f"label{classes}").astype(int)
    np.testing.assert_array_equal(sample["seg"], np.where(labels < 0, 255, labels))
    np.testing.assert_array_equal(sample["depth_valid"][0], load(prepared, "depth")[..., 0] > 0)


def test_second_run_makes_what_is_missing_and_nothing_else(raw: Path, prepared: Path) -> None:
    before = snapshot(prepared)
    lost = "label7/aachen_000001_000019.npy"
    (prepared / lost).unlink()
    main(["cityscapes", str(raw), str(prepared), "--workers", "1"])
    after = snapshot(prepared)
    # A frame is made whole or not at all.
    assert {name for name in after if after[name] != before[name]} == {
        f"{kind}/aachen_000001_000019.npy" for kind in ("img", "depth", "label2", "label7", "label19")
    }
    assert after[lost][0] == before[lost][0]


def test_files_that_macos_left_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_cityscapes(tmp_path / "raw", {"train": ["aachen_000000_000019"] * 2, "val": VIEWS["val"]}, 64, 128)
    city = tmp_path / "raw/leftImg8bit/train/aachen"
    (city / "._aachen_000000_000019_leftImg8bit.png").write_bytes(b"Mac OS X")
    (city.parent / ".Trashes").mkdir()
    (city.parent / ".Trashes/aachen_000001_000019_leftImg8bit.png").write_bytes(b"Mac OS X")
    main(["cityscapes", str(tmp_path / "raw"), str(tmp_path / "made"), "--workers", "1"])
    assert ": train 1, test 1" in capsys.readouterr().out


# Bad input


def unlink(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def beyond_the_table(path: Path) -> None:
    write_picture(path, np.full((64, 128), 34, np.uint8))


def make_8_bit(path: Path) -> None:
    write_picture(path, np.zeros((64, 128), np.uint8))


def make_smaller(path: Path) -> None:
    write_picture(path, np.zeros((32, 64), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "file", "message"),
    [
        (unlink, f"gtFine/{ULM}_gtFine_labelIds.png", r"1 source files do not exist \(.*labelIds.png\): unpack"),
        (unlink, f"leftImg8bit/{ULM}_leftImg8bit.png", r"leftImg8bit/val holds no \{city\}/\*_leftImg8bit.png: give"),
        (truncate, f"leftImg8bit/{ULM}_leftImg8bit.png", "is not a whole image"),
        (beyond_the_table, f"gtFine/{ULM}_gtFine_labelIds.png", "holds the value 34, but label ids end at 33"),
        (make_smaller, f"gtFine/{ULM}_gtFine_labelIds.png", "is 32x64 pixels, but its image .* is 64x128"),
        (make_8_bit, f"disparity/{ULM}_disparity.png", "must have one channel of 16 bits that holds disparities"),
    ],
)
def test_bad_sources_end_with_one_sentence_and_code_2(
    spoil, file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_cityscapes(tmp_path / "raw", {"train": ["aachen_000000_000019"], "val": VIEWS["val"]}, 64, 128)
    spoil(tmp_path / "raw" / file)
    command = ["cityscapes", str(tmp_path / "raw"), str(tmp_path / "made"), "--workers", "1"]
    assert_refused(command, message, capsys)
    assert not (tmp_path / "made/cityscape.json").exists()
