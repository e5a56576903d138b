"""What all metrics have in common: sums over batches, and the two ways to resize a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from envs.losses import Batch
from utils.collectives import sums_by_name
from utils.errors import UserError

Sums = dict[str, Tensor]
Values = dict[str, float | None]
Resize = Callable[[Tensor, Tensor], Tensor]


class Metric(ABC):
    """The values of one task under one protocol, over all batches that this and other processes have seen so far.

    Sums are kept in float64 on the device of the predictions, and read once, by `compute()`.
    """

    names: ClassVar[tuple[str, ...]]
    """The values that `compute()` returns, in the order of the tables."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    @abstractmethod
    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Take one batch into account.

        Args:
            prediction: the task's output [N, C, h, w], or [N, C] where an image has one class.
            batch: ground truth of N images, as `envs.losses.Batch` describes it.
        """

    @abstractmethod
    def _summarise(self, sums: Sums) -> Mapping[str, Tensor | float | None]:
        """The values, from the sums over all batches (float64, on the CPU); at least one batch counted."""

    def add(self, **terms: Tensor | float) -> None:
        """Add each term to the sum of its name."""
        for name, term in terms.items():
            term = torch.as_tensor(term).detach().double()
            self._sums[name] = self._sums[name] + term if name in self._sums else term

    def compute(self) -> Values:
        """The values over all batches so far, finite; all None if no batch had a valid pixel.

        Processes that evaluate together call it together, and get the same.

        Raises:
            UserError: a prediction that counts was NaN or infinite.
        """
        sums = sums_by_name({name: value.cpu() for name, value in self._sums.items()})
        if not sums:
            return dict.fromkeys(self.names)
        if not all(value.isfinite().all() for value in sums.values()):
            raise UserError(
                f"The predictions behind {self.names[0]} hold NaN or infinite values, so there is nothing to "
                "measure: lower the learning rates or use an earlier checkpoint; if train.precision is fp16, try fp32."
            )
        values = self._summarise(sums)
        return {name: None if values[name] is None else float(values[name]) for name in self.names}


def nearest(prediction: Tensor, target: Tensor) -> Tensor:
    """Resize [N, C, h, w] to the target's [H, W] as the release does: nearest neighbour."""
    return F.interpolate(prediction.float(), size=target.shape[-2:], mode="nearest")


def bilinear(prediction: Tensor, target: Tensor) -> Tensor:
    """Resize [N, C, h, w] to the target's [H, W] as the standard protocol does: bilinear."""
    return F.interpolate(prediction.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
