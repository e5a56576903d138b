"""The parts of the benchmark: which phases of which work are measured, and whose."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.comparison import Contest, Record, compare
from benchmarks.curriculum import curriculum_averages, turning_points
from benchmarks.growth import CURVES
from benchmarks.implementation import Implementation
from benchmarks.loading import measure_loading
from benchmarks.memory import compare_memory
from benchmarks.metrics import compare_metrics
from benchmarks.phases import Phase
from benchmarks.processes import compare_processes
from benchmarks.settings import IMAGES, Settings
from benchmarks.variants import BASELINE, FP32, baselines, measured_variants
from benchmarks.work import HEADLINE, OTHERS, paper_work

NUM_NETWORKS = 4
"""On which precisions are compared."""

IMAGES_OF_EACH_PROCESS = (1, 2, 4)
"""Of the steps that two processes take together."""


def headline(settings: Settings) -> Record:
    """Every phase of the headline's work; policy learning at the turning points of the curriculum."""
    work = paper_work(HEADLINE, settings)
    contests = [
        (Phase("test"), testers(settings)),
        (Phase("retraining"), [*baselines(settings.device), *measured_variants(settings)]),
        (Phase("heads"), testers(settings)),
        (Phase("warm-up"), learners(settings)),
        *openings(turning_points(work), settings),
    ]
    compared = compare(work, contests, settings.device, settings.repeats, "headline")
    return {**compared, "averages": curriculum_averages(compared["steps"])}


def whole_curriculum(settings: Settings) -> Record:
    """Weight and policy steps of the headline's work, for every number of open blocks."""
    work = paper_work(HEADLINE, settings)
    contests = openings(range(1, work.num_blocks + 1), settings)
    compared = compare(work, contests, settings.device, settings.repeats, "curriculum")
    return {**compared, "averages": curriculum_averages(compared["steps"])}


def openings(numbers: Sequence[int], settings: Settings) -> list[Contest]:
    """Weight and policy steps for some numbers of open blocks."""
    return [(Phase(name, number), learners(settings)) for name in ("weights", "policy") for number in numbers]


def learners(settings: Settings) -> list[Implementation]:
    """Who is compared where there is much to measure: on a CPU, which takes seconds for a step, float32 alone."""
    if settings.device.type == "cpu":
        return [BASELINE, FP32]
    return testers(settings)


def testers(settings: Settings) -> list[Implementation]:
    """Who is compared where no memory is kept for a backward pass, or where that is of no interest."""
    variants = [variant for variant in measured_variants(settings) if variant.tests]
    return [*baselines(settings.device), *variants]


def memory(settings: Settings) -> Record:
    """Peak memory of the headline's work: of retraining for all variants, of the other phases for ours in float32.

    Of retraining also with twice as many images, for what does not grow with them stands in the way of savings.
    """
    work = paper_work(HEADLINE, settings)
    twice = work.with_values(f"train.batch_size={2 * settings.batch_size}")
    retraining = (Phase("retraining"), [*baselines(settings.device), *measured_variants(settings)])
    others = [Phase("warm-up"), Phase("weights", work.num_blocks), Phase("policy", work.num_blocks), Phase("test")]
    contests = [retraining, *((phase, [BASELINE, FP32]) for phase in others)]
    measured = compare_memory(work, contests, settings.device, settings.threads)
    of_twice = compare_memory(twice, [retraining], settings.device, settings.threads)
    return {**measured, "peaks": [*measured["peaks"], *of_twice["peaks"]]}


def configurations(settings: Settings) -> Record:
    """The phases of the paper's other configurations, policy learning with half of the blocks open."""
    return {name: configuration(name, settings) for name in OTHERS}


def configuration(name: str, settings: Settings) -> Record:
    """The phases of one configuration."""
    work = paper_work(name, settings)
    ways = testers(settings)
    half = work.num_blocks // 2
    phases = [Phase("warm-up"), Phase("weights", half), Phase("policy", half), Phase("retraining"), Phase("test")]
    return compare(work, [(phase, ways) for phase in phases], settings.device, settings.repeats, name)


def loading(settings: Settings) -> Record:
    """Training samples from files and from the cache; on the CPU, whatever the device."""
    return measure_loading(settings)


def growth(settings: Settings) -> Record:
    """All curves."""
    return {name: asdict(measure(settings)) for name, measure in CURVES.items()}


def metrics(settings: Settings) -> Record:
    """Metrics in lower precisions, of small networks on rendered rooms."""
    return compare_metrics(range(1 if settings.tiny else NUM_NETWORKS), settings)


def processes(settings: Settings) -> Record:
    """Retraining in two processes of one thread; on the CPU, whatever the device."""
    batch_size, size = IMAGES["cpu"]
    if settings.device.type == "cuda":
        settings = replace(settings, device=torch.device("cpu"), batch_size=batch_size, size=size)
    work = paper_work(HEADLINE, settings)
    return compare_processes(work, IMAGES_OF_EACH_PROCESS, settings)


SUITES: dict[str, Callable[[Settings], Any]] = {
    "headline": headline,
    "memory": memory,
    "loading": loading,
    "growth": growth,
    "configurations": configurations,
    "metrics": metrics,
    "processes": processes,
    "curriculum": whole_curriculum,
}
"""Name for `--only` -> what measures it and returns plain values."""
