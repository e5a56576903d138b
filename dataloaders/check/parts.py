"""What there is to be checked of a data set: parts, whose samples are opened alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataloaders.check.readers import Reader
from dataloaders.check.targets import Target
from dataloaders.splits import Splits

Targets = Mapping[str, Target]
"""Task -> its target."""


@dataclass(frozen=True)
class Part:
    """All frames of a data set, or the samples of one task that has inputs of its own.

    Attributes:
        splits: which samples there are.
        reader: how they are opened.
        targets: what the tasks learn from them.
        identity: member of a split -> text, the same for the same image or text; None where that is not known.
        repeats_are_faults: whether a sample that is listed twice, or on both sides of an experiment, is a fault; of
            texts, which may say the same by chance, it is only told.
        class_names: class -> name, as far as the data tell.
    """

    splits: Splits
    reader: Reader
    targets: Targets
    identity: Callable[[Any], str] | None = None
    repeats_are_faults: bool = True
    class_names: Mapping[int, str] = field(default_factory=dict)


Parts = dict[str, Part]
"""Name of the data set or domain -> its samples."""
