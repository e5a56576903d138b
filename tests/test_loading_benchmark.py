"""The benchmark of loading: its ways give the same samples, which it checks, and its tables name them all."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks import loading
from benchmarks.loading import BASELINE, CACHE, FILES, loading_tables, measure_loading, open_ways, refuse_other_samples
from dataloaders.keys import Dataset, Key
from dataloaders.transforms import Sample


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return open_ways(tmp_path_factory.mktemp("loading"), num_frames=3, height=60, width=80)


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
        monkeypatch.setattr(loading, "CROP_SIZE", crop_size)
        for dataset in (ways[FILES], ways[CACHE]):
            monkeypatch.setattr(dataset, "augment", replace(dataset.augment, crop_size=crop_size))
        refuse_other_samples(ways)


@pytest.mark.parametrize(("entry", "difference"), [("img", 2), ("seg", 1), ("depth", 1)])
def test_other_samples_are_refused(ways: dict[str, Dataset], entry: str, difference: int) -> None:
    with pytest.raises(RuntimeError, match=f"files: {entry} of sample "):
        refuse_other_samples({BASELINE: ways[BASELINE], FILES: Changed(ways[FILES], entry, difference)})


def test_every_way_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FRAME_SIZE", (48, 64))
    monkeypatch.setattr(loading, "NUM_FRAMES", 2)
    monkeypatch.setattr(loading, "NUM_WORKERS", (0, 1))
    threads = cv2.getNumThreads()
    measured = measure_loading(rounds=2)
    cv2.setNumThreads(threads)
    assert [row["name"] for row in measured["samples"]] == [BASELINE, FILES, CACHE]
    assert measured["samples"][0]["times_faster"] == {"median": 1, "low": 1, "high": 1}
    assert all(row["milliseconds"] > 0 for row in measured["samples"])
    contests = [(row["name"], row["num_workers"]) for row in measured["workers"]]
    assert sorted(contests) == sorted((name, number) for name in (BASELINE, FILES, CACHE) for number in (0, 1))
    rows = [line.split("|")[1].strip() for line in loading_tables(measured).splitlines() if line.startswith("|")]
    assert [row for row in rows if row in (BASELINE, FILES, CACHE)] == [BASELINE, FILES, CACHE] * 2
    assert np.isfinite([row["samples_per_second"] for row in measured["workers"]]).all()
