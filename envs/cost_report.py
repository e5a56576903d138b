"""What each task and all tasks together cost under given gates, beside single-task networks."""

from typing import Any

import torch

from envs.batches import tensors_of
from models.inference import prepare_for_inference
from models.multitask import Inputs, MultiTaskNet
from models.shared_paths import HardGates, all_blocks, run_shared_paths
from utils.cost import measure_cost, measure_seconds, without_data
from utils.devices import to_device


def cost_report(net: MultiTaskNet, gates: HardGates, example: Inputs) -> dict[str, Any]:
    """Parameters used, multiply-adds and wall time for one input (of each task, if it has its own), on shared paths.

    The time is that of a network prepared for inference under the gates that are counted; not compiled.

    Args:
        example: inputs of the network, a batch of 1.

    Returns:
        "input_size", [height, width] or [words]; "device"; and three kinds of cost, each with "parameters",
        "multiply_adds" and "seconds":
        "per_task", each task alone under its gates; "together", all tasks with what they share computed once;
        "single_task_networks", the sum of one full network per task. The first two have
        "relative_to_single_task": parameters and multiply-adds as shares of the full networks of their tasks.
    """
    # Whatever the `execution` of the run: what the release computes and multiplies by 0 is no cost of an architecture.
    net = MultiTaskNet(
        net.backbone, net.policy, net.heads, run_shared_paths, task_bn=net.task_bn, precision=net.precision
    )
    shadow = without_data(net)
    device = next(net.parameters()).device
    shapes, inputs = to_device(example, "meta"), to_device(example, device)

    def cost(gates: HardGates) -> dict[str, Any]:
        counted = measure_cost(shadow, lambda shadow: shadow(shapes, gates))
        prepared = prepare_for_inference(net, gates)
        return {**vars(counted), "seconds": measure_seconds(prepared, lambda net: net(inputs, gates), device)}

    per_task = {task: cost({task: gates[task]}) for task in gates}
    single = {task: cost(all_blocks([task], net.num_blocks)) for task in gates}
    full = {key: sum(of_task[key] for of_task in single.values()) for key in ("parameters", "multiply_adds", "seconds")}
    return {
        "input_size": list(next(tensors_of(example)).shape[1:])[-2:],
        "device": device_name(device),
        "per_task": {task: relative_to(single[task], of_task) for task, of_task in per_task.items()},
        "together": relative_to(full, cost(gates)),
        "single_task_networks": full,
    }


def relative_to(full: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    """The cost with its shares of a full one."""
    shares = {key: cost[key] / full[key] for key in ("parameters", "multiply_adds")}
    return {**cost, "relative_to_single_task": shares}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
