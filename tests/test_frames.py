"""Frames: which files a split file lists, and reading files of any kind."""

import errno
import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders import domainnet, frames
from dataloaders.frames import (
    Frames,
    encode_depth,
    find_file,
    read_array,
    read_channel,
    read_image,
    read_normals,
    read_split_file,
    refuse_missing,
)
from dataloaders.lists import MOST_BYTES_OF_A_LINE, read_lines
from dataloaders.picture_files import plain_png_channels
from utils.errors import UserError

COLUMNS = ("img", "depth", "label")


def test_a_row_gives_the_wanted_columns_in_the_wanted_order(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": [["i0", "d0", "l0"], ["i1", "d1", "l1"]], "test": []}))
    splits = read_split_file(path, COLUMNS, ["img", "label"])
    assert splits.members == {"train": [("i0", "l0"), ("i1", "l1")], "test": []}
    assert read_split_file(path, COLUMNS, ["label", "img"]).members["train"][1] == ("l1", "i1")
    assert splits.source == path


def test_a_split_file_is_read_as_the_json_that_it_is(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    for text in (
        "{}",
        ' { "a" : [ ] , "b":[["i","d","l"],\n["\\u00e9 \\"]","d,","{l"]\t]}\r\n',
        '{"é": [["日本", "\\ud83d\\ude00", "\\\\"]]}',
        json.dumps({"a": [["i", "d", "l"]] * 3}, indent=2),
    ):
        path.write_text(text, encoding="utf-8")
        expected = {split: [tuple(row) for row in rows] for split, rows in json.loads(text).items()}
        members = read_split_file(path, COLUMNS, COLUMNS).members
        assert list(members.items()) == list(expected.items())


NO_SPLIT_FILES = {
    "": "Expecting value",
    "[]": "holds a list, but must be of the form",
    "{": "Expecting a key",
    "{1: []}": "Expecting a key",
    '{"a" []}': "Expecting ':'",
    '{"a": {}}': "split 'a' of .* is not a list",
    '{"a": [': "Expecting value",
    '{"a": [["i", "d", "l"]': "Expecting ',' or ']'",
    '{"a": [["i", "d", "l"] ["i", "d", "l"]]}': "Expecting ',' or ']'",
    '{"a": [["i", "d", "l"],]}': "Expecting value",
    '{"a": [[}': "Expecting value",
    '{"a": []': "Expecting ',' or '}'",
    '{"a": [],}': "Expecting a key",
    '{"a": [], "a": []}': "the key 'a' stands there twice",
    '{"a": []} {}': "Extra data: line 1 column 11",
    '{"a": ' + "[" * 100_000: "nested too deeply",
    '{"a": [' + "1" * 5000 + "]}": "digits",
    '{"a": [["i", "d"]]}': "frame 0 of split 'a' .* is not a list of the 3 paths",
}


@pytest.mark.parametrize("text", NO_SPLIT_FILES)
def test_anything_but_a_split_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(UserError, match=NO_SPLIT_FILES[text]) as caught:
        read_split_file(path, COLUMNS, ["img"])
    assert str(path) in str(caught.value)


def test_a_row_that_several_splits_list_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": [["i0", "d0", "l0"]], "train1": [["i0", "d0", "l0"]]}))
    members = read_split_file(path, COLUMNS, COLUMNS).members
    assert members["train1"][0] is members["train"][0]


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


def turned() -> bytes:
    """What a camera says that was held upright."""
    orientation = Image.Exif()
    orientation[0x0112] = 6
    return orientation.tobytes()


@pytest.mark.parametrize(
    ("mode", "options", "is_plain"),
    [
        ("RGB", {}, True),
        ("RGB", {"compress_level": 0}, True),
        ("L", {}, True),
        ("RGB", {"transparency": (1, 2, 3)}, False),
        ("RGB", {"exif": turned()}, False),
        ("L", {"transparency": 7}, False),
        ("RGBA", {}, False),
        ("LA", {}, False),
        ("P", {}, False),
        ("1", {}, False),
        ("I;16", {}, False),
    ],
)
def test_pngs_of_all_kinds_are_read_as_opencv_reads_them(
    tmp_path: Path, mode: str, options: dict[str, Any], is_plain: bool
) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (30, 40, 3)).astype(np.uint8)
    path = tmp_path / "img.png"
    picture = Image.fromarray(pixels)
    (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(path, **options)
    assert (plain_png_channels(path.read_bytes()) is not None) == is_plain
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR))
    if mode in ("L", "I;16") and not options:
        channel = read_channel(path, np.uint8 if mode == "L" else np.uint16, "classes")
        np.testing.assert_array_equal(channel, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    elif mode == "RGB" and "transparency" not in options:
        np.testing.assert_array_equal(read_normals(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_with_a_flipped_bit_or_cut_short_is_refused(tmp_path: Path, dtype: type[np.unsignedinteger]) -> None:
    path = tmp_path / "seg.png"
    assert cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 40, (30, 40)).astype(dtype))
    whole = path.read_bytes()
    flipped = [bytearray(whole) for _ in range(0, len(whole) - 12, 7)]  # The last chunk, IEND, has no content.
    for place, content in enumerate(flipped):
        content[7 * place] ^= 1 << place % 8
    for content in [*flipped, *(whole[:length] for length in range(0, len(whole), 10))]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"seg\.png (is not a whole image|claims to be \d+x\d+ pixels)"):
            read_channel(path, dtype, "classes")


def test_size_without_sense_is_refused_although_opencv_raises(tmp_path: Path) -> None:
    path = tmp_path / "wide.bmp"
    assert cv2.imwrite(str(path), np.zeros((1, 9), np.uint8))
    content = bytearray(path.read_bytes())
    content[18:22] = (2**21).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"wide\.bmp is not a whole image that OpenCV can decode"):
        read_image(path)


def test_file_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png cannot be read \(No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"gone\.npy cannot be read \(No such file"):
        read_array(tmp_path / "gone.npy")


def test_archives_pickles_and_truncated_arrays_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "depth.npy"
    np.save(path, np.ones((40, 40)))
    np.testing.assert_array_equal(read_array(path), np.ones((40, 40)))
    np.save(path, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.testing.assert_array_equal(read_array(path), np.arange(6.0).reshape(2, 3))
    whole = path.read_bytes()
    np.savez(tmp_path / "archive.npz", np.ones(3))
    np.save(tmp_path / "pickle.npy", np.array([None]))
    others = [(tmp_path / name).read_bytes() for name in ("archive.npz", "pickle.npy")]
    for content in (whole[:-8], whole[:20], whole + b"\0", b"PK\x03\x04", *others):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"depth\.npy cannot be read as a NumPy array"):
            read_array(path)


def test_an_array_has_no_more_pixels_than_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataloaders.frames.MOST_PIXELS", 12)
    path = tmp_path / "img.npy"
    for shape in ((3, 4), (3, 4, 3), (12,)):
        np.save(path, np.ones(shape, np.float16))
        assert read_array(path).shape == shape
    for shape in ((13, 1), (1, 13), (13, 1, 1), (3, 4, 4), (1, 1, 37), (13,)):
        np.save(path, np.ones(shape, np.float16))
        with pytest.raises(UserError, match=r"img\.npy cannot be read .*\] has more than [0-9,]+ pixels"):
            read_array(path)


def test_a_disk_that_fails_in_the_middle_of_an_array_is_no_fault_of_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "depth.npy"
    np.save(path, np.ones(3))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(np.lib.format, "read_magic", fail)
    with pytest.raises(UserError, match=r"depth\.npy cannot be read \(Input/output error\): replace the file"):
        read_array(path)


def test_a_line_of_a_list_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a\n" + b"b" * MOST_BYTES_OF_A_LINE)
    assert [len(line) for line in read_lines(path, "a sample")] == [1, MOST_BYTES_OF_A_LINE]
    path.write_bytes(b"a\n" + b"b" * MOST_BYTES_OF_A_LINE + b"b\n")
    with pytest.raises(
        UserError, match=r"^line 2 of .*list\.txt has more than 1 MB, but must be 'a sample': shorten it"
    ):
        read_lines(path, "a sample")


def test_an_array_can_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.zeros(3))
    array = read_array(tmp_path / "depth.npy")
    array[1] = 5
    assert array.tolist() == [0, 5, 0]


def npy_file(header: str) -> bytes:
    """An npy file of version 1 with this header and four values of four bytes."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    "header",
    [
        HEADER % ("<f4", "(5,)"),
        HEADER % ("<f4", "(3,)"),
        HEADER % ("<f4", "(-1,)"),
        HEADER % ("<f4", f"({10**17},)"),
        HEADER % ("<f4", f"({10**30},)"),
        HEADER % ("<f4", f"(2, {2**62 + 2})"),
        HEADER % ("|O", "(2,)"),
        HEADER % ("|V2147483647", "(1,)"),
        HEADER % ("|V0", f"({10**9},)"),
        "[",
        "'" * 3,
        "-" * 9000 + "1",
        "(" * 4000,
        "{" + "'descr': '<f4', " * 1000,
        "1" + "+1" * 4000,
        " " * 30_000,
        "__import__('os').system('true')",
    ],
)
def test_header_that_does_not_fit_its_array_is_refused_in_one_line(tmp_path: Path, header: str) -> None:
    path = tmp_path / "depth.npy"
    path.write_bytes(npy_file(HEADER % ("<f4", "(2, 2)")))
    assert read_array(path).tolist() == [[0, 0], [0, 0]]
    path.write_bytes(npy_file(header))
    with pytest.raises(
        UserError, match=r"depth\.npy (cannot be read as a NumPy array|holds an array without)"
    ) as caught:
        read_array(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_threads_parse_headers_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's parser is not safe for threads: now and then it ends with a SystemError."""
    path = tmp_path / "array.npy"
    np.save(path, np.zeros((2, 3)))
    parsing: list[BinaryIO] = []
    at_once: list[int] = []
    parse = frames.NPY_HEADERS[1, 0]

    def parse_slowly(file: BinaryIO) -> tuple:
        parsing.append(file)
        at_once.append(len(parsing))
        time.sleep(0.001)
        parsing.remove(file)
        return parse(file)

    monkeypatch.setitem(frames.NPY_HEADERS, (1, 0), parse_slowly)
    with ThreadPoolExecutor(4) as executor:
        assert all(array.shape == (2, 3) for array in executor.map(read_array, [path] * 20))
    assert at_once == [1] * 20


READERS = (read_image, read_array, partial(read_lines, form="a sample"), domainnet.read_image)


@pytest.mark.parametrize("reader", READERS)
def test_whatever_is_no_readable_file_is_named_with_the_reason(tmp_path: Path, reader: Callable) -> None:
    path = tmp_path / "sample"
    os.mkfifo(path)  # Nobody writes into it: whoever opens it waits for good.
    with pytest.raises(UserError, match=r"sample cannot be read \(it is no regular file\)"):
        reader(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"sample cannot be read \(it is a folder\)"):
        reader(path)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(UserError, match=r"sample cannot be read \(Too many levels of symbolic links\)"):
        reader(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_disk_that_fails_is_named_and_a_full_table_of_files_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable
) -> None:
    path = tmp_path / "sample"
    path.touch()
    reasons = {errno.EIO: UserError, errno.EACCES: UserError, errno.EMFILE: OSError, errno.ENOMEM: OSError}
    for number, expected in reasons.items():

        def fail(*arguments: object, number: int = number, **options: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(Path, "open", fail)
        with pytest.raises(expected, match=re.escape(os.strerror(number))) as caught:
            reader(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("file", ["a\nb.png", "a\0.png", "\x1b[2J.png", "a" * 5000, 3, None, ["a.png"]])
def test_an_entry_that_can_be_no_path_is_refused_with_its_place(tmp_path: Path, file: object) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": [["i0", "d0", "l0"], ["i1", "d1", file]]}))
    with pytest.raises(
        UserError, match=r"^frame 1 of split 'train' of .*list\.json is not a list of the 3 paths"
    ) as caught:
        read_split_file(path, COLUMNS, ["img"])
    assert "\n" not in str(caught.value)


def test_a_data_root_whose_name_no_file_system_takes_is_no_folder() -> None:
    for root in (Path("a" * 5000), Path("a\0b")):
        with pytest.raises(UserError, match="is not a folder"):
            find_file(root, "list.json")
    with pytest.raises(UserError, match=r"has no a{5000}: give"):
        find_file(Path(), "a" * 5000)


def test_depth_is_valid_above_the_unmeasured_and_never_infinite() -> None:
    encoded = encode_depth(np.array([[-1, 0, 0.5, 0.6, np.nan, np.inf]], dtype=np.float32), unmeasured=0.5)
    assert encoded["depth_valid"].tolist() == [[[False, False, False, True, False, False]]]
    np.testing.assert_array_equal(encoded["depth"], np.float32([[[-1, 0, 0.5, 0.6, 0, 0]]]))
