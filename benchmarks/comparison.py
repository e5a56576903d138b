"""Implementations side by side on one work: do they agree, how long does each phase take, what is executed in it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from benchmarks.agreement import agreements
from benchmarks.implementation import Implementation
from benchmarks.measure import Parts, count_flops, interleave, times_faster
from benchmarks.phases import Bench, Phase
from benchmarks.work import Work

Contest = tuple[Phase, Sequence[Implementation]]
"""A phase and who is compared in it, the baseline first."""

Record = dict[str, Any]


def compare(work: Work, contests: Sequence[Contest], device: torch.device, rounds: int, title: str) -> Record:
    """Measure phases of a work.

    Returns:
        "work": what it is; "agreement": as `agreements` returns; "steps": one record for each phase and implementation,
        as `step_record` returns.
    """
    ways = dict.fromkeys(way for _, ways in contests for way in ways)
    benches = {way.name: Bench(work, way, device) for way in ways}
    baseline, *others = benches
    agreeing = agreements(benches[baseline], {name: benches[name] for name in others})
    steps = []
    for phase, contenders in contests:
        chosen = {way.name: benches[way.name] for way in contenders}
        steps += compare_phase(phase, chosen, rounds, f"{title}: {phase.title}")
    return {"work": describe_work(work), "agreement": agreeing, "steps": steps}


def compare_phase(phase: Phase, benches: Mapping[str, Bench], rounds: int, title: str) -> list[Record]:
    """Measure one phase, with one implementation after the other in every round."""
    passes = {name: bench.prepare(phase) for name, bench in benches.items()}
    # The first pass, in which memory is found and kernels are chosen, is counted but not timed.
    flops = {name: count_flops(one_pass) for name, one_pass in passes.items()}
    for name, bench in benches.items():
        for _ in range(bench.way.compiling_passes):
            passes[name]()
    measured = interleave(passes, rounds, title)
    reference = [parts["total"] for parts in next(iter(measured.values()))]
    return [step_record(phase, bench, measured[name], flops[name], reference) for name, bench in benches.items()]


def step_record(phase: Phase, bench: Bench, passes: Sequence[Parts], flops: int, reference: Sequence[float]) -> Record:
    """What is known of one phase of one implementation.

    Args:
        flops: operations of one pass.
        reference: seconds of the baseline's passes in the same rounds.
    """
    seconds = [parts["total"] for parts in passes]
    return {
        **describe_phase(phase),
        "implementation": bench.way.name,
        "rate": bench.way.rate,
        "rounds": seconds,
        "median": median(seconds),
        "least": min(seconds),
        "parts": {part: median(parts[part] for parts in passes) for part in passes[0] if part != "total"},
        "images_per_second": (1 if phase.name == "test" else len(bench.batch["img"])) / median(seconds),
        "flops": flops,
        "flops_per_second": flops / median(seconds),
        "times_faster": asdict(times_faster(seconds, reference)),
    }


def describe_phase(phase: Phase) -> Record:
    """Which phase a record is of."""
    return {"phase": phase.name, "num_open": phase.num_open, "title": phase.title}


def describe_work(work: Work) -> Record:
    """What there was to do."""
    config = work.config
    return {
        "configuration": work.configuration,
        "backbone": config.backbone,
        "tasks": dict(zip(config.tasks, config.tasks_num_class, strict=True)),
        "batch_size": config.train.batch_size,
        "size": [config.dataload.crop_h, config.dataload.crop_w],
        "test_size": list(work.test_size),
        "gates": work.gates(),
    }
