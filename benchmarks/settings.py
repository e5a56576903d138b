"""What the command line decides for all measurements."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Settings:
    """Where and how thoroughly to measure.

    Attributes:
        repeats: timed rounds; each of the contenders has its turn in every round.
        threads: of a CPU.
        batch_size, size: images of a training step, and their height and width in pixels.
        tiny: narrow networks and small images. A trial of the benchmark itself, whose figures mean nothing.
        slow_rates: precisions in which this machine multiplies more slowly than in float32, as CPUs do that emulate
            bfloat16, a hundred times slower: steps in these would take hours, and are left out.
    """

    device: torch.device
    repeats: int
    threads: int
    batch_size: int
    size: int
    tiny: bool = False
    slow_rates: tuple[str, ...] = ()


IMAGES = {"cpu": (2, 224), "cuda": (16, 321)}
"""Type of the device -> images of a training step, and their height and width."""

TINY_NETWORK = ("backbone_width=4", "head_width=8")
TINY_SIZE = 32
