"""Files made to run code, to hang or to take all memory are refused by one line; each is read in another process."""

import io
import json
import os
import pickle
import shlex
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux does")

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = range(6)
MOST_MEMORY = 200e6
MOST_SECONDS = 120
"""For all files together; they take about ten."""

READING = """
import json, sys
from pathlib import Path
from utils.checkpoint import load_checkpoint, load_gates, load_state, load_tensor_pickle
from utils.errors import UserError

def memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

readers = {"pth": load_checkpoint, "pt": load_state, "pickle": load_tensor_pickle, "json": load_gates}
load_checkpoint(Path(sys.argv[1]))
for path in map(Path, sys.argv[2:]):
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = memory("VmRSS")
    try:
        readers[path.name.rpartition(".")[2]](path)
        sentence = "accepted"
    except UserError as error:
        sentence = str(error)
    print(json.dumps({"path": str(path), "sentence": sentence, "memory": memory("VmHWM") - before}), flush=True)
"""


# Code


class Call:
    """Pickled as the call of a function, which an ordinary unpickler makes."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple[object, ...]]:
        return self.function, self.arguments


class TouchWhenRestored:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["path"]).touch()


def shell_call(canary: Path) -> Call:
    return Call(os.system, f"touch {shlex.quote(str(canary))}")


def python_call(canary: Path) -> Call:
    return Call(eval, f"open({str(canary)!r}, 'w').close()")


def call_in_nested_pickle(canary: Path) -> Call:
    return Call(torch.storage._load_from_bytes, pickle.dumps(shell_call(canary)))


def call_in_nested_torch_save(canary: Path) -> Call:
    return Call(torch.storage._load_from_bytes, legacy(pickle.dumps(shell_call(canary))))


def call_in_object_array(canary: Path) -> np.ndarray:
    return np.array([shell_call(canary)], dtype=object)


CODE = {
    "shell": shell_call,
    "eval": python_call,
    "setstate": TouchWhenRestored,
    "nested_pickle": call_in_nested_pickle,
    "nested_torch_save": call_in_nested_torch_save,
    "object_array": call_in_object_array,
}


# Files around a pickle


def zipped(pickled: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of PyTorch's with this pickle and these storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in (records or {}).items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def legacy(pickled: bytes, keys: list[str] | None = None, storages: bytes = b"", little_endian: bool = True) -> bytes:
    """A legacy file of PyTorch's with this pickle and these storages."""
    system = {"protocol_version": 1001, "little_endian": little_endian}
    header = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, system]
    return b"".join(pickle.dumps(part, 2) for part in header) + pickled + pickle.dumps(keys or [], 2) + storages


def plain(value: Any) -> bytes:
    return pickle.dumps({"mtl-net": {}, "more": value}, 2)


def number(value: int) -> bytes:
    """A whole number of 64 bits in a pickle."""
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(num_elements: int, offset: int, size: list[int], stride: list[int], *rest: bytes) -> bytes:
    """A pickle of one weight: a storage of so many floats, key "0", and a view of it."""
    identity = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" + number(num_elements) + b"".join(rest) + b"tQ"
    shape = b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + number(offset) + shape + b"\x89}tR"
    return b"\x80\x02}U\x07mtl-net}U\x01w" + view + b"ss."


def pickled_call(name: str, arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return b"\x80\x02}U\x07mtl-netc" + f"{module}\n{function}\n".encode() + arguments + b"Rs."


# Bombs

DOUBLED = b"".join(b"q" + bytes([place]) + b"h" + bytes([place]) + b"\x86" for place in range(60))
"""Pairs of pairs of pairs ...: 2^60 values, as a tree."""

COLLIDING = b"".join(number((2**61 - 1) * factor % 2**63) + b"N" for factor in range(1, 50_000) if factor % 4)
"""Numbers with one and the same hash, as Python makes it."""

ONE_FLOAT, ONE_INT = (b"(U\x07storagectorch\n%sStorage\nU\x010U\x03cpuK\x01tQ" % kind for kind in (b"Float", b"Int"))
TWO_TYPES = b"\x80\x02}U\x07mtl-net}U\x01a" + ONE_FLOAT + b"sU\x01b" + ONE_INT + b"ss."
SIZE_FROM_TENSOR = tensor(4, 0, [4], [1]).replace(b"(" + number(4) + b"t", ONE_FLOAT.replace(b"K\x01", b"K\x04"))

FOUR_FLOATS = {"data/0": bytes(16)}
NEGATED = tensor(4, 0, [4], [1]).replace(b"\x89}tR", b"\x89}}U\x03neg\x88stR")
STORAGE_OF_FOUR = ONE_FLOAT.replace(b"K\x01", b"K\x04")
STORAGE_WITH_STATE = b"\x80\x02}U\x07mtl-net" + STORAGE_OF_FOUR + b"(" + STORAGE_OF_FOUR + b"NNNNtbs."
TWO_NUMBERS = b"cnumpy\ndtype\nU\x02f8\x85RC\x10" + bytes(16) + b"\x86"

OFTEN = "calls functions with more than it holds"


FLOATS = legacy(b"\x80\x02" + ONE_FLOAT[:-4] + number(100_000) + b"NtQ.", ["0"], number(100_000)[2:] + bytes(400_000))
"""A storage as plain pickles nest it."""


def called_often(name: str, argument: bytes, times: int) -> bytes:
    """A pickle of calls that share their argument."""
    module, _, function = name.rpartition(".")
    return (
        b"\x80\x02c"
        + f"{module}\n{function}\n".encode()
        + b"q\x00"
        + argument
        + b"q\x01]("
        + b"h\x00h\x01R" * times
        + b"e."
    )


def blob(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content


MANY_PAIRS = b"](" + b"".join(b"]" + b"(" + number(key) + b"Ne" for key in range(20_000)) + b"e"


def overlapping() -> bytes:
    """A thousand records at one place: their directory makes 1 GB of 1 MB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", bytes(10**6))
        archive.writestr("archive/data.pkl", plain(None))
        archive.filelist += archive.filelist[:1] * 1000
    return file.getvalue()


def wide_directory() -> bytes:
    """The directory of a zip archive with half a million records; the archive has one."""
    whole = zipped(plain(None))
    end = whole.rindex(b"PK\x05\x06")
    start = whole.index(b"PK\x01\x02")
    directory = whole[start:end] * 500_000
    return whole[:start] + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), start, 0)


def tar() -> bytes:
    """PyTorch's first format, which ran code even with `weights_only` before 2.6."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


def torch_saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def bombs() -> dict[str, tuple[bytes, str]]:
    """Name of a file -> its content, and a part of the sentence that refuses it."""
    good = torch_saved({"mtl-net": {}})
    deep = b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b"."
    return {
        "bytearray.pth": (zipped(pickled_call("__builtin__.bytearray", number(10**10) + b"\x85")), "bytearray"),
        "set.pth": (zipped(pickled_call("__builtin__.set", b"]\x85")), "set"),
        "untyped_storage.pth": (
            zipped(pickled_call("torch.UntypedStorage", number(10**11) + b"\x85")),
            "UntypedStorage",
        ),
        "other_rebuild.pth": (zipped(pickled_call("torch._tensor._rebuild_from_type_v2", b")")), "_rebuild_from_type"),
        "call_of_a_type.pth": (zipped(pickled_call("torch.FloatStorage", number(10**11) + b"\x85")), "calls a dtype"),
        "attributes.pth": (zipped(b"\x80\x02}U\x07mtl-net}}bs."), "sets attributes of a dict"),
        "whole_module.pth": (torch_saved(nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
        "escape_codes.pth": (zipped(pickled_call("os.\x1b[2Jsystem", b")")), "it refers to os.?[2Jsystem"),
        "hash_for_ever.pth": (zipped(b"\x80\x02}K\x01" + DOUBLED + b"Ns."), "neither text nor"),
        "hash_for_ever_legacy.pth": (legacy(b"\x80\x02}K\x01" + DOUBLED + b"Ns."), "neither text nor"),
        "hash_for_ever.pickle": (b"\x80\x02}K\x01" + DOUBLED + b"Ns.", "neither text nor"),
        "one_hash.pth": (zipped(b"\x80\x02}(" + COLLIDING + b"u."), "neither text nor"),
        "laughs.pth": (zipped(b"\x80\x02}U\x07mtl-netK\x01" + DOUBLED[:90] + b"s."), "more than 500000 values"),
        "contains_itself.pth": (zipped(b"\x80\x02}q\x00U\x07mtl-neth\x00s."), "nested more than 32 deep"),
        "deep.pth": (zipped(deep), "nested more than 32 deep"),
        "deep.pickle": (deep, "nested more than 32 deep"),
        "many_operations.pth": (zipped(b"\x80\x02" + b"}" * 5_000_000 + b"."), "more than 2000000 operations"),
        "large_pickle.pth": (zipped(b"\x80\x02" + b"}" * 20_000_000 + b"."), "too large"),
        "large_memo.pickle": (b"\x80\x02}r\xff\xff\xff\xff0K\x01.", "POP"),
        "large_number.pth": (zipped(plain(1 << 8 * 10**6)), "more than 64 bits"),
        "digits.pickle": (b"L" + b"9" * 900_000 + b"L\n.", "cannot be read"),
        "large.pickle": (bytes(10**7), "larger than 1 MB"),
        "text_of_pairs.pth": (zipped(b"\x80\x02K\x01" + DOUBLED + b"K\x01\x93."), "its pickle is damaged"),
        "negative_keys.pth": (zipped(b"\x80\x02}(" + number(-(2**48)) + b"Nu."), "neither text nor"),
        "negated.pth": (zipped(NEGATED, FOUR_FLOATS), "whose sign is not in its storage"),
        "attributes_of_a_storage.pth": (zipped(STORAGE_WITH_STATE, FOUR_FLOATS), "sets attributes of a Tensor"),
        "two_numpy_numbers.pth": (zipped(pickled_call("numpy.core.multiarray.scalar", TWO_NUMBERS)), "that is damaged"),
        "large_numpy_number.pth": (zipped(pickled_call("numpy.dtype", b"U\x0bV1000000000\x85")), "of a special kind"),
        "same_storage.pickle": (
            called_often("torch.storage._load_from_bytes", blob(b"B", FLOATS) + b"\x85", 99_999),
            OFTEN,
        ),
        "same_text.pickle": (
            called_often("_codecs.encode", blob(b"X", b"a" * 400_000) + b"U\x06latin1\x86", 99_999),
            OFTEN,
        ),
        "same_pairs.pth": (zipped(called_often("collections.OrderedDict", MANY_PAIRS + b"\x85", 99_999)), OFTEN),
        "keys_of_pairs.pth": (
            zipped(pickled_call("collections.OrderedDict", b"](](K\x01" + DOUBLED + b"Nee\x85")),
            "neither text nor",
        ),
        "encoding.pickle": (pickled_call("_codecs.encode", b"X\x01\0\0\0aU\x04idna\x86"), "unusual encoding"),
        "compressed.pth": (zipped(plain(None), {"data/0": bytes(10**8)}, zipfile.ZIP_DEFLATED), "compressed"),
        "overlapping.pth": (overlapping(), "larger than the file"),
        "wide_directory.pth": (wide_directory(), "too large"),
        "claims_elements.pth": (zipped(tensor(10**12, 0, [10**12], [1]), FOUR_FLOATS), "another size"),
        "claims_elements_legacy.pth": (
            legacy(tensor(10**12, 0, [1], [1], b"N"), ["0"], bytes(24)),
            "larger than the file",
        ),
        "claims_negative.pth": (zipped(tensor(-1, 0, [1], [1]), FOUR_FLOATS), "impossible size"),
        "stride_0.pth": (zipped(tensor(4, 0, [10**12], [0]), FOUR_FLOATS), "larger than its storage"),
        "stride_0_in_two.pth": (zipped(tensor(4, 0, [10**6, 10**6], [0, 0]), FOUR_FLOATS), "larger than its storage"),
        "stride_overflows.pth": (zipped(tensor(4, 0, [3], [2**62]), FOUR_FLOATS), "larger than its storage"),
        "offset_outside.pth": (zipped(tensor(4, 4, [1], [1]), FOUR_FLOATS), "larger than its storage"),
        "offset_negative.pth": (zipped(tensor(4, -1, [1], [1]), FOUR_FLOATS), "impossible sizes"),
        "many_dimensions.pth": (zipped(tensor(4, 0, [1] * 10**4, [1] * 10**4), FOUR_FLOATS), "impossible dimensions"),
        "tensor_as_size.pth": (zipped(SIZE_FROM_TENSOR, FOUR_FLOATS), "no view of a storage"),
        "two_types.pth": (zipped(TWO_TYPES, {"data/0": bytes(4)}), "a storage of two types"),
        "big_endian.pth": (zipped(plain(None), {"byteorder": b"big"}), "another byte order"),
        "big_endian_legacy.pth": (legacy(plain(None), little_endian=False), "another byte order"),
        "other_keys_legacy.pth": (legacy(tensor(4, 0, [4], [1], b"N"), ["1"], bytes(24)), "not those of its tensors"),
        "same_key_twice_legacy.pth": (
            legacy(tensor(4, 0, [4], [1], b"N"), ["0", "0"], (number(4)[2:] + bytes(16)) * 2),
            "not those of its tensors",
        ),
        "other_count_legacy.pth": (legacy(tensor(4, 0, [4], [1], b"N"), ["0"], bytes(24)), "another size"),
        "cut_off_legacy.pth": (legacy(tensor(4, 0, [4], [1], b"N"), ["0"], number(4)[2:] + bytes(8)), "it is cut off"),
        "other_view.pth": (legacy(tensor(4, 0, [1], [1], b"}"), ["0"], bytes(24)), "of a special kind"),
        "torchscript.pth": (
            zipped(b"\x80\x02c__torch__\nNet\n)\x81}b.", {"constants.pkl": b"\x80\x02)."}),
            "__torch__.Net",
        ),
        "tar.pth": (tar(), "no file of PyTorch's"),
        "truncated.pth": (good[:-30], "cannot be read"),
        "empty.pth": (b"", "no file of PyTorch's"),
        "text.pth": (b"import os\n" * 1000, "no file of PyTorch's"),
        "nested_brackets.json": (b"[" * 900_000, "nested too deeply"),
        "large.json": (b'{"seg": [' + b"1, " * 700_000 + b"1]}", "larger than 1 MB"),
        "digits.json": (b'{"seg": [' + b"1" * 900_000 + b"]}", "cannot be read"),
    }


def code_files(canary: Path) -> dict[str, tuple[bytes, str]]:
    """The same for files that make the canary where they are unpickled."""
    files = {}
    for name, code in CODE.items():
        for protocol in PROTOCOLS:
            pickled = pickle.dumps({"mtl-net": {}, "more": code(canary)}, protocol)
            files |= {
                f"{name}{protocol}.pth": (zipped(pickled), "cannot be read"),
                f"{name}{protocol}.pt": (legacy(pickled), "cannot be read"),
                f"{name}{protocol}.pickle": (pickled, "cannot be read"),
            }
    return files


def make_special_files(folder: Path) -> dict[str, str]:
    """Files that are not what bytes can say: name -> a part of the sentence that refuses them."""
    os.mkfifo(folder / "pipe.pth")
    os.mkfifo(folder / "pipe.pickle")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.pth").mkdir()
    (folder / "endless.pth").symlink_to("/dev/zero")
    (folder / "endless.pickle").symlink_to("/dev/zero")
    begins = {"zeros": b"", "zip_and_zeros": b"PK\x03\x04", "legacy_and_zeros": legacy(b"")}
    for name, begin in begins.items():
        with (folder / f"{name}.pth").open("wb") as file:
            file.write(begin)
            file.truncate(5 * 10**9)
    regular = "no regular file"
    special = {"pipe.pth": regular, "pipe.pickle": regular, "pipe.json": regular, "folder.pth": regular}
    endless = {"endless.pth": regular, "endless.pickle": regular}
    return special | endless | {f"{name}.pth": "cannot be read" for name in begins}


# The tests


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What code in a file would make."""
    return tmp_path_factory.mktemp("code") / "canary"


@pytest.fixture(scope="module")
def outcomes(canary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Name of each hostile file -> how its reading ended, and a part of the sentence expected."""
    folder = tmp_path_factory.mktemp("hostile")
    expected = make_special_files(folder)
    for name, (content, part) in {**bombs(), **code_files(canary)}.items():
        (folder / name).write_bytes(content)
        expected[name] = part
    good = folder / "good.good"
    good.write_bytes(torch_saved({"mtl-net": {}}))
    command = [sys.executable, "-c", READING, str(good), *(str(folder / name) for name in expected)]
    read = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert not read.returncode, read.stderr
    lines = [json.loads(line) for line in read.stdout.splitlines()]
    assert len(lines) == len(expected)
    return {Path(line["path"]).name: {**line, "expected": expected[Path(line["path"]).name]} for line in lines}


def test_each_hostile_file_is_refused_by_one_line_that_names_it(outcomes: dict[str, dict[str, Any]]) -> None:
    for name, outcome in outcomes.items():
        sentence = outcome["sentence"]
        assert outcome["path"] in sentence, name
        assert outcome["expected"] in sentence.replace(outcome["path"], ""), name
        assert sentence.isprintable(), name
        assert len(sentence) < 600, name


def test_no_hostile_file_runs_code(outcomes: dict[str, dict[str, Any]], canary: Path) -> None:
    assert outcomes
    assert not canary.exists()


def test_no_hostile_file_takes_much_memory(outcomes: dict[str, dict[str, Any]]) -> None:
    for name, outcome in outcomes.items():
        assert outcome["memory"] < MOST_MEMORY, name


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ordinary_unpickler_would_run_the_code(tmp_path: Path, name: str, protocol: int) -> None:
    canary = tmp_path / "canary"
    pickled = pickle.dumps(CODE[name](canary), protocol)
    with suppress(RuntimeError):  # what is nested is no whole file of PyTorch's, which is noticed too late
        pickle.loads(pickled)
    assert canary.exists()
