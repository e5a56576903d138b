"""The losses of training steps, raw and weighted, as they go to the log."""

import math
from collections.abc import Mapping

from torch import Tensor

from utils.errors import UserError
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

    def add(self, iteration: int, losses: Mapping[str, Tensor], state: Mapping[str, float]) -> None:
        """Take in one step, and report where one is due.

        Args:
            losses: raw losses by name, and their weighted sum as "total"; scalars on their device.
            state: temperature, open blocks, learning rates and the like of this step, logged as they are.
        """
        self._means.update(losses)
        if self._means.count == self._every:
            self.report(iteration, state)

    def report(self, iteration: int, state: Mapping[str, float]) -> None:
        """Log the means of the steps since the last report, if there were any.

        Raises:
            UserError: a loss is not finite; training has diverged and would only waste time.
        """
        means = self._means.pop()
        if not means:
            return
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise UserError(
                    f"the {name} loss is {mean} in the {self._kind} steps up to iteration {iteration}: training has "
                    "diverged, lower train.lr and train.backbone_lr."
                )
        weighted = {f"weighted/{name}": self._loss_weights[name] * means[name] for name in means if name != "total"}
        raw = {f"loss/{name}": mean for name, mean in means.items()}
        self._logger.scalars(self._kind, iteration, {**raw, **weighted, **state})
        self._logger.show(iteration, means)
