"""The cache of decoded samples: decoded once, never stale, whatever happens to its files or their writers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders import DATASETS, caching, nyu_v2
from dataloaders.caching import Cache
from dataloaders.check.findings import Findings
from dataloaders.check.formats import list_parts
from dataloaders.nyu_v2 import NYUv2
from dataloaders.options import DataOptions
from dataloaders.transforms import Sample
from tests.caches.test_packed import assert_alike, files_in
from tests.test_nyu_v2 import write_frame, write_split_file
from tests.test_transforms import make_sample
from utils.config import DataloadSection

TARGETS = ("seg", "normal", "depth")

SIZE_OF_A_FRAME = 576 + 192 + 576 + 768
"""Bytes of image, classes, normals and depth of 12x16 pixels; all are multiples of what arrays are aligned to."""


def note_down_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which the name of every image is added that is decoded from now on."""
    names: list[str] = []

    def read_image(path: Path) -> np.ndarray:
        names.append(path.stem)
        return original(path)

    original = nyu_v2.READERS["img"]
    monkeypatch.setitem(nyu_v2.READERS, "img", read_image)
    return names


# When files are decoded


def test_files_are_decoded_once_for_all_splits_that_share_them(root: Path, cache: Path, decoded: list[str]) -> None:
    for split in ("train1", "train", "train2", "train1"):
        dataset = NYUv2(root, split, TARGETS, cache=Cache(cache)).decoded()
        assert sorted(decoded) == list("abcd"), "and no others, before they are needed"
        assert [dataset[(0, index)]["name"] for index in range(len(dataset))] == [
            frame["img"].stem for frame in dataset.frames
        ]
    for split in ("test", "val"):
        NYUv2(root, split, TARGETS, cache=Cache(cache)).decoded()[(0, 1)]
        assert sorted(decoded) == list("abcdef")
    assert len(files_in(cache, "*.bin")) == 2
    notes = [NYUv2(root, split, TARGETS, cache=Cache(cache)).decoded().notes for split in ("train", "train1")]
    assert len({*notes[0], *notes[1]}) == 2


def test_test_frames_have_one_cache_wherever_val_comes_from(root: Path, cache: Path, decoded: list[str]) -> None:
    for validation in ("test", "held_out"):
        NYUv2(root, "test", TARGETS, validation=validation, cache=Cache(cache)).decoded()
    assert len(decoded) == 2


def test_other_targets_have_another_cache(root: Path, cache: Path, decoded: list[str]) -> None:
    for targets in (("seg",), ("seg", "depth"), ("depth", "seg"), ("seg",)):
        assert_alike(NYUv2(root, "test", targets, cache=Cache(cache)).decoded(), NYUv2(root, "test", targets))
    assert len(files_in(cache, "*.bin")) == 3


def test_a_relative_data_root_is_the_same_one(
    root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    monkeypatch.chdir(root.parent)
    NYUv2(root.name, "test", TARGETS, cache=Cache(cache)).decoded()
    assert len(decoded) == 2


def replace_image(root: Path) -> None:
    write_frame(root, "e", {"img": make_sample(42)["img"]})


def touch(root: Path) -> None:
    os.utime(root / "seg" / "f.png", ns=(1, 1))


def lengthen_quietly(root: Path) -> None:
    path = root / "img" / "f.png"
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"behind the end")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange_quietly(root: Path) -> None:
    """Of the same size, with the time of the old one, as archives may set it."""
    path = root / "depth" / "f.npy"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-4] + bytes(4))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replace_image, touch, lengthen_quietly, exchange_quietly])
def test_what_was_decoded_from_an_earlier_state_is_replaced(
    root: Path, cache: Path, decoded: list[str], change: Callable[[Path], None]
) -> None:
    running = NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    before, files = running[(0, 0)], files_in(cache)
    change(root)
    decoded.clear()
    assert_alike(NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded(), NYUv2(root, "test", TARGETS), passes=1)
    assert len(decoded) == 2 + 2
    assert len(files_in(cache)) == len(files) == 2
    assert not {*files_in(cache)} & {*files}
    np.testing.assert_array_equal(running[(0, 0)]["img"], before["img"])


def test_other_code_decodes_anew(root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Brighter(NYUv2):
        def read(self, frame: dict[str, Path]) -> Sample:
            sample = super().read(frame)
            return sample | {"img": sample["img"] | 1}

    plain = NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()[(0, 0)]["img"]
    assert not np.array_equal(Brighter(root, "test", TARGETS, cache=Cache(cache)).decoded()[(0, 0)]["img"], plain)
    for source in (*Path(nyu_v2.__file__).parent.glob("*.py"), Path(__file__)):
        assert source.read_bytes() in caching.decoding_code(Brighter)
        assert (source.read_bytes() in caching.decoding_code(NYUv2)) == (source != Path(__file__))


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("decoding_code", lambda _: b"9"),
        *[(f"{library}.__version__", "9") for library in ("np", "cv2", "PIL", "kornia_rs")],
    ],
)
def test_other_versions_decode_anew(
    root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, place: str, version: Any
) -> None:
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    decoded.clear()
    monkeypatch.setattr(f"dataloaders.caching.{place}", version)
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    assert len(decoded) == 2
    assert len(files_in(cache)) == 2


def test_a_run_looks_at_the_files_once_for_all_splits_that_share_them(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*arguments: Any) -> str:
        looked.append(arguments)
        return original(*arguments)

    looked: list[tuple] = []
    original = caching.fingerprint_of
    monkeypatch.setattr(caching, "fingerprint_of", look)
    of_run = Cache(cache)
    for split, times in (("train", 1), ("train1", 1), ("test", 2), ("val", 2), ("train2", 2)):
        assert_alike(NYUv2(root, split, TARGETS, cache=of_run).decoded(), NYUv2(root, split, TARGETS))
        assert len(looked) == times


def test_who_adds_frames_is_told_of_the_older_cache(
    root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((root / nyu_v2.SPLIT_FILE).read_text())
    for split in ("train", "test"):
        NYUv2(root, split, TARGETS, cache=Cache(cache)).decoded()
    NYUv2(root, "train", ("seg",), cache=Cache(cache)).decoded()
    assert capsys.readouterr().out == ""
    (older,) = (path.parent for path in cache.glob("*/*.bin") if path.stat().st_size == 4 * SIZE_OF_A_FRAME)
    write_split_file(root, rows | {"train": rows["train"][1:]})
    dataset = NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()
    assert capsys.readouterr().out == (
        f"{older} (0 MB) is of an earlier list of files: remove it if no run needs it any more\n"
    )
    assert older.exists()
    assert_alike(dataset, NYUv2(root, "train", TARGETS))
    NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()
    assert capsys.readouterr().out == ""


def truncate(arrays: Path, index: Path) -> None:
    os.truncate(arrays, arrays.stat().st_size - 1)


def lengthen(arrays: Path, index: Path) -> None:
    os.truncate(arrays, arrays.stat().st_size + 64)


def empty(arrays: Path, index: Path) -> None:
    os.truncate(arrays, 0)


def change_index(**changes: object) -> Callable[[Path, Path], None]:
    def change(arrays: Path, index: Path) -> None:
        index.write_text(json.dumps(json.loads(index.read_text()) | changes))

    return change


DAMAGES = {
    "truncated": truncate,
    "too long": lengthen,
    "empty": empty,
    "no arrays": lambda arrays, index: arrays.unlink(),
    "no index": lambda arrays, index: index.unlink(),
    "half an index": lambda arrays, index: os.truncate(index, index.stat().st_size // 2),
    "another index": lambda arrays, index: index.write_text("[]"),
    "no text": lambda arrays, index: index.write_bytes(b"\xff\xfe"),
    "no layout": change_index(layouts=[]),
    "no samples": change_index(samples=[]),
    "negative sample": change_index(samples=[0, -1]),
    "more samples": change_index(samples=[0, 0, 0]),
    "no such type": change_index(layouts=[[["img", "|b8", [12, 16, 3]]]]),
    "no size of floats": change_index(layouts=[[["img", "<f1", [12, 16, 3]]]]),
    "no order of bytes": change_index(layouts=[[["img", "|f1", [12, 16, 3]]]]),
    "Python objects": change_index(layouts=[[["img", "|O8", [12, 16, 3]]]]),
    "huge array": change_index(layouts=[[["img", "|u1", [2**40, 2**40, 3]]]]),
    "no length": change_index(layouts=[[["img", "|u1", [0]]]]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_found_and_made_anew(root: Path, cache: Path, decoded: list[str], damage: str) -> None:
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    names = files_in(cache)
    (arrays,), (index,) = cache.glob("*/*.bin"), cache.glob("*/*.json")
    DAMAGES[damage](arrays, index)
    decoded.clear()
    dataset = NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    assert len(decoded) == 2
    assert_alike(dataset, NYUv2(root, "test", TARGETS))
    assert files_in(cache) == names


# Settings


def test_the_configuration_names_the_folder(root: Path, cache: Path) -> None:
    settings = DataloadSection(dataset="NYU_v2", dataroot=str(root), cache=str(cache), crop_h=8, crop_w=8)
    options = DataOptions.of(settings, {"seg": 40}, seed=0)
    assert options.cache.folder == cache
    opened = nyu_v2.open_nyu_v2(options, "train", training=True)
    assert not cache.exists(), "decoding takes hours: all else is looked at before"
    assert opened.decoded().packed is not None
    assert DataOptions.of(settings.model_copy(update={"cache": None}), {"seg": 40}, seed=0).cache is None


def test_a_check_reads_the_files(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "img" / "c.png").write_bytes(b"text")
    monkeypatch.setitem(DATASETS, "Own", nyu_v2.open_nyu_v2)
    settings = DataloadSection(dataset="Own", dataroot=str(root), cache=str(cache), crop_h=8, crop_w=8)
    options, findings = DataOptions.of(settings, {"seg": 40}, seed=0), Findings()
    (part,) = list_parts("Own", options, {}, ["train"], findings).values()
    assert len(part.splits.members["train"]) == 4
    assert not cache.exists()
