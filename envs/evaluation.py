"""The one evaluation loop, which all three scripts use."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from envs.losses import Batch
from envs.metrics import Values
from envs.tasks import PROTOCOLS, Task
from models.shared_paths import Gates
from utils.modes import evaluation_mode
from utils.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a network under fixed gates.

    Attributes:
        metrics: protocol -> task -> metric -> value; None for a task where the protocol has no meaning.
        num_samples: images that were evaluated.
    """

    metrics: dict[str, dict[str, Values | None]]
    num_samples: int

    def flat(self) -> dict[str, float | None]:
        """`protocol/task/metric` -> value, for the log."""
        return {
            f"{protocol}/{task}/{metric}": value
            for protocol, tasks in self.metrics.items()
            for task, values in tasks.items()
            for metric, value in (values or {}).items()
        }

    def headlines(self, tasks: Mapping[str, Task]) -> str:
        """One line with each task's foremost metric in the release's protocol."""
        values = {name: self.metrics["release"][name][task.headline] for name, task in tasks.items()}
        return "  ".join(
            f"{name} {tasks[name].headline} {'-' if value is None else f'{value:.4g}'}"
            for name, value in values.items()
        )


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    gates: Gates,
    batches: Collection[Batch],
    tasks: Mapping[str, Task],
    max_batches: int | None = None,
) -> Evaluation:
    """Evaluate the tasks in both protocols; the network returns to the mode it was in.

    Args:
        net: called as `net(image, gates)`, returns {task: prediction}.
        max_batches: stop after so many (release: 11 while training); None takes all.
    """
    meters = {protocol: {name: task.new_metric(protocol) for name, task in tasks.items()} for protocol in PROTOCOLS}
    num_batches = len(batches) if max_batches is None else min(len(batches), max_batches)
    num_samples = 0
    with evaluation_mode(net):
        for batch in progress_bar(islice(batches, num_batches), "evaluation", num_batches):
            predictions = net(batch["img"], gates)
            num_samples += len(batch["img"])
            for of_tasks in meters.values():
                for name, meter in of_tasks.items():
                    if meter is not None:
                        meter.update(predictions[name], batch)
    metrics = {
        protocol: {name: meter.compute() if meter is not None else None for name, meter in of_tasks.items()}
        for protocol, of_tasks in meters.items()
    }
    return Evaluation(metrics, num_samples)
