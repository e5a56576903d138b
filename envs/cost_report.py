"""What each task and all tasks together cost under given gates, beside single-task networks."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from models.multitask import MultiTaskNet
from models.shared_paths import Gates, all_blocks
from utils.cost import Cost, measure_cost, without_data


def cost_report(net: MultiTaskNet, gates: Gates, image_size: tuple[int, int]) -> dict[str, Any]:
    """Parameters used and multiply-adds for one image of `image_size` (height, width).

    Returns:
        "input_size"; "per_task" {task: cost of running it alone under its gates}; "together", all tasks with
        what they share computed once; "single_task_networks", the sum of one full network per task; and
        "relative_to_single_task", together divided by that sum.
    """
    shadow = without_data(net)
    image = torch.empty(1, 3, *image_size, device="meta")

    def cost(gates: Gates) -> Cost:
        return measure_cost(shadow, lambda shadow: shadow(image, gates))

    per_task = {task: cost({task: gates[task]}) for task in gates}
    together = cost(gates)
    single = total(cost(all_blocks([task], net.num_blocks)) for task in gates)
    return {
        "input_size": list(image_size),
        "per_task": {task: asdict(of_task) for task, of_task in per_task.items()},
        "together": asdict(together),
        "single_task_networks": asdict(single),
        "relative_to_single_task": {
            "parameters": together.parameters / single.parameters,
            "multiply_adds": together.multiply_adds / single.multiply_adds,
        },
    }


def total(costs: Iterable[Cost]) -> Cost:
    """Sum of costs."""
    costs = list(costs)
    return Cost(sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs))
