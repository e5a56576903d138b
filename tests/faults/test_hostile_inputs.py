"""Configurations, lists, pictures and arrays made to run code, to hang or to take all memory are refused by one line.

Each is read in another process, by every reader that a script would give it to.
"""

import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux does")

ROOT = Path(__file__).resolve().parents[2]
MOST_MEMORY = 300e6
MOST_SECONDS = 120
"""For all files together; they take about five."""

READING = """
import json, sys, warnings
from functools import partial
from pathlib import Path
import numpy as np
from dataloaders import cityscapes, domainnet, fdu_mtl, frames, nyu_v2, taskonomy
from dataloaders.images import ImageFolder
from utils.checkpoint import load_gates
from utils.config import TestingConfig, load_config
from utils.errors import UserError

def memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

readers = {
    "yml": {"load_config": load_config, "of test.py": partial(load_config, schema=TestingConfig)},
    "json": {"read_split_file": partial(frames.read_split_file, columns=("img", "seg"), wanted=("seg",))},
    "domains": {"read_split_file": partial(domainnet.read_split_file, lists={"train.txt": [], "test.txt": []})},
    "gates": {"load_gates": load_gates},
    "png": {
        "read_image": frames.read_image,
        "read_channel": partial(frames.read_channel, dtype=np.uint8, meaning="classes"),
        "read_normals": frames.read_normals,
        "read_image of domainnet": domainnet.read_image,
    },
    "folder": {"ImageFolder": lambda folder: ImageFolder(folder)[0, 0]},
    "npy": {
        "read_array": frames.read_array,
        "read_image of cityscapes": cityscapes.read_image,
        "read_classes of cityscapes": partial(cityscapes.read_classes, num_classes=19),
        "read_depth of cityscapes": cityscapes.read_depth,
        "read_depth of nyu_v2": nyu_v2.read_depth,
        "read_class_weights": taskonomy.read_class_weights,
    },
    "txt": {"read_list": domainnet.read_list},
    "train": {"read_reviews": partial(fdu_mtl.read_reviews, num_classes=2)},
}
for path in map(Path, sys.argv[1:]):
    for name, reader in readers[path.name.rpartition(".")[2]].items():
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = memory("VmRSS")
        try:
            reader(path)
            sentence = "accepted"
        except UserError as error:
            sentence = str(error)
        took = memory("VmHWM") - before
        print(json.dumps({"path": str(path), "reader": name, "sentence": sentence, "memory": took}), flush=True)
"""

Files = dict[str, tuple[bytes, str]]
"""Name of a file -> its content, and a part of the sentence that refuses it."""

MOST_YAML = 64_000


# Configurations


def yaml_calls(canary: Path) -> list[str]:
    """Documents that make the canary where a loader builds any object."""
    return [
        f"exp_name: !!python/object/apply:os.system ['touch {canary}']",
        f"exp_name: !!python/object/apply:subprocess.check_call [[touch, '{canary}']]",
        f'!!python/object/apply:builtins.eval [\'open("{canary}", "w").close()\']: 1',
    ]


def configurations(canary: Path) -> Files:
    """YAML files."""
    laughs = "".join(f"a{level}: &a{level} [{f'*a{level - 1}, ' * 9}]\n" for level in range(1, 20))
    files = {f"call {number}.yml": (text, "the tag") for number, text in enumerate(yaml_calls(canary))} | {
        "billion laughs.yml": (f"a0: &a0 lol\n{laughs}", "an anchor"),
        "contains itself.yml": ("a: &a [*a]", "an anchor"),
        "binary.yml": ("a: !!binary AAAA", "the tag"),
        "commas.yml": (f"a: [{'a,' * 30_000}]", "more than 1000 keys and values"),
        "empty maps.yml": (f"a: [{'{},' * 20_000}]", "more than 1000 keys and values"),
        "keys.yml": ("".join(f"key{number}:\n" for number in range(6000)), "more than 1000 keys and values"),
        "question marks.yml": ("? \n" * 20_000, "more than 1000 keys and values"),
        "deep brackets.yml": ("a: " + "[" * 60_000, "more than 16 levels"),
        "deep maps.yml": ("".join(" " * level + "a:\n" for level in range(350)), "more than 16 levels"),
        "deep keys.yml": ("? " * 30_000, "more than 16 levels"),
        "hexadecimal.yml": (f"seed: 0x{'f' * 60_000}", "a number of 60002 characters"),
        "decimal.yml": (f"seed: {'9' * 60_000}", "a number of 60000 characters"),
        "sexagesimal.yml": (f"seed: 1{':59' * 20_000}", "a number of 60001 characters"),
        "overflow.yml": (f"seed: 1{':59' * 2000}.5", "a number of 6003 characters"),
        "long key.yml": (f"{'k' * 1000}: 1", "a key of 1000 characters"),
        "long key a second time.yml": (f"{'k' * 90}: 1\n" * 2, "a second time"),
        "long tag.yml": (f"a: !{'t' * 50_000} b", "the tag"),
        "long handle.yml": (f"a: !{'h' * 50_000}!b c", "undefined tag handle"),
        "escape in a tag.yml": ("a: !<%1B[2J> b", "the tag"),
        "version.yml": (f"%YAML {'9' * 50_000}.1\n---\na: 1", "expected valid YAML"),
        "no character.yml": (r'a: "\UFFFFFFFF"', "expected valid YAML"),
        "half a character.yml": (r'exp_name: "\ud800"', "cannot be printed"),
        "end of a string.yml": (r'exp_name: "a\0b"', "cannot be printed"),
        "escape.yml": (r'exp_name: "\e[2J"', "cannot be printed"),
        "two documents.yml": ("a: 1\n---\n" * 100, "another document"),
    }
    return {name: (text.encode(), part) for name, (text, part) in files.items()} | {
        "noise.yml": (np.random.RandomState(0).bytes(MOST_YAML), "found other bytes"),
        "large.yml": (b"#" * (MOST_YAML + 1), "at most 64 KB"),
    }


# Lists of samples, and gates


def lists() -> Files:
    """JSON and text files."""
    of_paths = "is not a list of the 2 paths"
    files = {
        "deep.json": ("[" * 10**6, "nested too deeply"),
        "deep member.json": ('{"train": ' + "[" * 10**6, "nested too deeply"),
        "many keys.json": (
            '{"train": [{' + ",".join(f'"{key}":0' for key in range(3_000_000)) + "}]}",
            "more than 6000000",
        ),
        "as many keys as may be.json": ('{"train": [{' + '"":0,' * 2_990_000 + '"":0}]}', of_paths),
        "many values.json": ('{"train": [' + "[]," * 4_000_000 + "[]]}", "more than 6000000 values"),
        "digits.json": ('{"train": [' + "9" * 100_000 + "]}", "cannot be read as JSON"),
        "list.json": ("[]", "holds a list"),
        "nan.json": ("NaN", "holds a float"),
        "numbers.json": ('{"train": [[1e999, -Infinity]]}', of_paths),
        "nul.json": (r'{"train": [["a\u0000.png", "b"]]}', of_paths),
        "line break.json": (r'{"train": [["a\nb.png", "b"]]}', of_paths),
        "endless path.json": (json.dumps({"train": [["a" * 10**6, "b"]]}), of_paths),
        "endless split.json": (json.dumps({"a" * 10**6: 1}), "is not a list"),
        "escape.json": (r'{"\u001b[2J": []}', "a name that can be printed"),
        "map.domains": ('{"train": {"real": {"0": 0}}}', "must be a list of numbers of lines"),
        "large number.domains": (f'{{"train": {{"real": [{10**4000}]}}}}', "must be a list of numbers of lines"),
        "endless domain.domains": (json.dumps({"train": {"a" * 10**6: [-1]}}), "must be a list of numbers of lines"),
        "numbers.gates": ('{"seg": [1, 0, 1e400]}', "must map each task"),
        "digits.gates": ('{"seg": [' + "1" * 10_000 + "]}", "cannot be read as JSON"),
        "digits.txt": ("a.png " + "9" * 5000, "must be a path and the number of a class"),
        "endless line.txt": ("a" * 10**7, "has more than 1 MB"),
        "long line.txt": ("a" * 10**6, "must be a path and the number of a class"),
        "nul.txt": ("a\0.png 3", "must be a path and the number of a class"),
        "escape.txt": ("\x1b[2J.png 3", "must be a path and the number of a class"),
        "blank lines.txt": ("\n" * 10**7 + "a.png 3", "more than 2000000 lines"),
        "endless label.train": ("9" * 10**5 + "\tgood", "has the label"),
        "endless review.train": ("1\t\U0001f600" + "a" * 10**7, "has more than 1 MB"),
        "escape.train": ("\x1b[2J\tgood", "has the label"),
    }
    return {name: (text.encode(), part) for name, (text, part) in files.items()} | {
        "other encoding.json": (b'{"train": "\xff"}', "cannot be read as JSON"),
        "other encoding.txt": (b"\xff.png 3", "is not UTF-8"),
    }


# Pictures


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, num_bytes: int = 0, before: bytes = b"") -> bytes:
    """A grey PNG that claims a size and holds so many bytes, all 0, compressed."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(num_bytes), 9))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + chunk(b"IEND", b"")


def jpeg(width: int, height: int, num_scans: int = 1) -> bytes:
    """A JPEG that claims a size and whose scans end at once."""
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(99)
    return b"\xff\xd8" + frame + scan * num_scans + b"\xff\xd9"


def tiff(width: int, height: int, bits: int, *others: tuple[int, int]) -> bytes:
    """A TIFF that claims a size; others are (tag, value)."""
    tags = [(256, width), (257, height), (258, bits), (259, 8), (262, 1), (277, 1), *others]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(40)


def damaged(content: bytes, place: int) -> bytes:
    """The content with a bit flipped."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def pictures(canary: Path) -> Files:
    """Picture files, whatever their endings say."""
    whole = BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole, "PNG")
    whole_jpeg = BytesIO()
    Image.open(whole).save(whole_jpeg, "JPEG")
    bmp_header = struct.pack("<IiiHHIIiiII", 40, 2**15, -(2**15), 1, 8, 1, 0, 0, 0, 0, 0)
    large, none, broken = "pixels, but at most 33,554,432 are", "of PNG, JPEG, BMP or TIFF", "is not a whole image"
    return {
        "bomb.png": (png(2**15, 2**15, 2**27), large),
        "wide.png": (png(2**31 - 1, 1), large),
        "largest.png": (png(2**32 - 1, 2**32 - 1), large),
        "two headers.png": (png(9, 9, 0, chunk(b"IHDR", struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0))), broken),
        "text bomb.png": (png(9, 9, 0, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27), 9))), broken),
        "a million chunks.png": (png(9, 9, 0, chunk(b"abCd", b"") * 10**6), none),
        "jpeg.png": (jpeg(65500, 65500), large),
        "thousands of scans.png": (jpeg(2**13, 2**12, num_scans=20_000), none),
        "a million segments.png": (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 10**6 + jpeg(9, 9)[2:], none),
        "fill bytes.png": (b"\xff\xd8" + b"\xff" * 10**7 + b"\0", none),
        "bmp.png": (b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + bmp_header + b"\0\1", large),
        "tiff.png": (tiff(2**15, 2**15, 8), large),
        "tiff in large tiles.png": (tiff(16, 16, 8, (322, 2**15), (323, 2**14)), large),
        "tiff of floats.png": (tiff(2**12, 2**12, 64, (339, 3)), none),
        "gif.png": (b"GIF89a" + struct.pack("<HH", 65535, 16000) + b"\x80\0\0" + bytes(9) + b",\2\2\x44\1\0;", none),
        "webp.png": (b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f\0" + bytes(16), none),
        "numbers.png": (b"P2 32768 32767 255\n1", none),
        "program.png": (f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({canary}) (w) file\n".encode(), none),
        "checksum.png": (damaged(whole.getvalue(), -20), broken),
        "truncated.png": (whole.getvalue()[:-30], broken),
        "truncated jpeg.png": (whole_jpeg.getvalue()[:-30], broken),
        "empty.png": (b"", none),
    }


# Arrays


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def object_array(canary: Path) -> bytes:
    """An npy file that makes the canary where pickles are allowed."""
    file = BytesIO()
    np.save(file, np.array([Touch(canary)]), allow_pickle=True)
    return file.getvalue()


def npy(header: str) -> bytes:
    """An npy file with this header and 16 bytes."""
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode() + bytes(16)


def arrays(canary: Path) -> Files:
    """Array files."""
    headers = {
        "petabytes": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**15},)}}",
        "gigabytes": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**10},)}}",
        "overflow": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62 + 1}, 4)}}",
        "endless shape": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 4000},)}}",
        "nothing often": f"{{'descr': '|V0', 'fortran_order': False, 'shape': ({10**9}, {10**9})}}",
        "large items": "{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1,)}",
        "code": f"__import__('os').system('touch {canary}')",
        "open bracket": "[",
        "deep": "(" * 5000,
        "minus": "-" * 9000 + "1",
        "sum": "1" + "+1" * 4000,
        "long": " " * 10**7,
    }
    files = {f"{name}.npy": (npy(header), "as a NumPy array") for name, header in headers.items()}
    archive = BytesIO()
    np.savez_compressed(archive, np.zeros(10**8, np.uint8))
    pickled = pickle.dumps(Touch(canary))
    return files | {
        "objects.npy": (object_array(canary), "as a NumPy array"),
        "pickle.npy": (pickled, "as a NumPy array"),
        "archive.npy": (archive.getvalue(), "as a NumPy array"),
    }


def make_special_files(folder: Path) -> dict[str, str]:
    """Files that are not what bytes can say: name -> a part of the sentence that refuses them."""
    expected = {}
    for ending in ("yml", "json", "domains", "gates", "png", "npy", "txt", "train"):
        os.mkfifo(folder / f"pipe.{ending}")
        (folder / f"endless.{ending}").symlink_to("/dev/zero")
        with (folder / f"sparse.{ending}").open("wb") as file:
            file.truncate(5 * 10**9)
        regular = "found something else" if ending == "yml" else "no regular file"
        expected |= {f"pipe.{ending}": regular, f"endless.{ending}": regular}
        expected[f"sparse.{ending}"] = "at most 64 KB" if ending == "yml" else "larger than"
    for name, shape in {"sparse labels.npy": (15_000, 16_000), "sparse channels.npy": (5000, 6000, 8)}.items():
        header = npy(f"{{'descr': '|i1', 'fortran_order': False, 'shape': {shape}}}")[:-16]
        with (folder / name).open("wb") as file:
            file.write(header)
            file.truncate(len(header) + 240_000_000)
        expected[name] = "has more than 33,554,432 pixels"
    with (folder / "sparse letters.json").open("wb") as file:
        file.seek(130_000_000)
        file.write("\U0001f600".encode())
    expected["sparse letters.json"] = "not written in ASCII alone"
    (folder / "images.folder").mkdir()
    (folder / "images.folder/bomb.png").write_bytes(png(2**15, 2**15))
    return expected | {"images.folder": "pixels, but at most 33,554,432 are"}


# The tests


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What code in a file would make."""
    return tmp_path_factory.mktemp("code") / "canary"


@pytest.fixture(scope="module")
def outcomes(canary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """How each reading of a hostile file ended, and a part of the sentence expected."""
    folder = tmp_path_factory.mktemp("hostile")
    expected = make_special_files(folder)
    for name, (content, part) in {**configurations(canary), **lists(), **pictures(canary), **arrays(canary)}.items():
        (folder / name).write_bytes(content)
        expected[name] = part
    command = [sys.executable, "-c", READING, *(str(folder / name) for name in expected)]
    read = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert not read.returncode, read.stderr
    lines = [json.loads(line) for line in read.stdout.splitlines()]
    assert {Path(line["path"]).name for line in lines} == expected.keys()
    yield [{**line, "expected": expected[Path(line["path"]).name]} for line in lines]
    for path in folder.glob("sparse*"):
        path.unlink()


def test_each_hostile_file_is_refused_by_one_line_that_names_it(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        sentence = outcome["sentence"]
        assert outcome["path"] in sentence, outcome
        assert outcome["expected"] in sentence, outcome
        assert sentence.isprintable(), outcome
        assert len(sentence) < len(outcome["path"]) + 300, outcome


def test_no_hostile_file_runs_code(outcomes: list[dict[str, Any]], canary: Path) -> None:
    assert outcomes
    assert not canary.exists()


def test_no_hostile_file_takes_much_memory(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["memory"] < MOST_MEMORY, outcome


@pytest.mark.parametrize("number", range(3))
def test_a_loader_of_any_object_would_run_the_code_of_a_configuration(tmp_path: Path, number: int) -> None:
    canary = tmp_path / "canary"
    yaml.load(yaml_calls(canary)[number], Loader=yaml.UnsafeLoader)
    assert canary.exists()


def test_a_reader_of_pickles_would_run_the_code_of_an_array(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    np.lib.format.read_array(BytesIO(object_array(canary)), allow_pickle=True)
    assert canary.exists()
