"""How fast training samples come from files and from a cache, beside the straightforward way.

`python -m benchmarks.loading` renders frames of NYU v2's size into a temporary folder, measures, and prints two tables:
the time that one worker takes for a sample, and what several hand over. The files are in the system's memory by then;
a slow disk adds its own time to each way.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import Parts, Pass, Ratio, interleave, times_faster
from benchmarks.tables import cell, markdown_table
from dataloaders.frames import Frame
from dataloaders.keys import Dataset, Key, keyed_generator
from dataloaders.loading import build_loader, training_sampler
from dataloaders.nyu_v2 import NYUv2
from dataloaders.rendered import write_nyu_v2
from dataloaders.transforms import IMAGE_MEAN_BGR, Sample
from utils.errors import exit_on_user_error
from utils.progress import progress_bar

TARGETS = ("seg", "normal", "depth")
FRAME_SIZE, CROP_SIZE = (480, 640), (321, 321)
NUM_FRAMES, NUM_PASSES, BATCH_SIZE = 16, 2, 16
NUM_WORKERS = (0, 1, 2)
WARM_UP_BATCHES, TIMED_BATCHES = 2, 6

BASELINE, FILES, CACHE = "straightforward", "files", "packed cache"


class Straightforward:
    """The baseline: NYU v2's training samples as one would first write them, and as the release makes them.

    Everything is decoded, turned to float64, resized as a whole, mirrored, padded and cropped, in this order. The draws
    are those of `dataloaders.nyu_v2`, so that the samples are the same: the image up to one grey level, as OpenCV
    rounds bytes, the targets exactly.
    """

    def __init__(self, frames: NYUv2):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | str]:
        pass_number, index = key
        frame = self.frames.frames[index]
        generator = keyed_generator(self.frames.seed, self.frames.split, pass_number, index)
        return {"name": frame["img"].stem, **encode(augment(read(frame), CROP_SIZE, generator))}


def read(frame: Frame) -> Sample:
    """All files of a frame: float64 [H, W] or [H, W, 3]."""
    return {
        "img": cv2.imread(str(frame["img"]), cv2.IMREAD_COLOR).astype(np.float64),
        "seg": cv2.imread(str(frame["seg"]), cv2.IMREAD_UNCHANGED).astype(np.float64),
        "normal": cv2.imread(str(frame["normal"]), cv2.IMREAD_UNCHANGED).astype(np.float64),
        "depth": np.load(frame["depth"]).astype(np.float64),
    }


def augment(sample: Sample, crop_size: tuple[int, int], generator: np.random.Generator) -> Sample:
    """The release's augmentation of whole frames, array by array and step by step."""
    height, width = sample["img"].shape[:2]
    factor = generator.uniform(0.5, 1.5)
    size = (round(width * factor), round(height * factor))
    sample = {
        name: cv2.resize(array, size, interpolation=cv2.INTER_LINEAR if name == "img" else cv2.INTER_NEAREST)
        for name, array in sample.items()
    }
    if generator.random() < 0.5:
        sample = {name: array[:, ::-1] for name, array in sample.items()}
    missing = [max(wanted - length, 0) for wanted, length in zip(crop_size, size[::-1], strict=True)]
    borders = [(total // 2, total - total // 2) for total in missing]
    sample = {
        name: np.pad(array, [*borders, (0, 0)][: array.ndim], constant_values=255 if name in ("seg", "normal") else 0)
        for name, array in sample.items()
    }
    height, width = sample["img"].shape[:2]
    top = int(generator.integers(height - crop_size[0] + 1))
    left = int(generator.integers(width - crop_size[1] + 1))
    return {name: array[top : top + crop_size[0], left : left + crop_size[1]] for name, array in sample.items()}


def encode(sample: Sample) -> dict[str, np.ndarray]:
    """The entries of a batch, as `dataloaders.nyu_v2.NYUv2` lists them."""
    depth = np.where(np.isfinite(sample["depth"]), sample["depth"], 0)
    return {
        "img": (sample["img"] - IMAGE_MEAN_BGR).transpose(2, 0, 1).astype(np.float32),
        "seg": sample["seg"].astype(np.int64),
        "normal": sample["normal"].transpose(2, 0, 1).astype(np.float32),
        "normal_valid": (sample["normal"] != 255).any(axis=2)[None],
        "depth": depth[None].astype(np.float32),
        "depth_valid": (depth > 3e-5)[None],
    }


@dataclass(frozen=True)
class SampleTime:
    """What one worker takes for a sample of a way.

    Attributes:
        milliseconds: the median of the rounds.
        times_faster: than the straightforward way.
    """

    name: str
    milliseconds: float
    times_faster: Ratio


@dataclass(frozen=True)
class Throughput:
    """Samples per second that so many workers hand over, collated to batches; 0 loads in the process that asks."""

    name: str
    num_workers: int
    samples_per_second: float


def measure_loading(rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Both measurements, on frames that are rendered for them.

    Returns:
        "samples": every `SampleTime`; "workers": every `Throughput`; as plain values.

    Raises: RuntimeError if the ways do not give the same samples.
    """
    with TemporaryDirectory() as folder:
        ways = open_ways(Path(folder), NUM_FRAMES, *FRAME_SIZE)
        refuse_other_samples(ways)
        cv2.setNumThreads(0)  # As in a worker.
        return {
            "samples": [asdict(row) for row in time_samples(ways, rounds)],
            "workers": [asdict(row) for row in time_workers(ways)],
        }


def open_ways(folder: Path, num_frames: int, height: int, width: int) -> dict[str, Dataset]:
    """Name -> data set of training samples, all of the same rendered frames; the baseline first."""
    root = folder / "frames"
    write_nyu_v2(root, {"train": num_frames, "test": 1}, height, width, seed=0)
    files = NYUv2(root, "train", TARGETS, CROP_SIZE, "release")
    packed = NYUv2(root, "train", TARGETS, CROP_SIZE, "release", cache=folder / "cache")
    return {BASELINE: Straightforward(files), FILES: files, CACHE: packed}


def keys_of(dataset: Dataset) -> list[Key]:
    """The samples of a few passes."""
    return [(pass_number, index) for pass_number in range(NUM_PASSES) for index in range(len(dataset))]


def refuse_other_samples(ways: Mapping[str, Dataset]) -> None:
    """Raise a RuntimeError if a way gives other samples than the first one, beyond the rounding of images to bytes."""
    baseline, *_ = ways.values()
    for name, dataset in ways.items():
        for key in keys_of(dataset):
            expected, sample = baseline[key], dataset[key]
            for entry in expected.keys() - {"name"}:
                tolerance = 1 if entry == "img" else 0
                difference = np.abs(np.subtract(expected[entry], sample[entry], dtype=np.float64)).max()
                if difference > tolerance:
                    raise RuntimeError(f"{name}: {entry} of sample {key} is another one, by up to {difference}")


def time_samples(ways: Mapping[str, Dataset], rounds: int) -> list[SampleTime]:
    """The time that each way takes for a sample, in this process; the ways take turns."""
    measured = interleave({name: samples_pass(dataset) for name, dataset in ways.items()}, rounds, "loading: samples")
    seconds = {name: [parts["total"] for parts in passes] for name, passes in measured.items()}
    return [SampleTime(name, 1000 * median(own), times_faster(own, seconds[BASELINE])) for name, own in seconds.items()]


def samples_pass(dataset: Dataset) -> Pass:
    """Makes the samples of a few passes; "total" is the time of one sample."""

    def make() -> Parts:
        keys = keys_of(dataset)
        start = time.perf_counter()
        for key in keys:
            dataset[key]
        return {"total": (time.perf_counter() - start) / len(keys)}

    return make


def time_workers(ways: Mapping[str, Dataset]) -> list[Throughput]:
    """How many samples come out of a loader per second, for every way and number of workers."""
    contests = [(name, number) for number in NUM_WORKERS for name in ways]
    return [
        Throughput(name, number, samples_per_second(ways[name], number))
        for name, number in progress_bar(contests, "loading: workers")
    ]


def samples_per_second(dataset: Dataset, num_workers: int) -> float:
    """Of training batches, once the workers are at it."""
    sampler = training_sampler(dataset, BATCH_SIZE, seed=0, split="train")
    batches = iter(build_loader(dataset, sampler, num_workers, pin_memory=False))
    # As many more as lie ready when the clock is started are under way when it is stopped.
    for _ in islice(batches, WARM_UP_BATCHES * max(num_workers, 1)):
        pass
    start = time.perf_counter()
    num_samples = sum(len(batch["name"]) for batch in islice(batches, TIMED_BATCHES))
    return num_samples / (time.perf_counter() - start)


def loading_tables(measured: Mapping[str, list[dict[str, Any]]]) -> str:
    """What `measure_loading` returned, as tables in Markdown."""
    samples = [
        [row["name"], row["milliseconds"], "{median:.1f}x ({low:.1f} to {high:.1f})".format(**row["times_faster"])]
        for row in measured["samples"]
    ]
    rates: dict[str, list[str]] = {}
    for row in measured["workers"]:
        rates.setdefault(row["name"], []).append(cell(row["samples_per_second"]))
    return "\n\n".join(
        [
            markdown_table(["training sample", "ms", "faster (rounds)"], samples),
            markdown_table(
                ["samples per second", *(f"{number} workers" for number in NUM_WORKERS)],
                [[name, *own] for name, own in rates.items()],
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed rounds (default: 5)")
    with exit_on_user_error():
        print(loading_tables(measure_loading(parser.parse_args(arguments).repeats)))


if __name__ == "__main__":
    main()
