"""Frames: which files a split file lists, and reading files of any kind."""

import json
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders.frames import (
    Frames,
    encode_depth,
    is_truncated_jpeg,
    read_array,
    read_channel,
    read_image,
    read_split_file,
    refuse_missing,
)
from utils.errors import UserError

COLUMNS = ("img", "depth", "label")


def test_a_row_gives_the_wanted_columns_in_the_wanted_order(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": [["i0", "d0", "l0"], ["i1", "d1", "l1"]], "test": []}))
    splits = read_split_file(path, COLUMNS, ["img", "label"])
    assert splits.members == {"train": [("i0", "l0"), ("i1", "l1")], "test": []}
    assert read_split_file(path, COLUMNS, ["label", "img"]).members["train"][1] == ("l1", "i1")
    assert splits.source == path


def test_frames_are_paths_below_the_root_unless_they_are_absolute(tmp_path: Path) -> None:
    elsewhere = str(tmp_path.parent / "depth.npy")
    frames = Frames(tmp_path, ["img", "depth"], [("a.png", "a.npy"), ("b.png", elsewhere)])
    assert frames[0] == {"img": tmp_path / "a.png", "depth": tmp_path / "a.npy"}
    assert frames[1]["depth"] == Path(elsewhere)
    assert list(frames) == [frames[0], frames[1]]
    assert list(frames[1:]) == [frames[1]]
    assert len(frames) == 2


def test_missing_files_are_counted_and_existing_ones_pass(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    frames = Frames(tmp_path, ["img", "depth"], [("a.png", "a.npy"), ("b.png", str(tmp_path / "a.png"))])
    with pytest.raises(UserError, match=r"^2 files that split 'train' .*/a\.npy, .*/b\.png\)"):
        refuse_missing(frames.files(), "train", tmp_path / "list.json")
    (tmp_path / "a.npy").touch()
    (tmp_path / "b.png").touch()
    refuse_missing(frames.files(), "train", tmp_path / "list.json")


def test_channel_of_16_bits_is_read_as_it_is(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / "depth.png"
    assert cv2.imwrite(str(path), values)
    read = read_channel(path, np.uint16, "depth")
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.uint16
    with pytest.raises(UserError, match="must have one channel of 8 bits that holds classes"):
        read_channel(path, np.uint8, "classes")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a whole image"):
        read_channel(path, np.uint16, "depth")


def encoded_jpeg(preview: bool, progressive: bool) -> bytes:
    """A JPEG of 64x64 random pixels, with another whole one in its header as cameras put it there."""
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8))
    content, small = BytesIO(), BytesIO()
    image.resize((8, 8)).save(small, "JPEG")
    exif = b"Exif\0\0" + small.getvalue() if preview else b""
    image.save(content, "JPEG", exif=exif, progressive=progressive)
    return content.getvalue()


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused_whatever_opencv_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preview: bool, progressive: bool
) -> None:
    path = tmp_path / "image.jpg"
    whole = encoded_jpeg(preview, progressive)
    for content in (whole, whole + b"\0 and more \xff\xda", whole[:2] + b"\xff" + whole[2:]):
        path.write_bytes(content)
        assert read_image(path).shape == (64, 64, 3)
    # OpenCV 5 refuses; 4 returns what it has, and grey for the rest.
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: np.full((64, 64, 3), 128, np.uint8))
    for length in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"image\.jpg is not a whole image"):
            read_image(path)


def test_only_a_jpeg_can_be_a_truncated_one() -> None:
    assert is_truncated_jpeg(b"\xff\xd8")
    assert is_truncated_jpeg(b"\xff\xd8\xff\xe0" + bytes(40))
    assert not is_truncated_jpeg(b"\x89PNG\r\n")


def test_file_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png cannot be read \(No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"gone\.npy cannot be read as a NumPy array"):
        read_array(tmp_path / "gone.npy")


def test_archives_pickles_and_truncated_arrays_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "depth.npy"
    np.save(path, np.ones((40, 40)))
    np.testing.assert_array_equal(read_array(path), np.ones((40, 40)))
    whole = path.read_bytes()
    np.savez(tmp_path / "archive.npz", np.ones(3))
    np.save(tmp_path / "pickle.npy", np.array([None]))
    others = [(tmp_path / name).read_bytes() for name in ("archive.npz", "pickle.npy")]
    for content in (whole[:-8], whole[:20], b"PK\x03\x04", *others):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"depth\.npy cannot be read as a NumPy array"):
            read_array(path)


def test_depth_is_valid_above_the_unmeasured_and_never_infinite() -> None:
    encoded = encode_depth(np.array([[-1, 0, 0.5, 0.6, np.nan, np.inf]], dtype=np.float32), unmeasured=0.5)
    assert encoded["depth_valid"].tolist() == [[[False, False, False, True, False, False]]]
    np.testing.assert_array_equal(encoded["depth"], np.float32([[[-1, 0, 0.5, 0.6, 0, 0]]]))
