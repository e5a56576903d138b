"""Files of tensors and plain values in PyTorch's formats, read without `torch.load`: no code in them is run.

    zip      since PyTorch 1.6: a zip archive of `data.pkl`, a pickle, and `data/{key}`, the bytes of each storage
    legacy   before: five pickles (magic number, version, system, content, keys), then each storage as a count and bytes
    pickle   a plain pickle of tensors, as the release keeps sampled policies: each storage is a legacy file of its own

In all of them a tensor is a view of a storage: offset, size and stride. Whatever a file claims is compared with how
large the file is, before memory is taken for it. Why not `torch.load(weights_only=True)`: see `utils/plain_pickles.py`.
"""

import io
import math
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from utils.files import read_bounded
from utils.plain_pickles import check_key, operations, read_pickle

MOST_AT_ONCE = 8_000_000
"""Bytes of a pickle, of a zip archive's directory, and of a piece of a storage."""

MOST_POLICY_BYTES = 1_000_000
"""Bound of a plain pickle; sampled policies are kilobytes."""

MOST_VALUES = 500_000
MOST_DEPTH = 32
"""Bounds of a content, every value counted as often as it appears."""

MOST_DIMENSIONS = 16

ZIP_BEGINS = b"PK\x03\x04"
PICKLE_BEGINS = b"\x80"
LEGACY_HEADER = (0x1950A86A20F9469CFC6C, 1001)
"""PyTorch's magic number, and the version of its legacy format."""

STORAGES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
}

NUMPY_NUMBERS = ("b1", "f4", "f8", "i4", "i8")
"""Types of NumPy's whose single numbers, as a mean is one, are read as Python's."""


def read_tensor_file(path: Path) -> Any:
    """The content of a zip or legacy file, tensors on the CPU; parameters come back as tensors.

    Raises: `OSError`, `ValueError` or whatever a damaged file can lead to.
    """
    if not path.is_file():
        raise ValueError("it is no regular file")
    with _FrugalReader(io.FileIO(path)) as file:
        begin = file.read(len(ZIP_BEGINS))
        if begin == ZIP_BEGINS:
            content = _read_zip(file)
        elif begin.startswith(PICKLE_BEGINS):
            content = _read_legacy(file)
        else:
            raise ValueError("it is no file of PyTorch's")
    check_plain(content)
    return content


def read_tensor_pickle(path: Path) -> Any:
    """The content of a plain pickle of tensors, on the CPU; raises as `read_tensor_file`."""
    content = read_pickle(io.BytesIO(read_bounded(path, MOST_POLICY_BYTES)), NAMED_IN_PICKLES, restore=_restore)
    check_plain(content)
    return content


def check_bounds(path: Path) -> None:
    """Make sure that a zip file which was just written is within the bounds of what is read.

    Raises: `ValueError` where its pickle or its directory is too long.
    """
    with _FrugalReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        for _ in operations(io.BytesIO(archive.read(f"{_root(archive)}/data.pkl"))):
            pass


def check_plain(content: Any) -> None:
    """Make sure that a content can be written and read again.

    That is: tensors, text, numbers (whole ones of 64 bits), None, and lists, tuples and dicts of them.

    Raises:
        TypeError: a value or key of another type, or a tensor that is no plain view of a storage.
        ValueError: too many values, or too many within each other, as if they contained themselves.
    """
    for count, value in enumerate(_values(content, MOST_DEPTH)):
        if count == MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        if isinstance(value, Tensor):
            _check_tensor(value)
        elif type(value) is int and not -(2**63) <= value < 2**63:
            raise ValueError("it holds a whole number of more than 64 bits")
        elif type(value) not in (str, int, float, bool, type(None)):
            raise TypeError(f"it holds a value of type {type(value).__module__}.{type(value).__qualname__}")


def _values(value: Any, depth: int) -> Iterator[Any]:
    """All values in nested containers, each of which counts as a None."""
    if type(value) not in (list, tuple, dict, OrderedDict):
        yield value
        return
    if depth == 0:
        raise ValueError(f"its values are nested more than {MOST_DEPTH} deep")
    yield None
    if isinstance(value, dict):
        for key in value:
            check_key(key)
        value = value.values()
    for entry in value:
        yield from _values(entry, depth - 1)


def _check_tensor(tensor: Tensor) -> None:
    """Refuse types and layouts that no storage of `STORAGES` holds, and more elements than the storage has."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        raise TypeError("it holds a tensor of a special kind")
    if tensor.is_neg() or tensor.is_conj():
        raise TypeError("it holds a tensor whose sign is not in its storage; clone it")
    if tensor.dtype not in STORAGES.values():
        raise TypeError(f"it holds a tensor of {tensor.dtype}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise TypeError("it holds a tensor that repeats its elements; clone it")


# What the names in these files stand for.


def _ordered_dict(pairs: list[Any] | tuple[()] = ()) -> OrderedDict:
    """Python 2 gives its entries at once, as lists of two; Python 3 sets them afterwards."""
    entries: OrderedDict = OrderedDict()
    for key, value in pairs:
        check_key(key)
        entries[key] = value
    return entries


def _view(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """A tensor of a storage, without gradient.

    Raises: `ValueError` where the storage does not have the elements. That is left neither to PyTorch, whose 64 bits a
    stride can exceed, nor to strides of 0, which make 10^12 elements of one.
    """
    if metadata:
        raise ValueError("it holds a tensor whose sign is not in its storage")
    if not isinstance(storage, Tensor) or type(size) is not tuple or type(stride) is not tuple:
        raise ValueError("it holds a tensor that is no view of a storage")
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise ValueError("it holds a tensor with impossible dimensions")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (offset, *size, *stride)):
        raise ValueError("it holds a tensor with impossible sizes")
    num_elements = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if num_elements > storage.numel() or (num_elements and last >= storage.numel()):
        raise ValueError("it holds a tensor that is larger than its storage")
    return storage.new_empty(0).set_(storage.untyped_storage(), offset, size, stride)


def _parameter(values: Tensor, *_: Any) -> Tensor:
    return values


def _bare_parameter() -> nn.Parameter:
    """A parameter before PyTorch 0.4.1, which gets its values afterwards, by `_restore`."""
    return nn.Parameter(torch.empty(0), requires_grad=False)


def _counter(counts: dict[Any, int]) -> dict[Any, int]:
    """The milestones of a learning rate's schedule."""
    return counts


def _size_of(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return lengths


def _number_type(name: str, *_: Any) -> np.dtype:
    if name not in NUMPY_NUMBERS:
        raise ValueError("it holds a NumPy value of a special kind")
    return np.dtype(f"<{name}")


def _number(kind: np.dtype, data: bytes) -> float | int | bool:
    """One of NumPy's numbers, as Python's."""
    if not isinstance(kind, np.dtype) or type(data) is not bytes or len(data) != kind.itemsize:
        raise ValueError("it holds a NumPy number that is damaged")
    return np.frombuffer(data, kind)[0].item()


def _encode_bytes(text: str, encoding: str) -> bytes:
    """How pickle protocols before 3 spell bytes."""
    if encoding != "latin1":
        raise ValueError("it holds bytes in an unusual encoding")
    return text.encode("latin1")


def _storage_of_bytes(data: bytes) -> Tensor:
    """A storage inside a plain pickle."""
    return _read_legacy(io.BytesIO(data))


NAMED = {
    **STORAGES,
    "_codecs.encode": _encode_bytes,
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered_dict,
    "numpy.dtype": _number_type,
    "numpy._core.multiarray.scalar": _number,
    "numpy.core.multiarray.scalar": _number,
    "torch.Size": _size_of,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch.nn.parameter.Parameter": _bare_parameter,
}

NAMED_IN_PICKLES = {**NAMED, "torch.storage._load_from_bytes": _storage_of_bytes}


def _restore(target: Any, state: Any) -> None:
    """Give an object the state that a pickle has for it; `ValueError` where there is no such object or state."""
    match target, state:
        case OrderedDict(), _:
            pass  # Its attributes: those of a state dict are the versions of its modules.
        case np.dtype(), (_, "<" | "|", *_):
            pass  # The order of bytes, little as here.
        case nn.Parameter(), (Tensor() as values, _, _, _, _):
            target.data = values
        case _:
            raise ValueError(f"its pickle sets attributes of a {type(target).__name__}")


# The formats.


class _FrugalReader(io.BufferedReader):
    """A file of which no more than `MOST_AT_ONCE` is read at once, be it a directory of a million records."""

    def read(self, size: int | None = -1) -> bytes:
        beyond = MOST_AT_ONCE + 1
        data = super().read(beyond if size is None or size < 0 else min(size, beyond))
        if len(data) == beyond:
            raise ValueError("its pickle or directory is too large")
        return data


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        # Compressed or overlapping records could make any amount of data out of a small file.
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise ValueError("its records are compressed")
        if sum(record.file_size for record in archive.infolist()) > _size(file):
            raise ValueError("its records are larger than the file")
        root = _root(archive)
        if f"{root}/byteorder" in records and archive.read(f"{root}/byteorder") != b"little":
            raise ValueError("it was written on a machine of another byte order")
        storages: dict[str, Tensor] = {}

        def stored(identity: Any) -> Tensor:
            dtype, key, num_elements = _storage_identity(identity)
            if key not in storages:
                record = records.get(f"{root}/data/{key}")
                if record is None or record.file_size != num_elements * dtype.itemsize:
                    raise ValueError("a storage is missing or of another size than claimed")
                storages[key] = torch.empty(num_elements, dtype=dtype)
                with archive.open(record) as data:
                    _fill(storages[key], data)
            return _of_type(storages[key], dtype)

        return read_pickle(io.BytesIO(archive.read(f"{root}/data.pkl")), NAMED, stored, _restore)


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that all records of an archive are in."""
    return next(iter(archive.namelist()), "").partition("/")[0]


def _read_legacy(file: BinaryIO) -> Any:
    file.seek(0)
    pickles = io.BytesIO(file.read(MOST_AT_ONCE))
    header = tuple(read_pickle(pickles, {}, most=100) for _ in LEGACY_HEADER)
    system = read_pickle(pickles, {}, most=100)
    if header != LEGACY_HEADER or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it is no file of PyTorch's, or of a machine of another byte order")
    storages: dict[str, Tensor] = {}
    room = _size(file)

    def stored(identity: Any) -> Tensor:
        nonlocal room
        dtype, key, num_elements = _storage_identity(identity)
        if key not in storages:
            room -= num_elements * dtype.itemsize
            if room < 0:
                raise ValueError("its storages are larger than the file")
            # Filled below: the content comes first, and only it tells the types.
            storages[key] = torch.empty(num_elements, dtype=dtype)
        return _of_type(storages[key], dtype)

    content = read_pickle(pickles, NAMED, stored, _restore)
    keys = read_pickle(pickles, {})
    if not isinstance(keys, list) or len(keys) != len(storages) or set(keys) != storages.keys():
        raise ValueError("its storages are not those of its tensors")
    file.seek(pickles.tell())
    for key in keys:
        if struct.unpack("<q", file.read(8)) != (storages[key].numel(),):
            raise ValueError("a storage is of another size than claimed")
        _fill(storages[key], file)
    return content


def _storage_identity(identity: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage, from what a pickle says of it.

    That is ("storage", type, key, device, number) and, in legacy files, None for a storage that is no part of another.
    """
    match identity:
        case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *rest) if rest in ([], [None]):
            if not 0 <= count < 2**63:
                raise ValueError("it holds a storage of an impossible size")
            return dtype, key, count
        case _:
            raise ValueError("it holds a storage of a special kind")


def _of_type(storage: Tensor, dtype: torch.dtype) -> Tensor:
    if storage.dtype != dtype:
        raise ValueError("it holds a storage of two types")
    return storage


def _fill(storage: Tensor, file: BinaryIO) -> None:
    """Read the elements of a storage."""
    data = memoryview(storage.view(torch.uint8).numpy())
    for start in range(0, len(data), MOST_AT_ONCE):
        piece = data[start : start + MOST_AT_ONCE]
        if file.readinto(piece) != len(piece):
            raise ValueError("it is cut off")


def _size(file: BinaryIO) -> int:
    """Bytes of a file, which stays where it stands."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size
