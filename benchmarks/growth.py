"""How costs grow: with tasks, blocks, image size, batch, open blocks, workers and processes.

A new curve is a function that returns a `Curve`, and a line in `CURVES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.baseline import lay_out_by_channel, run_every_block
from benchmarks.measure import Parts, Pass, Stopwatch, interleave
from benchmarks.phases import Bench, Phase
from benchmarks.settings import TINY_NETWORK, TINY_SIZE, Settings
from benchmarks.variants import BASELINE, FP32
from benchmarks.work import HEADLINE, Work, noise_image, policies, seed_weights
from models.resnet import DilatedResNet
from models.shared_paths import HardGates, run_shared_paths
from utils.config import NUM_BLOCKS
from utils.progress import progress_bar

Key = TypeVar("Key")


@dataclass(frozen=True)
class Curve:
    """A cost over what it grows with, mostly seconds of a training step.

    Attributes:
        title, x_label, y_label: for the picture and the table.
        x: where it was measured, ascending.
        series: name -> for each x, the values of the rounds.
    """

    title: str
    x_label: str
    x: list[int]
    series: dict[str, list[list[float]]]
    y_label: str = "seconds"


SIZE, BATCH_SIZE = 96, 2
"""Images of the curves, unless that is what grows: small, so that all curves together take minutes."""

NUM_TASKS = (1, 2, 5, 10, 20)
BACKBONES = ("ResNet18", "ResNet34", "ResNet101")
SIZES = (64, 96, 128, 192)
BATCH_SIZES = (1, 2, 4, 8)

ONE_POLICY, OWN_POLICIES = "one policy for all tasks", "a policy for each task"

ROUNDS_OF_TASKS = {ONE_POLICY: 5, OWN_POLICIES: 1, "baseline": 1}
"""For each round that is asked for: the passes of one policy are short, and a moment's disturbance would be all."""


def over_tasks(settings: Settings) -> Curve:
    """Forward and backward pass of a ResNet34 without heads, for 1 to 20 tasks on the same image."""
    width, size = (4, TINY_SIZE) if settings.tiny else (64, SIZE)
    image = noise_image(BATCH_SIZE, size, size, torch.Generator().manual_seed(0)).to(settings.device)
    ours = DilatedResNet("ResNet34", width).to(memory_format=torch.channels_last)
    plain = lay_out_by_channel(DilatedResNet("ResNet34", width))
    for backbone in (ours, plain):
        seed_weights(backbone).to(settings.device)

    def shared(gates: HardGates) -> list[Tensor]:
        stem = ours.stem(image)
        return list(run_shared_paths(ours.blocks, dict.fromkeys(gates, stem), gates).values())

    def task_by_task(gates: HardGates) -> list[Tensor]:
        return [run_every_block(plain, image, path) for path in gates.values()]

    FP32.switch()
    passes: dict[str, dict[int, Pass]] = {name: {} for name in ROUNDS_OF_TASKS}
    for number in NUM_TASKS:
        own = gates_of_tasks(policies(7, number, len(ours.blocks)))
        common = gates_of_tasks(policies(7, 1, len(ours.blocks)) * number)
        passes[ONE_POLICY][number] = backbone_pass(ours, partial(shared, common), settings.device)
        passes[OWN_POLICIES][number] = backbone_pass(ours, partial(shared, own), settings.device)
        passes["baseline"][number] = backbone_pass(plain, partial(task_by_task, own), settings.device)
    # Way by way, so that the points of a curve, which are compared with one another, are close in time.
    series = {
        name: list(seconds_of_rounds(of_numbers, ROUNDS_OF_TASKS[name] * settings.repeats, f"growth: {name}").values())
        for name, of_numbers in passes.items()
    }
    return Curve("backbone: tasks on one image", "tasks", list(NUM_TASKS), series)


def gates_of_tasks(paths: Sequence[list[int]]) -> HardGates:
    """The gates of tasks that are called by their numbers."""
    return {f"task{number}": path for number, path in enumerate(paths)}


def backbone_pass(backbone: nn.Module, run: Callable[[], list[Tensor]], device: torch.device) -> Pass:
    """Run all paths through a backbone, and propagate a gradient back from the features of each."""

    def one_pass() -> Parts:
        watch = Stopwatch(device)
        sum(features.mean() for features in run()).backward()
        parts = watch.parts()
        backbone.zero_grad()
        return parts

    return one_pass


def over_blocks(settings: Settings) -> Curve:
    """A retraining step with backbones of 8 to 33 blocks."""
    works = {NUM_BLOCKS[backbone]: small_work(settings, f"backbone={backbone}") for backbone in BACKBONES}
    return retraining_curve("retraining step: blocks", "blocks", works, settings)


def over_sizes(settings: Settings) -> Curve:
    """A retraining step with larger and larger images."""
    sizes = (32, 48) if settings.tiny else SIZES
    works = {size: small_work(settings, f"dataload.crop_h={size}", f"dataload.crop_w={size}") for size in sizes}
    return retraining_curve("retraining step: image size", "height and width in pixels", works, settings)


def over_batches(settings: Settings) -> Curve:
    """A retraining step with more and more images."""
    works = {number: small_work(settings, f"train.batch_size={number}") for number in BATCH_SIZES}
    return retraining_curve("retraining step: batch", "images", works, settings)


def over_open_blocks(settings: Settings, phase: str) -> Curve:
    """A weight step or a policy step with more and more blocks that follow the policy."""
    work = small_work(settings)
    benches = small_benches(work, settings)
    numbers = list(range(1, work.num_blocks + 1))
    series: dict[str, list[list[float]]] = {name: [] for name in benches}
    for number in progress_bar(numbers, f"growth: open blocks, {phase}"):
        for name, seconds in seconds_of_phase(Phase(phase, number), benches, settings.repeats).items():
            series[name].append(seconds)
    return Curve(f"policy learning, {phase}: open blocks", "blocks that follow the policy", numbers, series)


def over_processes(batches: Sequence[Mapping[str, Any]]) -> Curve:
    """Weight steps in one and two processes, from the rows "batches" of `benchmarks.processes`."""
    series = {
        f"batch of {batch['images']}": [
            [batch["images"] / seconds for seconds in batch["seconds"][crew]] for crew in ("one", "two")
        ]
        for batch in batches
    }
    return Curve(
        "weight step under fixed gates: processes of one thread", "processes", [1, 2], series, "images per second"
    )


def over_workers(throughputs: Sequence[Mapping[str, Any]]) -> Curve:
    """Loading with more and more workers, from the rows "workers" of `benchmarks.loading`."""
    series: dict[str, list[list[float]]] = {}
    for row in throughputs:
        series.setdefault(row["name"], []).append(row["rounds"])
    numbers = sorted({row["num_workers"] for row in throughputs})
    return Curve("loading: workers", "workers", numbers, series, "samples per second")


CURVES: dict[str, Callable[[Settings], Curve]] = {
    "tasks": over_tasks,
    "blocks": over_blocks,
    "sizes": over_sizes,
    "batches": over_batches,
    "weights": partial(over_open_blocks, phase="weights"),
    "policy": partial(over_open_blocks, phase="policy"),
}


def small_work(settings: Settings, *values: str) -> Work:
    """The headline configuration on the small images of the curves, under some other values."""
    size = TINY_SIZE if settings.tiny else SIZE
    small = (f"train.batch_size={BATCH_SIZE}", f"dataload.crop_h={size}", f"dataload.crop_w={size}")
    narrow = TINY_NETWORK if settings.tiny else ()
    return Work(HEADLINE, (*small, *narrow, *values), test_size=(size, size))


def small_benches(work: Work, settings: Settings) -> dict[str, Bench]:
    """The baseline and ours."""
    return {way.name: Bench(work, way, settings.device) for way in (BASELINE, FP32)}


def retraining_curve(title: str, x_label: str, works: Mapping[int, Work], settings: Settings) -> Curve:
    """Retraining steps of the baseline and of ours, by what is different between the works."""
    series: dict[str, list[list[float]]] = {}
    for work in progress_bar(works.values(), f"growth: {x_label}"):
        benches = small_benches(work, settings)
        for name, seconds in seconds_of_phase(Phase("retraining"), benches, settings.repeats).items():
            series.setdefault(name, []).append(seconds)
    return Curve(title, x_label, list(works), series)


def seconds_of_phase(phase: Phase, benches: Mapping[str, Bench], rounds: int) -> dict[str, list[float]]:
    """Seconds of one phase, by round."""
    return seconds_of_rounds({name: bench.prepare(phase) for name, bench in benches.items()}, rounds, phase.title)


def seconds_of_rounds(passes: Mapping[Key, Pass], rounds: int, title: str) -> dict[Key, list[float]]:
    """Seconds of passes that take turns, by round, after one round that is not timed."""
    interleave(passes, 1, title)
    measured = interleave(passes, rounds, title)
    return {key: [parts["total"] for parts in of_key] for key, of_key in measured.items()}
