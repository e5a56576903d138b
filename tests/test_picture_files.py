"""Picture files before they are decoded: the size that a header claims, and what is refused for it."""

import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dataloaders import domainnet, frames
from dataloaders.picture_files import MOST_JPEG_SCANS, MOST_PIXELS, is_truncated_jpeg, picture_size
from utils.errors import UserError

HEIGHT, WIDTH = 40, 64
PIXELS = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
READERS = (frames.read_image, domainnet.read_image)


def encoded(form: str, mode: str = "RGB", **options: object) -> bytes:
    """The file of a picture of random pixels."""
    content = BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(content, form, **options)
    return content.getvalue()


def encoded_jpeg(preview: bool, progressive: bool) -> bytes:
    """A JPEG, with another whole one in its header as cameras put it there."""
    small = BytesIO()
    Image.fromarray(PIXELS).resize((8, 8)).save(small, "JPEG")
    exif = b"Exif\0\0" + small.getvalue() if preview else b""
    return encoded("JPEG", exif=exif, progressive=progressive)


def jpeg_segment(marker: int) -> bytes:
    """A segment of 9 bytes."""
    return bytes([0xFF, marker, 0, 11, *range(1, 10)])


def repeat_last_scan(content: bytes, times: int) -> bytes:
    """A progressive JPEG with its last scan so many times more."""
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * times + content[-2:]


ENCODED_JPEG = encoded_jpeg(preview=False, progressive=False)
SHORT, LONG, LONG8 = 3, 4, 16


def tiff(*tags: tuple[int, int, int, int], order: str = "<") -> bytes:
    """A TIFF of these tags (number, type, count, value) without pixels; at 300 it has the numbers 16, 16, 16, 64.

    A value of more than one short number is where they stand.
    """
    directory = struct.pack(f"{order}H", len(tags))
    for number, kind, count, value in tags:
        form = "HHIHxx" if (kind, count) == (SHORT, 1) else "HHII"
        directory += struct.pack(order + form, number, kind, count, value)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return (start + directory).ljust(300, b"\0") + struct.pack(f"{order}4H", 16, 16, 16, 64)


def bmp(width: int, height: int, short_header: bool = False) -> bytes:
    """The header of a BMP."""
    if short_header:
        return b"BM" + struct.pack("<IHHI", 26, 0, 0, 26) + struct.pack("<IHHHH", 12, width, height, 1, 24)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


SIZE_TAGS = (256, SHORT, 1, WIDTH), (257, LONG, 1, HEIGHT)
PICTURES = {
    "png": encoded("PNG"),
    "png of one channel": encoded("PNG", "L"),
    "jpeg": ENCODED_JPEG,
    "jpeg, progressive, with a preview": encoded_jpeg(preview=True, progressive=True),
    "jpeg, tables first": ENCODED_JPEG[:2]
    + jpeg_segment(0xC4)
    + jpeg_segment(0xC8)
    + jpeg_segment(0xCC)
    + ENCODED_JPEG[2:],
    "bmp": encoded("BMP"),
    "bmp, upside down": bmp(WIDTH, -HEIGHT),
    "bmp with a short header": bmp(WIDTH, HEIGHT, short_header=True),
    "tiff": encoded("TIFF"),
    "tiff, compressed": encoded("TIFF", compression="tiff_lzw"),
    "tiff, big-endian": tiff(*SIZE_TAGS, (258, SHORT, 3, 300), order=">"),
    "tiff in small tiles": tiff(*SIZE_TAGS, (322, SHORT, 1, 16), (323, SHORT, 1, 16)),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
def test_every_format_tells_its_height_and_width(content: bytes) -> None:
    assert picture_size(content) == (HEIGHT, WIDTH)


def test_large_tiles_count_as_a_large_picture() -> None:
    assert picture_size(tiff(*SIZE_TAGS, (322, LONG, 1, 2**15), (323, LONG, 1, 2**14))) == (2**14, 2**15)


NO_PICTURES = {
    "nothing": b"",
    "text": b"no image",
    "a gif": encoded("GIF"),
    "a webp": encoded("WEBP"),
    "a program for printers": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) system\n",
    "a png's signature": PICTURES["png"][:8],
    "half a png's header": PICTURES["png"][:20],
    "a jpeg without a frame": PICTURES["jpeg"][:2] + b"\xff\xda\x00\x08" + bytes(50),
    "a jpeg of rubbish": b"\xff\xd8" + b"\xff" * 100_000 + b"\0",
    "a bmp's signature": b"BM" + bytes(9),
    "a tiff without a directory": tiff()[:8],
    "a tiff without a height": tiff(SIZE_TAGS[0]),
    "a tiff with two widths": tiff(SIZE_TAGS[0], *SIZE_TAGS),
    "a tiff of a width in eight bytes": tiff((256, LONG8, 1, 300), SIZE_TAGS[1]),
    "a tiff of long floating-point numbers": tiff(*SIZE_TAGS, (258, SHORT, 1, 64)),
    "a tiff of three of them": tiff(*SIZE_TAGS, (258, SHORT, 3, 306)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_has_no_header_of_a_picture_is_refused(tmp_path: Path, reader, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"image\.png is not a whole image \(of PNG, JPEG, BMP or TIFF\): replace"):
        reader(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_picture_of_too_many_pixels_is_refused_and_one_less_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(PICTURES["png"])
    monkeypatch.setattr("dataloaders.picture_files.MOST_PIXELS", HEIGHT * WIDTH)
    assert np.asarray(reader(path)).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr("dataloaders.picture_files.MOST_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(UserError, match=r"large\.png claims to be 40x64 pixels, but at most [0-9,]+ are decoded"):
        reader(path)
    assert MOST_PIXELS > 24_000_000, "cameras have as many"


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused_whatever_opencv_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preview: bool, progressive: bool
) -> None:
    path = tmp_path / "image.jpg"
    whole = encoded_jpeg(preview, progressive)
    for content in (whole, whole + b"\0 and more \xff\xda", whole[:2] + b"\xff" + whole[2:]):
        path.write_bytes(content)
        assert frames.read_image(path).shape == (HEIGHT, WIDTH, 3)
    # OpenCV 5 refuses; 4 returns what it has, and grey for the rest.
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    for length in (len(whole) - 1, len(whole) // 2, *range(2, len(whole), 50)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"image\.jpg is not a whole image"):
            frames.read_image(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_jpeg_of_more_scans_than_sense_is_refused(tmp_path: Path, reader) -> None:
    path = tmp_path / "image.jpg"
    whole = encoded_jpeg(preview=True, progressive=True)
    num_scans = whole[whole.rindex(b"\xff\xc2") :].count(b"\xff\xda")
    assert num_scans > 2
    path.write_bytes(repeat_last_scan(whole, MOST_JPEG_SCANS - num_scans) + b"\0\0" + b"\xff\xda\x00\x02" * 500)
    assert np.asarray(reader(path)).shape == (HEIGHT, WIDTH, 3), "what follows the picture is no scan of it"
    path.write_bytes(repeat_last_scan(whole, MOST_JPEG_SCANS - num_scans + 1))
    with pytest.raises(UserError, match=r"image\.jpg is not a whole image \(of PNG, JPEG, BMP or TIFF\): replace"):
        reader(path)


def test_scans_of_a_preview_are_none_of_the_picture() -> None:
    preview = b"\xff\xe1\x01\x92" + b"\xff\xda\xff\xd9" * 100
    assert picture_size(ENCODED_JPEG[:2] + preview * 2 + ENCODED_JPEG[2:]) == (HEIGHT, WIDTH)


def test_bytes_that_only_restart_a_scan_or_stand_for_255_hide_no_scan() -> None:
    hidden = b"".join(bytes([0xFF, marker]) + b"\xff\xff" for marker in (0x00, 0x01, 0x02, 0xD0, 0xD7))
    content = repeat_last_scan(encoded_jpeg(preview=False, progressive=True)[:-2] + hidden + b"\xff\xd9", 200)
    with pytest.raises(ValueError, match="too many scans"):
        picture_size(content)


@pytest.mark.parametrize("reader", READERS)
def test_what_stands_behind_the_end_of_a_png_is_left_alone(tmp_path: Path, reader) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PICTURES["png"] + bytes(12 * 50_001))
    np.testing.assert_array_equal(np.sort(reader(path)), np.sort(PIXELS))


def test_only_a_jpeg_can_be_a_truncated_one() -> None:
    assert is_truncated_jpeg(b"\xff\xd8")
    assert is_truncated_jpeg(b"\xff\xd8\xff\xe0" + bytes(40))
    assert not is_truncated_jpeg(b"\x89PNG\r\n")
