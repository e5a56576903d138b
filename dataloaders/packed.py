"""Packed samples: the arrays of many samples in one file that is mapped into memory.

All processes share the system's one copy of the file, of which it reads the pages that somebody looks at. The arrays
lie one after the other; an index says what they are.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from dataloaders.transforms import Sample
from utils.errors import UserError
from utils.faults import explanation

ALIGNMENT = 64
"""Every array begins at a multiple of so many bytes, where its values can be read as what they are."""

NUMBERS = r"^(\|[biu]1|[<>][iu][248]|[<>]f[248])$"
"""NumPy's codes of truth values, and of whole and floating-point numbers."""


class Form(NamedTuple):
    """What an array of a sample is: its name, NumPy's code of its type, and its lengths."""

    name: str
    dtype: Annotated[str, Field(pattern=NUMBERS)]
    shape: tuple[Annotated[int, Field(ge=1)], ...]

    @property
    def num_bytes(self) -> int:
        """Of its values."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def padded_bytes(self) -> int:
        """From its beginning to that of the next array."""
        return -(-self.num_bytes // ALIGNMENT) * ALIGNMENT


FORMS = TypeAdapter(Form)

Layout = tuple[Form, ...]
"""The arrays of a sample, in order."""


def layout_of(sample: Sample) -> Layout:
    """The layout of a sample; UserError for what cannot be packed."""
    return tuple(_form_of(name, array) for name, array in sample.items())


def _form_of(name: str, array: Any) -> Form:
    is_array = isinstance(array, np.ndarray)
    try:
        return FORMS.validate_python((name, array.dtype.str, array.shape) if is_array else None)
    except ValidationError as error:
        found = f"an array {list(array.shape)} of {array.dtype}" if is_array else f"of type {type(array).__name__}"
        raise UserError(
            f"a cache keeps arrays of truth values and of numbers of at most 8 bytes, none empty, but {name!r} of a "
            f"decoded sample is {found}: let `read` of the data set return such arrays, or set dataload.cache=null"
        ) from error


class Index(BaseModel):
    """What a file of arrays holds.

    Attributes:
        layouts: those that samples have; frames of one size share theirs.
        samples: the number of each sample's layout.
    """

    layouts: tuple[Layout, ...]
    samples: tuple[Annotated[int, Field(ge=0)], ...]

    def places(self) -> list[int]:
        """Where each sample begins in the file, in bytes, and where the last one ends: [N + 1].

        Raises: IndexError for a layout that is not there.
        """
        sizes = [size_of(layout) for layout in self.layouts]
        return list(accumulate((sizes[number] for number in self.samples), initial=0))


def size_of(layout: Layout) -> int:
    """The bytes that a sample takes in the file."""
    return sum(form.padded_bytes for form in layout)


class MappedFile:
    """A file of so many bytes, mapped into memory for reading. A process that it is sent to maps it anew."""

    def __init__(self, path: Path, num_bytes: int):
        self.path = path
        self.num_bytes = num_bytes

    @cached_property
    def content(self) -> np.ndarray:
        """uint8 [num_bytes], from the first time on that it is asked for, even if the file is removed afterwards.

        Raises: UserError if the file is not there any more, or cannot be read.
        """
        try:
            return np.memmap(self.path, np.uint8, "r", shape=(self.num_bytes,)).view(np.ndarray)
        except (OSError, ValueError) as error:  # ValueError: it has become shorter
            if explanation(error):
                raise
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.path}, from which this run takes its samples, cannot be read any more ({reason}): start the "
                "run again, which decodes them anew, and let caches be while they are in use"
            ) from error

    def __reduce__(self) -> tuple[type["MappedFile"], tuple[Path, int]]:
        return MappedFile, (self.path, self.num_bytes)


class PackedSamples:
    """Samples of a file: number -> sample, whose arrays are views of the file and cannot be written to.

    Args:
        file: the arrays.
        layouts: [N], of each sample.
        starts: [N] int64, the place in the file where it begins.
    """

    def __init__(self, file: MappedFile, layouts: Sequence[Layout], starts: np.ndarray):
        self.file = file
        self.layouts = layouts
        self.starts = starts

    def __len__(self) -> int:
        return len(self.layouts)

    def __getitem__(self, number: int) -> Sample:
        sample, start = {}, int(self.starts[number])
        for form in self.layouts[number]:
            content = self.file.content[start : start + form.num_bytes]
            sample[form.name] = content.view(form.dtype).reshape(form.shape)
            start += form.padded_bytes
        return sample

    def select(self, numbers: Sequence[int]) -> "PackedSamples":
        """Some of the samples of the same file, in the order that is asked for."""
        return PackedSamples(self.file, [self.layouts[number] for number in numbers], self.starts[list(numbers)])

    @property
    def note(self) -> str:
        """A sentence for the user: where the file is, and how large."""
        return (
            f"decoded samples are taken from {self.file.path.parent} ({self.file.num_bytes / 1e6:.0f} MB), "
            "which may be removed when no run uses it"
        )


def write_arrays(path: Path, samples: Iterable[Sample]) -> Index:
    """Write the arrays of samples one after the other; UserError for what cannot be packed."""
    layouts: dict[Layout, int] = {}
    numbers = []
    with path.open("wb") as file:
        for sample in samples:
            layout = layout_of(sample)
            numbers.append(layouts.setdefault(layout, len(layouts)))
            for form, array in zip(layout, sample.values(), strict=True):
                file.write(array.tobytes())
                file.write(bytes(form.padded_bytes - form.num_bytes))
    return Index(layouts=tuple(layouts), samples=tuple(numbers))


def map_samples(path: Path, index: Index) -> PackedSamples:
    """The samples of a file of arrays, mapped now; ValueError if its size is not what the index says."""
    *starts, end = index.places()
    size = path.stat().st_size
    if size != end or not size:
        raise ValueError(f"{path} has {size} bytes instead of {end}")
    file = MappedFile(path, size)
    _ = file.content  # Processes that are forked have it then, whatever becomes of its name.
    return PackedSamples(file, [index.layouts[number] for number in index.samples], np.array(starts, np.int64))
