"""The losses of training steps, raw and weighted, as they go to the log."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from utils.devices import to_device
from utils.logger import RunLogger, RunningMeans


class StepReports:
    """Logs the mean losses of one kind of step, every `every` steps and when asked to.

    Args:
        kind: "weights" or "policy", as the lines of the log are marked.
        loss_weights: loss -> weight in the total.
    """

    def __init__(self, logger: RunLogger, kind: str, every: int, loss_weights: Mapping[str, float]) -> None:
        self._logger = logger
        self._kind = kind
        self._every = every
        self._loss_weights = loss_weights
        self._means = RunningMeans()
        self._last_state: dict[str, float] = {}

    def add(self, iteration: int, losses: Mapping[str, Tensor], state: Mapping[str, float]) -> None:
        """Take in one step, and report where one is due.

        Args:
            losses: raw losses by name, and their weighted sum as "total"; finite scalars on their device.
            state: temperature, open blocks, learning rates and the like of this step, logged as they are.
        """
        self._means.update(losses)
        self._last_state = dict(state)
        if self._means.count >= self._every:
            self.report(iteration)

    def report(self, iteration: int) -> None:
        """Log the means of the steps since the last report, if there were any."""
        means = self._means.pop()
        if not means:
            return
        weighted = {f"weighted/{name}": self._loss_weights[name] * means[name] for name in means if name != "total"}
        raw = {f"loss/{name}": mean for name, mean in means.items()}
        self._logger.scalars(self._kind, iteration, {**raw, **weighted, **self._last_state})
        self._logger.show(iteration, means)

    def unreported(self) -> dict[str, Any]:
        """What is not reported yet, for a checkpoint."""
        return {"count": self._means.count, "sums": self._means.sums, "state": self._last_state}

    def restore(self, unreported: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `unreported` returned."""
        self._means.count = unreported["count"]
        self._means.sums = to_device(unreported["sums"], device)
        self._last_state = unreported["state"]
