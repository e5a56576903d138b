"""Files as they are written: what comes back, and in what form pictures are."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.frames import read_array, read_channel, read_image
from dataloaders.writing import write_array, write_png

RANDOM = np.random.RandomState(0)
UP = 2


def row_filters(content: bytes) -> set[int]:
    """The filters of a PNG's rows, by the numbers that the standard gives them."""
    width, height, bits, colours = struct.unpack_from(">IIBB", content, 16)
    packed, chunk = b"", 8
    while chunk < len(content):
        (length,) = struct.unpack_from(">I", content, chunk)
        if content[chunk + 4 : chunk + 8] == b"IDAT":
            packed += content[chunk + 8 : chunk + 8 + length]
        chunk += 12 + length
    row_length = 1 + width * bits // 8 * {0: 1, 2: 3}[colours]
    rows = zlib.decompress(packed)
    assert len(rows) == height * row_length
    return {*rows[::row_length]}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_come_back(tmp_path: Path, dtype: type[np.unsignedinteger]) -> None:
    values = RANDOM.randint(0, np.iinfo(dtype).max + 1, (30, 41)).astype(dtype)
    write_png(tmp_path / "seg.png", values)
    np.testing.assert_array_equal(read_channel(tmp_path / "seg.png", dtype, "classes"), values, strict=True)


def test_colours_come_back_in_opencvs_order(tmp_path: Path) -> None:
    picture = RANDOM.randint(0, 256, (30, 41, 3)).astype(np.uint8)
    write_png(tmp_path / "img.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "img.png"), picture[:, :, ::-1], strict=True)


@pytest.mark.skipif(not hasattr(cv2, "IMWRITE_PNG_FILTER"), reason="this OpenCV chooses filters itself")
def test_pictures_are_written_so_that_they_are_decoded_fast(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    for picture in (smooth, smooth[:, :, 0], smooth[:, :, 0].astype(np.uint16)):
        write_png(tmp_path / "img.png", picture)
        assert row_filters((tmp_path / "img.png").read_bytes()) == {UP}


def test_arrays_come_back(tmp_path: Path) -> None:
    depth = RANDOM.uniform(0, 10, (5, 6)).astype(np.float32)
    write_array(tmp_path / "depth.npy", depth)
    np.testing.assert_array_equal(read_array(tmp_path / "depth.npy"), depth, strict=True)
