"""Packed samples: the same as those of the files, to the bit, wherever they are read from."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.caching import Cache
from dataloaders.cityscapes import CityScapes
from dataloaders.domainnet import open_domainnet
from dataloaders.keys import Dataset
from dataloaders.loading import build_loader, evaluation_sampler, fetch
from dataloaders.nyu_v2 import NYUv2
from dataloaders.options import DataOptions
from dataloaders.packed import ALIGNMENT, map_samples, write_arrays
from dataloaders.taskonomy import Taskonomy
from dataloaders.transforms import Sample
from tests import test_cityscapes, test_domainnet, test_taskonomy
from tests.test_nyu_v2 import make_root, write_frame, write_split_file
from tests.test_transforms import make_sample
from utils.config import DataloadSection
from utils.errors import UserError

TARGETS = ("seg", "normal", "depth")


def write_frames(root: Path) -> Path:
    """Six frames of NYU v2's format, two of them for the test; those for training are listed in reverse."""
    rows = make_root(root, list("abcdef"))
    write_split_file(root, {"train": rows[3::-1], "test": rows[4:]})
    return root


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
        cached = NYUv2(root, split, cache=Cache(cache), **augmented).decoded()
        assert_alike(cached, NYUv2(root, split, **augmented), passes=5)
    assert_alike(NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded(), NYUv2(root, "test", TARGETS))


@pytest.mark.parametrize("small_res", [False, True])
def test_samples_of_cityscapes_are_those_of_the_files(tmp_path: Path, cache: Path, small_res: bool) -> None:
    root = test_cityscapes.write_root(
        tmp_path, {"a": test_cityscapes.make_files(0), "b": test_cityscapes.make_files(1)}
    )
    for options in ({}, {"crop_size": (10, 10), "augmentation": "geometric"}):
        arguments = {"targets": test_cityscapes.TARGETS, "small_res": small_res, **options}
        cached = CityScapes(root, "train", cache=Cache(cache), **arguments).decoded()
        assert_alike(cached, CityScapes(root, "train", **arguments))
    assert_alike(
        CityScapes(root, "train", test_cityscapes.TARGETS, small_res=not small_res, cache=Cache(cache)).decoded(),
        CityScapes(root, "train", test_cityscapes.TARGETS, small_res=not small_res),
    )
    assert len(files_in(cache, "*.bin")) == 2, "small ones and whole ones have caches of their own"


def test_samples_of_taskonomy_are_those_of_the_files(tmp_path: Path, cache: Path) -> None:
    root = test_taskonomy.write_root(tmp_path, {"a": test_taskonomy.make_files(0), "b": test_taskonomy.make_files(1)})
    for options in ({}, {"crop_size": (224, 224), "augmentation": "release"}):
        arguments = {"targets": test_taskonomy.TARGETS, **options}
        cached = Taskonomy(root, "train", cache=Cache(cache), **arguments).decoded()
        assert_alike(cached, Taskonomy(root, "train", **arguments))


def test_images_of_domainnet_are_those_of_the_files(tmp_path: Path, cache: Path) -> None:
    test_domainnet.write_root(tmp_path)
    test_domainnet.random_image(7, width=9, height=31).save(tmp_path / "real" / "bee" / "train 0.png")
    settings = DataloadSection(dataset="DomainNet", dataroot=str(tmp_path), crop_h=12, crop_w=10)
    packing = settings.model_copy(update={"cache": str(cache)})
    options, cached = (DataOptions.of(section, {"real": 3, "sketch": 3}, seed=0) for section in (settings, packing))
    for split, training in (("train", True), ("train2", True), ("test", False)):
        domains = open_domainnet(cached, split, training)
        for name, expected in open_domainnet(options, split, training).items():
            domain = domains[name].decoded()
            assert_alike(domain, expected)
            assert domain.packed is not None
            assert str(cache) in domain.notes[-1]
    assert len(files_in(cache, "*.bin")) == 4, "one for each domain, and for train and test"


def test_frames_of_several_sizes_and_types_keep_theirs(root: Path, cache: Path) -> None:
    write_frame(root, "b", make_sample(9, height=7, width=33))
    np.save(root / "depth" / "c.npy", np.load(root / "depth" / "c.npy").astype(np.float64))
    dataset = NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()
    assert_alike(dataset, NYUv2(root, "train", TARGETS))
    places = [array.ctypes.data for number in range(4) for array in dataset.packed[number].values()]
    assert not any(place % ALIGNMENT for place in places), "values are read fastest where they are aligned"


def test_whole_frames_can_be_written_to_and_the_cache_cannot(root: Path, cache: Path) -> None:
    class Careless(NYUv2):
        def encode(self, sample: Sample) -> Sample:
            sample["depth"][:] = 7
            return {"img": sample["img"].transpose(2, 0, 1), "depth": sample["depth"]}

    dataset = Careless(root, "test", TARGETS, cache=Cache(cache)).decoded()
    for _ in range(2):
        assert (dataset[(0, 0)]["depth"] == 7).all()
    assert (NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()[(0, 0)]["depth"] != 7).all()
    with pytest.raises(ValueError, match="read-only"):
        dataset.packed[0]["img"][0, 0, 0] = 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_the_same_file(root: Path, cache: Path, num_workers: int) -> None:
    dataset = NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()
    sampler = evaluation_sampler(dataset, batch_size=1, keep_last=True)
    batches = list(build_loader(dataset, sampler, num_workers, pin_memory=False))
    assert len(batches) == len(dataset) > 0
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(batch["img"][0], NYUv2(root, "train", TARGETS)[(0, index)]["img"])


def test_a_process_that_is_sent_a_data_set_gets_no_copy_of_the_file(root: Path, cache: Path) -> None:
    dataset = NYUv2(root, "train1", TARGETS, cache=Cache(cache)).decoded()
    sent = pickle.dumps(dataset)
    assert len(sent) < dataset.packed.file.content.nbytes
    assert_alike(pickle.loads(sent), dataset)


def test_the_samples_of_a_cache_outlive_its_removal_where_they_are_mapped(root: Path, cache: Path) -> None:
    dataset = NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    shutil.rmtree(cache)
    assert_alike(dataset, NYUv2(root, "test", TARGETS))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 64), lambda path: os.truncate(path, 0)])
def test_a_process_that_is_sent_samples_whose_file_has_gone_says_so(root: Path, cache: Path, damage: Callable) -> None:
    sent = pickle.dumps(NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded())
    (arrays,) = cache.glob("*/*.bin")
    damage(arrays)
    dataset = pickle.loads(sent)
    for _ in range(2):
        with pytest.raises(UserError, match=r"\.bin, from which .* cannot be read any more \(.*\): start the run"):
            fetch(dataset, (0, 0))


# What can be packed


@pytest.mark.parametrize("code", ["?", "u1", "i1", "<i2", ">u2", "<f2", ">f4", "<f8", "<i8", "<u8"])
def test_truth_values_and_numbers_keep_their_types(tmp_path: Path, code: str) -> None:
    sample = {"img": np.arange(24).reshape(2, 4, 3).astype(code)[:, ::-1], "one": np.array(1, code)}
    index = write_arrays(tmp_path / "arrays", [sample] * 2)
    for number in range(2):
        packed = map_samples(tmp_path / "arrays", index)[number]
        np.testing.assert_array_equal(packed["img"], sample["img"], strict=True)
        np.testing.assert_array_equal(packed["one"], sample["one"], strict=True)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (np.array(["a"]), r"an array \[1\] of <U1"),
        (np.array([None]), r"an array \[1\] of object"),
        (np.zeros((2, 0), np.uint8), r"an array \[2, 0\] of uint8"),
        (np.zeros(2, np.complex64), r"an array \[2\] of complex64"),
        (np.zeros(2, "u1,u1"), r"an array \[2\] of \[.*\]"),
        ([1, 2], "of type list"),
    ],
)
def test_what_cannot_be_packed_is_named_at_the_first_sample(tmp_path: Path, entry: Any, found: str) -> None:
    def samples() -> Iterator[Sample]:
        yield {"img": np.zeros((2, 2), np.uint8), "mask": entry}
        pytest.fail("the others are not asked for")

    with pytest.raises(UserError, match=rf"'mask' of a decoded sample is {found}: let `read` of the data set"):
        write_arrays(tmp_path / "arrays", samples())
