"""How fast training samples come from files and from a cache, beside the straightforward way.

`python -m benchmarks.loading` renders frames of NYU v2's size into a temporary folder, measures, and prints two tables:
the time that one worker takes for a sample, and what several hand over. The files are in the system's memory by then;
a slow disk adds its own time to each way.

How long a picture takes to be decoded depends on what it shows and how it was written, so the same rooms are measured
in two forms: with the noise of a camera and written as the released files were, and as this project renders them.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.comparison import Record
from benchmarks.measure import Parts, Pass, Ratio, interleave, times_faster
from benchmarks.settings import Settings
from benchmarks.tables import cell, markdown_table
from dataloaders.caching import Cache
from dataloaders.frames import Frame
from dataloaders.keys import Dataset, Key, keyed_generator
from dataloaders.loading import build_loader, training_sampler
from dataloaders.nyu_v2 import NYUv2
from dataloaders.rendered import write_nyu_v2
from dataloaders.transforms import IMAGE_MEAN_BGR, Sample
from utils.command_line import positive
from utils.errors import exit_on_user_error
from utils.memory import return_freed_memory

TARGETS = ("seg", "normal", "depth")
WARM_UP_BATCHES, TIMED_BATCHES = 2, 6

LEAST_ROUNDS = 9
"""Of making samples, which takes seconds: a short disturbance must not decide how fast a way is."""

BASELINE, FILES, CACHE = "straightforward", "files", "packed cache"
AS_RELEASED, AS_RENDERED = "as released", "as rendered"


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        num_frames: that are rendered, of (height, width) `frame_size`.
        crop_size: (height, width) of a training sample.
        num_passes: over the frames, in every round.
        batch_size: samples of a batch.
        num_workers: numbers of workers that hand over batches; 0 loads in the process that asks.
    """

    num_frames: int
    frame_size: tuple[int, int]
    crop_size: tuple[int, int]
    num_passes: int
    batch_size: int
    num_workers: tuple[int, ...]


PAPER = Extent(16, frame_size=(480, 640), crop_size=(321, 321), num_passes=2, batch_size=16, num_workers=(0, 1, 2))
"""The sizes of NYU v2 and of its training."""

TINY = Extent(2, frame_size=(48, 64), crop_size=(33, 33), num_passes=1, batch_size=2, num_workers=(0, 1))
"""For a trial of the benchmark itself, whose figures mean nothing."""


# The straightforward way


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
        sample = augment(read(frame), self.frames.augment.crop_size, generator)
        return {"name": frame["img"].stem, **encode(sample)}


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


# The ways that are compared


def open_ways(folder: Path, extent: Extent, rewrite: Callable[[Path], None] | None = None) -> dict[str, Dataset]:
    """Name -> data set of training samples, all of the same rendered frames; the baseline first.

    Args:
        rewrite: called with each picture's file; None leaves them as they are written.
    """
    root = folder / "frames"
    write_nyu_v2(root, {"train": extent.num_frames, "test": 1}, *extent.frame_size, seed=0)
    if rewrite:
        for path in sorted(root.glob("*/*.png")):
            rewrite(path)
    files = NYUv2(root, "train", TARGETS, extent.crop_size, "release")
    packed = NYUv2(root, "train", TARGETS, extent.crop_size, "release", cache=Cache(folder / "cache")).decoded()
    return {BASELINE: Straightforward(files), FILES: files, CACHE: packed}


def rewrite_as_released(path: Path) -> None:
    """Write a picture as the released ones are: colours with noise, the filters chosen row by row, zlib's level 6.

    With one grey level of noise the files are as large as the released ones, and take as long to be decoded.
    """
    picture = np.asarray(Image.open(path))
    if picture.ndim == 3:
        noise = np.random.default_rng(0).standard_normal(picture.shape)
        picture = np.where(picture == 255, 255, (picture + noise).round().clip(0, 254)).astype(np.uint8)
    Image.fromarray(picture).save(path)  # With Pillow's defaults, which are just that.


PICTURES: dict[str, Callable[[Path], None] | None] = {AS_RELEASED: rewrite_as_released, AS_RENDERED: None}
"""How the pictures are written."""


def keys_of(dataset: Dataset, num_passes: int) -> list[Key]:
    """The samples of a few passes."""
    return [(pass_number, index) for pass_number in range(num_passes) for index in range(len(dataset))]


def refuse_other_samples(ways: Mapping[str, Dataset], num_passes: int) -> None:
    """Raise a RuntimeError if a way gives other samples than the first one, beyond the rounding of images to bytes."""
    baseline, *_ = ways.values()
    for name, dataset in ways.items():
        for key in keys_of(dataset, num_passes):
            expected, sample = baseline[key], dataset[key]
            for entry in expected.keys() - {"name"}:
                tolerance = 1 if entry == "img" else 0
                difference = np.abs(np.subtract(expected[entry], sample[entry], dtype=np.float64)).max()
                if difference > tolerance:
                    raise RuntimeError(f"{name}: {entry} of sample {key} is another one, by up to {difference}")


# What is measured


@dataclass(frozen=True)
class SampleTime:
    """What one worker takes for a sample of a way.

    Attributes:
        pictures: how they are written, of `PICTURES`.
        milliseconds: the median of the rounds.
        times_faster: than the straightforward way.
    """

    pictures: str
    name: str
    milliseconds: float
    times_faster: Ratio


@dataclass(frozen=True)
class Throughput:
    """Samples per second that so many workers hand over, collated to batches: the median, and that of each round."""

    pictures: str
    name: str
    num_workers: int
    samples_per_second: float
    rounds: list[float]


def measure_loading(settings: Settings) -> Record:
    """Both measurements, on frames that are rendered for them.

    Returns:
        "samples": every `SampleTime`; "workers": every `Throughput`, of pictures as released; as plain values.

    Raises: RuntimeError if the ways do not give the same samples.
    """
    return measure(TINY if settings.tiny else PAPER, settings.repeats)


def measure(extent: Extent, rounds: int) -> Record:
    """`measure_loading` to some extent."""
    samples: list[SampleTime] = []
    workers: list[Throughput] = []
    for pictures, rewrite in PICTURES.items():
        with TemporaryDirectory() as folder:
            ways = open_ways(Path(folder), extent, rewrite)
            refuse_other_samples(ways, extent.num_passes)
            # Both as in a worker.
            cv2.setNumThreads(0)
            return_freed_memory(at_once=False)
            samples += time_samples(pictures, ways, extent.num_passes, max(rounds, LEAST_ROUNDS))
            if pictures == AS_RELEASED:
                workers += time_workers(pictures, ways, extent, rounds)
    return {"samples": list(map(asdict, samples)), "workers": list(map(asdict, workers))}


def time_samples(pictures: str, ways: Mapping[str, Dataset], num_passes: int, rounds: int) -> list[SampleTime]:
    """The time that each way takes for a sample, in this process; the ways take turns."""
    passes = {name: samples_pass(dataset, num_passes) for name, dataset in ways.items()}
    measured = interleave(passes, rounds, f"loading: samples {pictures}")
    seconds = {name: [parts["total"] for parts in of_way] for name, of_way in measured.items()}
    return [
        SampleTime(pictures, name, 1000 * median(own), times_faster(own, seconds[BASELINE]))
        for name, own in seconds.items()
    ]


def samples_pass(dataset: Dataset, num_passes: int) -> Pass:
    """Makes the samples of a few passes; "total" is the time of one sample."""

    def make() -> Parts:
        keys = keys_of(dataset, num_passes)
        start = time.perf_counter()
        for key in keys:
            dataset[key]
        return {"total": (time.perf_counter() - start) / len(keys)}

    return make


def time_workers(pictures: str, ways: Mapping[str, Dataset], extent: Extent, rounds: int) -> list[Throughput]:
    """How many samples come out of a loader per second, for every way and number of workers; all take turns."""
    passes = {
        (name, number): batches_pass(dataset, number, extent.batch_size)
        for number in extent.num_workers
        for name, dataset in ways.items()
    }
    measured = interleave(passes, rounds, "loading: workers")
    rates = {contender: [1 / parts["total"] for parts in of_way] for contender, of_way in measured.items()}
    return [Throughput(pictures, name, number, median(own), own) for (name, number), own in rates.items()]


def batches_pass(dataset: Dataset, num_workers: int, batch_size: int) -> Pass:
    """Takes training batches from a loader once its workers are at it; "total" is the time of one sample."""

    def take() -> Parts:
        sampler = training_sampler(dataset, batch_size, seed=0, split="train")
        batches = iter(build_loader(dataset, sampler, num_workers, pin_memory=False))
        # As many more as lie ready when the clock is started are under way when it is stopped.
        for _ in islice(batches, WARM_UP_BATCHES * max(num_workers, 1)):
            pass
        start = time.perf_counter()
        num_samples = sum(len(batch["name"]) for batch in islice(batches, TIMED_BATCHES))
        return {"total": (time.perf_counter() - start) / num_samples}

    return take


def loading_tables(measured: Mapping[str, list[dict[str, Any]]]) -> str:
    """What `measure_loading` returned, as tables in Markdown."""
    samples = [
        [
            row["pictures"],
            row["name"],
            row["milliseconds"],
            "{median:.1f}x ({low:.1f} to {high:.1f})".format(**row["times_faster"]),
        ]
        for row in measured["samples"]
    ]
    numbers = sorted({row["num_workers"] for row in measured["workers"]})
    rates: dict[tuple[str, str], list[str]] = {}
    for row in sorted(measured["workers"], key=lambda row: row["num_workers"]):
        rates.setdefault((row["pictures"], row["name"]), []).append(cell(row["samples_per_second"]))
    return "\n\n".join(
        [
            markdown_table(["pictures", "training sample", "ms", "faster (rounds)"], samples),
            markdown_table(
                ["pictures", "samples per second", *(f"{number} workers" for number in numbers)],
                [[*way, *own] for way, own in rates.items()],
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="timed rounds (default: 5)")
    with exit_on_user_error():
        print(loading_tables(measure(PAPER, parser.parse_args(arguments).repeats)))


if __name__ == "__main__":
    main()
