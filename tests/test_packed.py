"""The cache of decoded samples: the same samples, never stale ones, whatever happens to its files or their writers."""

import errno
import json
import multiprocessing
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from dataloaders import DATASETS, nyu_v2, packed
from dataloaders.check.findings import Findings
from dataloaders.check.formats import list_parts
from dataloaders.cityscapes import CityScapes
from dataloaders.domainnet import open_domainnet
from dataloaders.keys import Dataset
from dataloaders.loading import build_loader, evaluation_sampler
from dataloaders.nyu_v2 import NYUv2
from dataloaders.options import DataOptions
from dataloaders.splits import related
from dataloaders.taskonomy import Taskonomy
from dataloaders.transforms import Sample
from tests import test_cityscapes, test_domainnet, test_taskonomy
from tests.test_nyu_v2 import make_root, write_frame, write_split_file
from tests.test_transforms import make_sample
from utils.config import DataloadSection
from utils.errors import UserError

TARGETS = ("seg", "normal", "depth")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six frames of NYU v2's format, two of them for the test; those for training are listed in reverse."""
    folder = tmp_path / "frames"
    rows = make_root(folder, list("abcdef"))
    write_split_file(folder, {"train": rows[3::-1], "test": rows[4:]})
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for caches, which does not exist yet."""
    return tmp_path / "caches" / "of all runs"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are decoded from now on, in no certain order."""
    names: list[str] = []

    def read_image(path: Path) -> np.ndarray:
        names.append(path.stem)
        return original(path)

    original = nyu_v2.READERS["img"]
    monkeypatch.setitem(nyu_v2.READERS, "img", read_image)
    return names


def files_in(cache: Path, pattern: str = "*") -> list[str]:
    """The names of what all caches consist of, but for their locks."""
    return sorted(path.name for path in cache.glob(f"*/{pattern}") if path.name != ".decoding.lock")


def assert_alike(found: Dataset, expected: Dataset, passes: int = 2) -> None:
    """Two data sets have the same samples, to the bit, in the same order of entries."""
    assert len(found) == len(expected)
    for key in [(number, index) for number in range(passes) for index in range(len(expected))]:
        sample, reference = found[key], expected[key]
        assert list(sample) == list(reference)
        assert sample.pop("name") == reference.pop("name")
        for entry, array in reference.items():
            np.testing.assert_array_equal(sample[entry], array, strict=True)


# Samples


@pytest.mark.parametrize("augmentation", ["release", "geometric"])
def test_samples_of_nyu_v2_are_those_of_the_files(root: Path, cache: Path, augmentation: str) -> None:
    augmented = {"targets": TARGETS, "crop_size": (9, 20), "augmentation": augmentation}
    for split in ("train", "train1", "train2"):
        assert_alike(NYUv2(root, split, cache=cache, **augmented), NYUv2(root, split, **augmented), passes=5)
    assert_alike(NYUv2(root, "test", TARGETS, cache=cache), NYUv2(root, "test", TARGETS))


@pytest.mark.parametrize("small_res", [False, True])
def test_samples_of_cityscapes_are_those_of_the_files(tmp_path: Path, cache: Path, small_res: bool) -> None:
    root = test_cityscapes.write_root(
        tmp_path, {"a": test_cityscapes.make_files(0), "b": test_cityscapes.make_files(1)}
    )
    for options in ({}, {"crop_size": (10, 10), "augmentation": "geometric"}):
        arguments = {"targets": test_cityscapes.TARGETS, "small_res": small_res, **options}
        assert_alike(CityScapes(root, "train", cache=cache, **arguments), CityScapes(root, "train", **arguments))
    assert_alike(
        CityScapes(root, "train", test_cityscapes.TARGETS, small_res=not small_res, cache=cache),
        CityScapes(root, "train", test_cityscapes.TARGETS, small_res=not small_res),
    )
    assert len(files_in(cache, "*.bin")) == 2, "small ones and whole ones have caches of their own"


def test_samples_of_taskonomy_are_those_of_the_files(tmp_path: Path, cache: Path) -> None:
    root = test_taskonomy.write_root(tmp_path, {"a": test_taskonomy.make_files(0), "b": test_taskonomy.make_files(1)})
    for options in ({}, {"crop_size": (224, 224), "augmentation": "release"}):
        arguments = {"targets": test_taskonomy.TARGETS, **options}
        assert_alike(Taskonomy(root, "train", cache=cache, **arguments), Taskonomy(root, "train", **arguments))


def test_images_of_domainnet_are_those_of_the_files(tmp_path: Path, cache: Path) -> None:
    test_domainnet.write_root(tmp_path)
    test_domainnet.random_image(7, width=9, height=31).save(tmp_path / "real" / "bee" / "train 0.png")
    settings = DataloadSection(dataset="DomainNet", dataroot=str(tmp_path), crop_h=12, crop_w=10)
    packing = settings.model_copy(update={"cache": str(cache)})
    options, cached = (DataOptions.of(section, {"real": 3, "sketch": 3}, seed=0) for section in (settings, packing))
    for split, training in (("train", True), ("train2", True), ("test", False)):
        domains = open_domainnet(cached, split, training)
        for name, expected in open_domainnet(options, split, training).items():
            assert_alike(domains[name], expected)
            assert domains[name].packed is not None
            assert str(cache) in domains[name].notes[-1]
    assert len(files_in(cache, "*.bin")) == 4, "one for each domain, and for train and test"


def test_frames_of_several_sizes_and_types_keep_theirs(root: Path, cache: Path) -> None:
    write_frame(root, "b", make_sample(9, height=7, width=33))
    np.save(root / "depth" / "c.npy", np.load(root / "depth" / "c.npy").astype(np.float64))
    dataset = NYUv2(root, "train", TARGETS, cache=cache)
    assert_alike(dataset, NYUv2(root, "train", TARGETS))
    places = [array.ctypes.data for number in range(4) for array in dataset.packed[number].values()]
    assert not any(place % packed.ALIGNMENT for place in places), "values are read fastest where they are aligned"


def test_whole_frames_can_be_written_to_and_the_cache_cannot(root: Path, cache: Path) -> None:
    class Careless(NYUv2):
        def encode(self, sample: Sample) -> Sample:
            sample["depth"][:] = 7
            return {"img": sample["img"].transpose(2, 0, 1), "depth": sample["depth"]}

    dataset = Careless(root, "test", TARGETS, cache=cache)
    for _ in range(2):
        assert (dataset[(0, 0)]["depth"] == 7).all()
    assert (NYUv2(root, "test", TARGETS, cache=cache)[(0, 0)]["depth"] != 7).all()
    with pytest.raises(ValueError, match="read-only"):
        dataset.packed[0]["img"][0, 0, 0] = 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_the_same_file(root: Path, cache: Path, num_workers: int) -> None:
    dataset = NYUv2(root, "train", TARGETS, cache=cache)
    sampler = evaluation_sampler(dataset, batch_size=1, keep_last=True)
    for index, batch in enumerate(build_loader(dataset, sampler, num_workers, pin_memory=False)):
        np.testing.assert_array_equal(batch["img"][0], NYUv2(root, "train", TARGETS)[(0, index)]["img"])


def test_a_process_that_is_sent_a_data_set_gets_no_copy_of_the_file(root: Path, cache: Path) -> None:
    dataset = NYUv2(root, "train1", TARGETS, cache=cache)
    sent = pickle.dumps(dataset)
    assert len(sent) < dataset.packed.file.content.nbytes
    assert_alike(pickle.loads(sent), dataset)


# When files are decoded


def test_files_are_decoded_once_for_all_splits_that_share_them(root: Path, cache: Path, decoded: list[str]) -> None:
    for split in ("train1", "train", "train2", "train1"):
        dataset = NYUv2(root, split, TARGETS, cache=cache)
        assert sorted(decoded) == list("abcd"), "and no others, before they are needed"
        assert [dataset[(0, index)]["name"] for index in range(len(dataset))] == [
            frame["img"].stem for frame in dataset.frames
        ]
    for split in ("test", "val"):
        NYUv2(root, split, TARGETS, cache=cache)[(0, 1)]
        assert sorted(decoded) == list("abcdef")
    assert len(files_in(cache, "*.bin")) == 2
    assert (
        len({*NYUv2(root, "train", TARGETS, cache=cache).notes, *NYUv2(root, "train1", TARGETS, cache=cache).notes})
        == 2
    )


def test_other_targets_have_another_cache(root: Path, cache: Path, decoded: list[str]) -> None:
    for targets in (("seg",), ("seg", "depth"), ("depth", "seg"), ("seg",)):
        assert_alike(NYUv2(root, "test", targets, cache=cache), NYUv2(root, "test", targets))
    assert len(files_in(cache, "*.bin")) == 3


def test_a_relative_data_root_is_the_same_one(
    root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    NYUv2(root, "test", TARGETS, cache=cache)
    monkeypatch.chdir(root.parent)
    NYUv2(root.name, "test", TARGETS, cache=cache)
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


@pytest.mark.parametrize("change", [replace_image, touch, lengthen_quietly])
def test_what_was_decoded_from_an_earlier_state_is_replaced(
    root: Path, cache: Path, decoded: list[str], change: Callable[[Path], None]
) -> None:
    running = NYUv2(root, "test", TARGETS, cache=cache)
    before, files = running[(0, 0)], files_in(cache)
    change(root)
    decoded.clear()
    assert_alike(NYUv2(root, "test", TARGETS, cache=cache), NYUv2(root, "test", TARGETS), passes=1)
    assert len(decoded) == 2 + 2
    assert len(files_in(cache)) == len(files) == 2
    assert not {*files_in(cache)} & {*files}
    np.testing.assert_array_equal(running[(0, 0)]["img"], before["img"])


def test_other_code_decodes_anew(root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Brighter(NYUv2):
        def read(self, frame: dict[str, Path]) -> Sample:
            sample = super().read(frame)
            return sample | {"img": sample["img"] | 1}

    plain = NYUv2(root, "test", TARGETS, cache=cache)[(0, 0)]["img"]
    assert not np.array_equal(Brighter(root, "test", TARGETS, cache=cache)[(0, 0)]["img"], plain)
    for module in (nyu_v2, packed.resize, test_cityscapes):
        source = Path(module.__code__.co_filename if callable(module) else module.__file__)
        assert (source.read_bytes() in packed.decoding_code(NYUv2)) == (module is not test_cityscapes)
    decoded.clear()
    monkeypatch.setattr(packed, "decoding_code", lambda kind: b"another version")
    NYUv2(root, "test", TARGETS, cache=cache)
    assert len(decoded) == 2


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
    "Python objects": change_index(layouts=[[["img", "|O8", [12, 16, 3]]]]),
    "huge array": change_index(layouts=[[["img", "|u1", [2**40, 2**40, 3]]]]),
    "no length": change_index(layouts=[[["img", "|u1", [0]]]]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_found_and_made_anew(root: Path, cache: Path, decoded: list[str], damage: str) -> None:
    NYUv2(root, "test", TARGETS, cache=cache)
    names = files_in(cache)
    (arrays,), (index,) = cache.glob("*/*.bin"), cache.glob("*/*.json")
    DAMAGES[damage](arrays, index)
    decoded.clear()
    dataset = NYUv2(root, "test", TARGETS, cache=cache)
    assert len(decoded) == 2
    assert_alike(dataset, NYUv2(root, "test", TARGETS))
    assert files_in(cache) == names


# Who writes, and what goes wrong


def open_elsewhere(root: Path, cache: Path, log: Path, together: Barrier) -> None:
    """In a process of its own: open a cache when the others do, and note down every image that is decoded for it."""
    original = nyu_v2.READERS["img"]

    def read_image(path: Path) -> np.ndarray:
        time.sleep(0.2)  # Long enough for the others to come upon a cache that is not finished.
        with log.open("a") as file:
            file.write(f"{path.stem}\n")
        return original(path)

    nyu_v2.READERS["img"] = read_image
    together.wait()
    assert NYUv2(root, "train", TARGETS, cache=cache)[(0, 0)]["name"] == "d"


def test_of_several_processes_one_decodes(root: Path, cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    arguments = (root, cache, log, context.Barrier(3))
    processes = [context.Process(target=open_elsewhere, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == list("abcd")


def test_what_a_killed_process_left_is_removed(root: Path, cache: Path) -> None:
    NYUv2(root, "test", TARGETS, cache=cache)
    (arrays,), (index,) = cache.glob("*/*.bin"), cache.glob("*/*.json")
    unfinished = index.with_name(f".{'0' * 32}.tmp")
    arrays.rename(unfinished)
    index.unlink()
    NYUv2(root, "test", TARGETS, cache=cache)
    assert files_in(cache) == [arrays.name, index.name]


def test_a_bad_file_is_told_in_its_own_sentence_and_nothing_is_kept(root: Path, cache: Path) -> None:
    (root / "img" / "c.png").write_bytes(b"text")
    with pytest.raises(
        UserError, match=r"img/c\.png is not a whole image \(of PNG, JPEG, BMP or TIFF\): replace the file"
    ):
        NYUv2(root, "train1", TARGETS, cache=cache)
    assert files_in(cache) == []
    assert NYUv2(root, "test", TARGETS, cache=cache)[(0, 0)]["name"] == "e"


def test_a_frame_that_a_related_split_lacks_is_named(root: Path, cache: Path) -> None:
    rows = json.loads((root / nyu_v2.SPLIT_FILE).read_text())
    write_split_file(root, rows | {"train1": rows["train"][1:], "train2": rows["train"][:1]})
    (root / rows["train"][0][1]).unlink()
    assert len(NYUv2(root, "train1", TARGETS)) == 3
    with pytest.raises(UserError, match=r"seg/d\.png cannot be read .*No such file.*: put it there, or correct"):
        NYUv2(root, "train1", TARGETS, cache=cache)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, samples: Iterable[Sample]) -> None:
        path.write_bytes(next(iter(samples))["img"])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(packed, "write_arrays", fill)
        with pytest.raises(
            UserError, match=rf"^{re.escape(str(cache))}.*cannot be written \(No space left on device\)"
        ):
            NYUv2(root, "test", TARGETS, cache=cache)
    assert files_in(cache) == []
    assert_alike(NYUv2(root, "test", TARGETS, cache=cache), NYUv2(root, "test", TARGETS))


def test_a_place_where_no_folder_can_be_is_named(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(UserError, match=r"^dataload\.cache: .* cannot be written to \(Permission denied\): give a"):
            NYUv2(root, "test", TARGETS, cache=cache)
    cache.parent.write_text("a file")
    with pytest.raises(UserError, match=r"^dataload\.cache: .* cannot be read \(Not a directory\): give another"):
        NYUv2(root, "test", TARGETS, cache=cache)


def test_a_whole_cache_needs_no_right_to_write(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NYUv2(root, "test", TARGETS, cache=cache)
    monkeypatch.setattr(packed, "make_cache_folder", lambda folder: pytest.fail("asked to write"))
    NYUv2(root, "test", TARGETS, cache=cache)
    shutil.rmtree(cache)
    with pytest.raises(pytest.fail.Exception):
        NYUv2(root, "test", TARGETS, cache=cache)


def test_a_check_reads_the_files(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "img" / "c.png").write_bytes(b"text")
    monkeypatch.setitem(DATASETS, "Own", nyu_v2.open_nyu_v2)
    settings = DataloadSection(dataset="Own", dataroot=str(root), cache=str(cache), crop_h=8, crop_w=8)
    options, findings = DataOptions.of(settings, {"seg": 40}, seed=0), Findings()
    (part,) = list_parts("Own", options, {}, ["train"], findings).values()
    assert len(part.splits.members["train"]) == 4
    assert not cache.exists()


# Settings and splits


def test_the_configuration_names_the_folder(root: Path, cache: Path) -> None:
    settings = DataloadSection(dataset="NYU_v2", dataroot=str(root), cache=str(cache), crop_h=8, crop_w=8)
    options = DataOptions.of(settings, {"seg": 40}, seed=0)
    assert options.cache == cache
    assert nyu_v2.open_nyu_v2(options, "train", training=True).packed is not None
    assert DataOptions.of(settings.model_copy(update={"cache": None}), {"seg": 40}, seed=0).cache is None


def test_splits_are_related_by_what_they_share_even_by_way_of_others() -> None:
    members = {"train": [3, 1, 2], "train1": [1, 2], "train2": [3, 9], "test": [5, 4, 5], "small": [4], "val": [9, 8]}
    assert related(members, "train1") == related(members, "val") == [1, 2, 3, 8, 9]
    assert related(members, "small") == [4, 5]
