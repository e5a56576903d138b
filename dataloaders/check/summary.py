"""What many samples are like, added up: ranges, counts and sizes, no arrays, so that a million files fit."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass
class Values:
    """What a target holds, over some samples.

    Attributes:
        num_samples: that have it.
        num_values: pixels of maps, or samples.
        num_valid: of them, those with a class or a valid value.
        lowest, highest: of the valid continuous values; inf and -inf without one.
        counts: int64 [C], how often each class occurs; None of continuous values.
        per_pixel: whether it is a map.
    """

    num_samples: int = 0
    num_values: int = 0
    num_valid: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    counts: np.ndarray | None = None
    per_pixel: bool = False

    def add(self, other: "Values") -> None:
        """Count other samples in."""
        self.num_samples += other.num_samples
        self.num_values += other.num_values
        self.num_valid += other.num_valid
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        self.per_pixel |= other.per_pixel
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts


@dataclass
class Summary:
    """What some samples of a part are like.

    Attributes:
        num_samples: opened, those with faults included.
        sizes: of images as in their files -> how many.
        input_sizes: of images as the network gets them in evaluation -> name of the first.
        lengths: number of words of a text -> how many.
        num_unknown: words that the vocabulary lacks.
        values: task -> what its target holds.
        remarks: sentence -> (how many samples it holds of, name of the first).
    """

    num_samples: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    input_sizes: dict[Size, str] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)
    num_unknown: int = 0
    values: dict[str, Values] = field(default_factory=dict)
    remarks: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def num_words(self) -> int:
        """Of all texts together."""
        return sum(length * count for length, count in self.lengths.items())

    def add(self, other: "Summary") -> None:
        """Count other samples in."""
        self.num_samples += other.num_samples
        self.sizes.update(other.sizes)
        self.input_sizes = other.input_sizes | self.input_sizes
        self.lengths.update(other.lengths)
        self.num_unknown += other.num_unknown
        for task, values in other.values.items():
            self.values.setdefault(task, Values()).add(values)
        for remark, (count, first) in other.remarks.items():
            known, name = self.remarks.get(remark, (0, first))
            self.remarks[remark] = (known + count, name)
