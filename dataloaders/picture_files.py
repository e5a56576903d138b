"""Picture files, looked at before they are decoded: whether they are whole, and how large they claim to be.

A decoder takes the memory that a header asks for before it finds that the rest is missing; a GIF of 35 bytes makes
OpenCV 5 fill 8 GB. So a file is decoded only if it is a PNG, JPEG, BMP or TIFF, and its header claims a bearable
size. What tells PNGs, BMPs and TIFFs that end early is left to the decoders, which refuse them.
"""

import re
import struct
from collections.abc import Callable, Collection, Iterator
from itertools import islice, takewhile
from pathlib import Path

from dataloaders.reading import read_file
from utils.errors import UserError

Size = tuple[int, int]
"""Height and width."""


# PNG

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

MOST_CHUNKS = 50_000
"""The largest pictures have a third of that. Pillow takes time and memory for each."""


def png_size(content: bytes) -> Size:
    """From the IHDR chunk, which comes first; ValueError for more than `MOST_CHUNKS` up to IEND or the end."""
    width, height = struct.unpack_from(">II", content, 16)
    chunk = 8
    for _ in range(MOST_CHUNKS):
        end = chunk + 12 + int.from_bytes(content[chunk : chunk + 4], "big")
        if end >= len(content) or content[chunk + 4 : chunk + 8] == b"IEND":
            return height, width
        chunk = end
    raise ValueError("no end of the chunks")


NUM_CHANNELS = {0: 1, 2: 3}
"""Colour type of a PNG without palette and transparency -> its channels."""


def plain_png_channels(content: bytes) -> int | None:
    """1 or 3 of a PNG that holds its pixels as they are, grey or RGB of 8 bits; None for any other file.

    A transparent colour would be a channel more, and an orientation turns the picture.
    """
    if not content.startswith(PNG_SIGNATURE) or b"tRNS" in content or b"eXIf" in content:
        return None
    bits, colour_type = content[24:26]
    return NUM_CHANNELS.get(colour_type) if bits == 8 else None


# BMP


def bmp_size(content: bytes) -> Size:
    """From the header of either version: 16 bits in the short one, else 32; a negative height counts downwards."""
    (length,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", content, 18)
    return abs(height), abs(width)


# JPEG

JPEG_SIGNATURE = b"\xff\xd8"

# Of a segment, not one that stands alone. What may be before it, fill bytes or rubbish, decoders skip as well.
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN = 0xDA
JPEG_END = 0xD9

MOST_JPEG_SCANS = 100
"""Progressive pictures have ten. For each, however few bytes it has, a decoder goes through all pixels."""

MOST_JPEG_SEGMENTS = 1000
"""The tables, and what cameras and programs add."""


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment and where its length stands, up to the end of the picture.

    A preview is inside of a segment; what follows the end, such as a film, is no part of the picture.
    """
    position = 2
    while marker := JPEG_MARKER.search(content, position):
        yield marker[0][1], marker.end()
        if marker[0][1] == JPEG_END:
            return
        position = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")


def jpeg_size(content: bytes) -> Size:
    """From the frame header; ValueError if there is none before the first scan, or for more scans than sense."""
    segments = list(islice(jpeg_segments(content), MOST_JPEG_SEGMENTS))
    if sum(marker == JPEG_SCAN for marker, _ in segments) > MOST_JPEG_SCANS:
        raise ValueError("too many scans")
    for marker, place in takewhile(lambda segment: segment[0] != JPEG_SCAN, segments):
        if marker in JPEG_FRAMES:
            return struct.unpack_from(">HH", content, place + 3)
    raise ValueError("no frame header")


def is_truncated_jpeg(content: bytes) -> bool:
    """Whether a file is a JPEG without an end behind its first scan.

    OpenCV 4 fills what such a file lacks with grey, and says nothing that a program could hear.
    """
    if not content.startswith(JPEG_SIGNATURE):
        return False
    return JPEG_END not in (marker for marker, _ in islice(jpeg_segments(content), MOST_JPEG_SEGMENTS))


# TIFF

WIDTH, HEIGHT, BITS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 322, 323
"""Tags: of the image, of a channel, and of the tiles that it may be stored in."""

TIFF_NUMBERS = {3: "H", 4: "I"}
"""Type of a tag's values -> their format in `struct`."""

MOST_TIFF_BITS = 16
"""Of a channel: pictures of floating-point numbers would take several times the memory."""


def tiff_size(content: bytes) -> Size:
    """From the first directory: of the image, or of one of its tiles if that is larger."""
    tags = tiff_tags(content, (WIDTH, HEIGHT, BITS, TILE_WIDTH, TILE_HEIGHT))
    if tags.get(BITS, 1) > MOST_TIFF_BITS or not {WIDTH, HEIGHT} <= tags.keys():
        raise ValueError("no picture of whole numbers")
    return max(tags[HEIGHT], tags.get(TILE_HEIGHT, 0)), max(tags[WIDTH], tags.get(TILE_WIDTH, 0))


def tiff_tags(content: bytes, wanted: Collection[int]) -> dict[int, int]:
    """The first value of each wanted tag that the first directory has; ValueError where it has one twice."""
    order = "<" if content.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", content, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", content, directory)
    tags: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", content, entry)
        if tag not in wanted:
            continue
        if tag in tags or kind not in TIFF_NUMBERS:
            raise ValueError(f"tag {tag} stands twice, or is no such number")
        form, place = order + TIFF_NUMBERS[kind], entry + 8
        if count * struct.calcsize(form) > 4:  # More than the entry has room for: it says where they are.
            (place,) = struct.unpack_from(f"{order}I", content, place)
        (tags[tag],) = struct.unpack_from(form, content, place)
    return tags


# Any of them

SIZES: dict[bytes, Callable[[bytes], Size]] = {
    PNG_SIGNATURE: png_size,
    JPEG_SIGNATURE: jpeg_size,
    b"BM": bmp_size,
    b"II*\0": tiff_size,
    b"MM\0*": tiff_size,
}
"""What a file begins with -> what its header claims."""


def picture_size(content: bytes) -> Size:
    """The size that a file's header claims; ValueError or struct.error if it has no such header."""
    for signature, size_of in SIZES.items():
        if content.startswith(signature):
            return size_of(content)
    raise ValueError("no signature of a picture")


MOST_PIXELS = 2**25
"""8192x4096: more than most cameras have, 16 times CityScapes' raw images; as float32 in three channels 400 MB."""

MOST_BYTES = 130_000_000
"""Of a file; so many pixels in three channels of 8 bits fit, not compressed."""


def read_picture_file(path: Path) -> bytes:
    """The content of a picture file that may be decoded.

    Raises: UserError if it cannot be read, is no picture, has more than `MOST_PIXELS`, or is a JPEG that ends early.
    """
    content = read_file(path, MOST_BYTES)
    try:
        height, width = picture_size(content)
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is not a whole image (of PNG, JPEG, BMP or TIFF): replace the file") from error
    if height * width > MOST_PIXELS:
        raise UserError(
            f"{path} claims to be {height}x{width} pixels, but at most {MOST_PIXELS:,} are decoded: "
            "make it smaller, or replace the file if it is not so large"
        )
    if is_truncated_jpeg(content):
        raise UserError(f"{path} is not a whole image, its JPEG data end early: replace the file")
    return content
