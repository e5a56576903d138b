"""Peak memory of training steps and tests, each in a new process.

A process keeps what memory it once had, so that in a common one the first contender would pay for all.

What is compared is the memory that a process does not share: without the pages of library files, which lie in the
system's cache, once for all processes, and are given up when memory is short. How many of them count as the process's
own depends on how the files came into the cache: it has been 0.3 and 0.5 GB for the same packages on one machine.
"""

import gc
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.comparison import Contest, Record, describe_phase, describe_work
from benchmarks.measure import settle
from benchmarks.phases import Bench, Phase
from benchmarks.settings import TINY_NETWORK, TINY_SIZE
from benchmarks.variants import IMPLEMENTATIONS
from benchmarks.work import Work
from utils.errors import UserError
from utils.memory import leave_out_triton
from utils.progress import progress_bar

STATUS = Path("/proc/self/status")

MEASURES = ("peak", "own", "growth")
"""Of a process's memory, from the whole to what the work adds."""


def compare_memory(work: Work, contests: Sequence[Contest], device: torch.device, threads: int) -> Record:
    """Measure the peak memory of phases of a work.

    Returns:
        "work"; "peaks": one record for each phase and implementation, as `peak_memory` returns, with "of_baseline",
        the shares of the baseline's "peak", "own" and "growth".
    """
    release_gpu_memory()
    peaks = []
    for phase, ways in contests:
        bar = progress_bar(ways, f"memory: {phase.title}")
        of_phase = [peak_memory(work, way.name, phase, device, threads) for way in bar]
        for record in of_phase:
            shares = {key: record[key] / of_phase[0][key] for key in MEASURES}
            peaks.append({**record, "of_baseline": shares})
    return {"work": describe_work(work), "peaks": peaks}


def release_gpu_memory() -> None:
    """Give back what this process holds of a GPU and does not use, for others that are measured there."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_memory(work: Work, name: str, phase: Phase, device: torch.device, threads: int) -> Record:
    """The most memory that a phase takes, in bytes.

    Args:
        name: of the implementation.

    Returns:
        "phase", "num_open", "title", "implementation"; "images" of a step; "peak", of the whole process; "own", without
        the pages of files; "growth", without what it had after the same work on a tiny network: the libraries, and what
        they load when they are first used. On a GPU all are what was allocated for tensors.

    Raises:
        UserError: the process was ended, or the system does not tell.
    """
    # Ctrl+C ends the process without a word; whoever waits for it has one.
    quietly = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), **quietly) as processes:
        try:
            measured = processes.submit(take_two_passes, work, name, phase, device, threads).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"memory: the process that measured {name} was ended, most likely for lack of memory; choose a smaller "
                "--batch or --size."
            ) from error
    images = 1 if phase.name == "test" else work.config.train.batch_size
    return {**describe_phase(phase), "implementation": name, "images": images, **measured}


def take_two_passes(work: Work, name: str, phase: Phase, device: torch.device, threads: int) -> dict[str, int]:
    """In a new process: build, pass twice (the optimiser has its state then); returns `MEASURES`."""
    torch.set_num_threads(threads)
    way = IMPLEMENTATIONS[name]
    if way.returns_memory and device.type == "cpu":
        leave_out_triton()
    small = (f"dataload.crop_h={TINY_SIZE}", f"dataload.crop_w={TINY_SIZE}")
    pass_twice(Bench(work.with_values(*TINY_NETWORK, *small), way, device), phase)
    before = 0 if device.type == "cuda" else process_memory("VmRSS")
    pass_twice(Bench(work, way, device), phase)
    if device.type == "cuda":
        return dict.fromkeys(MEASURES, torch.cuda.max_memory_allocated(device))
    peak = process_memory("VmHWM")
    return {"peak": peak, "own": peak - process_memory("RssFile"), "growth": peak - before}


def pass_twice(bench: Bench, phase: Phase) -> None:
    """Take two passes of a phase."""
    one_pass = bench.prepare(phase)
    for _ in range(2):
        settle(one_pass)


def process_memory(key: str) -> int:
    """Bytes of this process in memory: "VmRSS" now, "RssFile" those of files; "VmHWM" at most since it began.

    Raises:
        UserError: there is no /proc, as outside of Linux.
    """
    if not STATUS.exists():
        raise UserError("memory: measured on Linux alone, where /proc tells it; choose other parts with --only.")
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(value) * 1024
