"""One sample of a data set opened, as far as that is possible, and what is wrong with its files."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from dataloaders import domainnet
from dataloaders.domainnet import LabelledImage
from dataloaders.fdu_mtl import Review
from dataloaders.frames import Frame, Frames, Row, refuse_other_sizes
from dataloaders.keys import Dataset
from dataloaders.transforms import Sample
from dataloaders.vocabulary import UNKNOWN, Vocabulary
from utils.errors import UserError

Arrays = dict[str, Any]
"""Entries of a sample as a batch has them, without its first axis."""

Content = TypeVar("Content")


@dataclass
class Opened:
    """A sample as far as it could be opened.

    Attributes:
        name: what to call it in a sentence: its file, or its place in the data set.
        arrays: its entries; those whose files are at fault are absent.
        files: entry -> the file that it was read from, where it has one of its own.
        size: (height, width) of the image in pixels; None without an image.
        num_words, num_unknown: of a text, cut off or not; None without a text.
        faults: what is wrong with it.
        remarks: what is no fault, in words that are the same for all samples.
    """

    name: str
    arrays: Arrays = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    num_words: int | None = None
    num_unknown: int = 0
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def source_of(self, entry: str) -> str:
        """What a sentence about an entry is to name."""
        return str(self.files.get(entry, self.name))


class Reader(Protocol):
    """Opens the samples of one part of a data set; it travels to other processes."""

    def open(self, member: Any) -> Opened:
        """The sample of a member of a split."""


def read(path: Path, reader: Callable[[Path], Content], faults: list[str]) -> Content | None:
    """What a file holds; None, and a sentence added to `faults`, where it is missing or not of its form."""
    if not os.path.isfile(path):
        faults.append(f"{path} does not exist: put it there or correct the path, which is relative to the data root")
        return None
    try:
        return reader(path)
    except UserError as error:
        faults.append(str(error))
        return None


@dataclass(frozen=True)
class FrameReader:
    """Opens frames file by file, so that each file's fault is found.

    Attributes:
        root, names: as of `dataloaders.frames.Frames`.
        readers: name -> reader of its file; UserError where the file is not of its form.
        encode: those arrays of a frame that could be read -> entries of a batch.
        resizes: whether `encode` brings arrays of any size to one; else all must be of the image's size.
    """

    root: Path
    names: Sequence[str]
    readers: Mapping[str, Callable[[Path], np.ndarray]]
    encode: Callable[[Sample], dict[str, np.ndarray]]
    resizes: bool

    def open(self, member: Row) -> Opened:
        """The frame whose files are listed in a row."""
        frame = Frames(self.root, self.names, [member])[0]
        opened = Opened(str(frame["img"]), files=frame)
        contents = {name: read(path, self.readers[name], opened.faults) for name, path in frame.items()}
        sample = {name: array for name, array in contents.items() if array is not None}
        for name, array in sample.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                opened.remarks.append(f"{name} holds NaN or infinity, which is taken for not measured")
        if "img" in sample:
            opened.size = sample["img"].shape[:2]
            opened.faults += [] if self.resizes else other_sizes(sample, frame)
        opened.arrays = self.encode(sample)
        return opened


def other_sizes(sample: Sample, frame: Frame) -> list[str]:
    """A sentence for every file of a frame that differs in size from the image."""
    faults = []
    for name in sorted(sample.keys() - {"img"}):
        try:
            refuse_other_sizes(sample, {"img": frame["img"], name: frame[name]})
        except UserError as error:
            faults.append(str(error))
    return faults


@dataclass(frozen=True)
class ImageReader:
    """Opens the labelled images of a domain, brought to `size` = (height, width)."""

    root: Path
    domain: str
    size: tuple[int, int]

    def open(self, member: LabelledImage) -> Opened:
        """The image of a line of a list; its label may be any number."""
        path = self.root / member.file
        opened = Opened(str(path), arrays={self.domain: np.array(member.label)})
        image = read(path, domainnet.read_image, opened.faults)
        if image is not None:
            opened.size = (image.height, image.width)
            opened.arrays["img"] = domainnet.encode_image(image, self.size)
        return opened


@dataclass(frozen=True)
class TextReader:
    """Opens the reviews of a domain."""

    domain: str
    vocabulary: Vocabulary
    max_tokens: int

    def open(self, member: Review) -> Opened:
        """The review of a line of a file."""
        words = member.text.split()
        numbers = self.vocabulary.encode(words, len(words))
        return Opened(
            f"{self.domain} {member.line}",
            arrays={"text": numbers[: self.max_tokens], self.domain: np.array(member.label)},
            num_words=len(words),
            num_unknown=int((numbers == UNKNOWN).sum()),
            remarks=[] if words else ["the text is empty"],
        )


@dataclass(frozen=True)
class SampleReader:
    """Opens the samples of any data set, by asking it for them: split -> data set."""

    datasets: Mapping[str, Dataset]

    def open(self, member: tuple[str, int]) -> Opened:
        """The sample (split, index); whatever the data set raises for it is its fault."""
        split, index = member
        opened = Opened(f"sample {index} of split {split!r}")
        try:
            opened.arrays = {
                entry: value if isinstance(value, str) else np.asarray(value)
                for entry, value in self.datasets[split][0, index].items()
            }
        except UserError as error:
            opened.faults.append(str(error))
        # The data set may be one's own: its faults are what is looked for, whatever they are called.
        except Exception as error:
            opened.faults.append(f"{opened.name} cannot be fetched ({type(error).__name__}: {error}): correct it")
        if "img" in opened.arrays:
            opened.size = opened.arrays["img"].shape[-2:]
        return opened
