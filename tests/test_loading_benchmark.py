"""The benchmark of loading: its ways give the same samples, which it checks, and its tables name them all."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import loading
from benchmarks.loading import (
    AS_RELEASED,
    AS_RENDERED,
    BASELINE,
    CACHE,
    FILES,
    TINY,
    loading_tables,
    measure_loading,
    open_ways,
    refuse_other_samples,
    rewrite_as_released,
)
from benchmarks.settings import Settings
from dataloaders.keys import Dataset, Key
from dataloaders.transforms import Sample
from dataloaders.writing import write_png

ROOMS = replace(TINY, num_frames=3, frame_size=(60, 80))


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return open_ways(tmp_path_factory.mktemp("loading"), ROOMS, rewrite_as_released)


@pytest.fixture
def threads_of_opencv() -> Iterator[None]:
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


class Changed:
    """The samples of a way, of which one entry differs somewhere by so much."""

    def __init__(self, dataset: Dataset, entry: str, difference: int) -> None:
        self.dataset, self.entry, self.difference = dataset, entry, difference

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample:
        sample = self.dataset[key]
        sample[self.entry].flat[-1] += self.difference
        return sample


def test_all_ways_give_the_samples_of_the_straightforward_one(
    ways: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    for crop_size in ((321, 321), (50, 60)):
        for dataset in (ways[FILES], ways[CACHE]):
            monkeypatch.setattr(dataset, "augment", replace(dataset.augment, crop_size=crop_size))
        assert ways[BASELINE][(0, 0)]["img"].shape == (3, *crop_size)
        refuse_other_samples(ways, num_passes=2)


@pytest.mark.parametrize(("entry", "difference"), [("img", 2), ("seg", 1), ("depth", 1)])
def test_other_samples_are_refused(ways: dict[str, Dataset], entry: str, difference: int) -> None:
    changed = Changed(ways[FILES], entry, difference)
    with pytest.raises(RuntimeError, match=f"files: {entry} of sample "):
        refuse_other_samples({BASELINE: ways[BASELINE], FILES: changed}, num_passes=1)


def filters(path: Path) -> set[int]:
    """The numbers of the filters that the rows of a picture of 8 bits went through."""
    content, (_, width, channels) = path.read_bytes(), cv2.imread(str(path)).shape
    position, compressed = 8, b""
    while position < len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"IDAT":
            compressed += content[position + 8 : end - 4]
        position = end
    return set(zlib.decompress(compressed)[:: 1 + width * channels])


def test_pictures_as_released_are_noisy_and_filtered_row_by_row_and_keep_what_has_no_label(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 200, (30, 1, 3)) + np.arange(40)[:, None]
    picture = picture.astype(np.uint8)
    picture[:, :9] = 255
    path = tmp_path / "a.png"
    write_png(path, picture)
    rewrite_as_released(path)
    rewritten = cv2.imread(str(path))[:, :, ::-1].astype(int)
    assert ((rewritten == 255).all(axis=2) == (picture == 255).all(axis=2)).all()
    assert 0.8 < (rewritten - picture)[:, 9:].std() < 1.3
    assert len(filters(path)) > 1
    classes = np.arange(200, dtype=np.uint8).reshape(10, 20)
    write_png(path, classes)
    rewrite_as_released(path)
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), classes)


@pytest.mark.usefixtures("threads_of_opencv")
def test_every_way_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAPER", None)
    measured = measure_loading(Settings(torch.device("cpu"), repeats=2, threads=1, batch_size=2, size=32, tiny=True))
    ways = [BASELINE, FILES, CACHE]
    samples = [(row["pictures"], row["name"]) for row in measured["samples"]]
    assert samples == [(pictures, way) for pictures in (AS_RELEASED, AS_RENDERED) for way in ways]
    assert measured["samples"][3]["times_faster"] == {"median": 1, "low": 1, "high": 1}
    assert all(row["milliseconds"] > 0 for row in measured["samples"])
    contests = [(row["pictures"], row["name"], row["num_workers"]) for row in measured["workers"]]
    assert sorted(contests) == sorted((AS_RELEASED, way, number) for way in ways for number in TINY.num_workers)
    for row in measured["workers"]:
        assert len(row["rounds"]) == 2
        assert row["samples_per_second"] == pytest.approx(sum(row["rounds"]) / 2)
    rows = [line.split("|")[1:3] for line in loading_tables(measured).splitlines() if line.startswith("|")]
    named = [(pictures.strip(), way.strip()) for pictures, way in rows if way.strip() in ways]
    assert named == [*samples, *samples[:3]]
