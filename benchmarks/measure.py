"""Measuring on a noisy machine: contenders take turns, and ratios are of what was measured in the same minutes."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, TypeVar

import torch

from envs.updates import NotFinite
from utils.cost import count_operations
from utils.progress import progress_bar

Key = TypeVar("Key")
Outcome = TypeVar("Outcome")

Parts = dict[str, float]
"""Part of a pass -> seconds; "total" is the whole."""

Pass = Callable[[], Parts]
"""Does the work once, and says how long its parts took."""

MOST_ATTEMPTS = 30


class Stopwatch:
    """The seconds of the parts of a pass that begins now, on a device that may lag behind the program."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._wait()
        self.moments = [("start", self._now())]

    def mark(self, part: str) -> None:
        """End a part, or another piece of one."""
        self.moments.append((part, self._now()))

    def parts(self) -> Parts:
        """End the pass."""
        end = self._now()
        self._wait()
        (_, start), *_ = self.moments
        seconds: dict[str, float] = {}
        for (_, before), (part, after) in pairwise(self.moments):
            seconds[part] = seconds.get(part, 0.0) + self._seconds(before, after)
        return {**seconds, "total": self._seconds(start, end)}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000 if self.device.type == "cuda" else after - before


def interleave(passes: Mapping[Key, Pass], rounds: int, title: str) -> dict[Key, list[Parts]]:
    """Let every contender do one pass per round: A B C A B C; returns the passes of each.

    What else the machine does meanwhile then falls on all of them.
    """
    measured: dict[Key, list[Parts]] = {contender: [] for contender in passes}
    for contender in progress_bar(list(passes) * rounds, title):
        measured[contender].append(passes[contender]())
    return measured


def settle(attempt: Callable[[], Outcome]) -> Outcome:
    """The outcome of the first attempt whose step is taken.

    In float16 the first steps are left out, until the loss is scaled so little that no gradient overflows.

    Raises: `NotFinite` of the last attempt, where none is taken.
    """
    for _ in range(MOST_ATTEMPTS - 1):
        with suppress(NotFinite):
            return attempt()
    return attempt()


def count_flops(one_pass: Pass) -> int:
    """Operations of matrix products and convolutions that a pass really executes; a product and a sum are two."""
    return settle(lambda: count_operations(one_pass))


@dataclass(frozen=True)
class Ratio:
    """How many times one contender is faster than another.

    Attributes:
        median: of the medians.
        low, high: the least and the greatest ratio of two passes of the same round.
    """

    median: float
    low: float
    high: float


def times_faster(seconds: Sequence[float], than: Sequence[float]) -> Ratio:
    """The ratio of two contenders' seconds, round by round."""
    ratios = [theirs / own for theirs, own in zip(than, seconds, strict=True)]
    return Ratio(median(than) / median(seconds), min(ratios), max(ratios))
