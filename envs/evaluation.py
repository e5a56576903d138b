"""The one evaluation loop, which all three scripts use."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from envs.batches import gates_of_present, inputs_of, number_of_inputs
from envs.headlines import headlines_of
from envs.losses import Batch
from envs.metrics import Values
from envs.tasks import PROTOCOLS, Task
from models.shared_paths import Gates
from utils.distributed import all_gather_object, in_step
from utils.modes import evaluation_mode
from utils.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a network under fixed gates.

    Attributes:
        metrics: protocol -> task -> metric -> value; None for a task where the protocol has no meaning.
        num_samples: images or texts that were evaluated.
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
        values = {headline.title: headline.value(self.metrics["release"]) for headline in headlines_of(tasks)}
        return "  ".join(f"{title} {'-' if value is None else f'{value:.4g}'}" for title, value in values.items())


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    gates: Gates,
    batches: Collection[Batch],
    tasks: Mapping[str, Task],
    before_each: Callable[[], object] | None = None,
) -> Evaluation:
    """Evaluate the tasks in both protocols; the network returns to the mode it was in.

    Several processes evaluate together, each its own batches, and have the same outcome.

    Args:
        net: called as `net(inputs, gates)`, returns {task: prediction}.
        before_each: called before each batch, and may end the evaluation by what it raises.
    """
    meters = {protocol: {name: task.new_metric(protocol) for name, task in tasks.items()} for protocol in PROTOCOLS}
    num_samples = 0
    with evaluation_mode(net):
        for batch in progress_bar(in_step(batches, before_each), "evaluation", len(batches)):
            inputs = inputs_of(batch)
            predictions = net(inputs, gates_of_present(gates, inputs))
            num_samples += number_of_inputs(inputs)
            for of_tasks in meters.values():
                for name, prediction in predictions.items():
                    if of_tasks[name] is not None:
                        of_tasks[name].update(prediction, batch)
    metrics = {
        protocol: {name: meter.compute() if meter is not None else None for name, meter in of_tasks.items()}
        for protocol, of_tasks in meters.items()
    }
    return Evaluation(metrics, sum(all_gather_object(num_samples)))
