"""One network in several processes: each has a copy, whose weights and logits learn from the parts of all."""

from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.multitask import MultiTaskNet
from models.policy import gumbel_noise
from models.shared_paths import Gates, mixes, skips
from utils.collectives import broadcast_from_first
from utils.distributed import num_processes

OPTIONS = signature(DistributedDataParallel).parameters


def replicated(net: MultiTaskNet, uses_all_weights: bool) -> nn.Module:
    """The network as steps call it that train its weights: their gradients are the mean of all processes'.

    Args:
        uses_all_weights: whether every step does; it is faster to know.
    """
    if num_processes() == 1:
        return net
    # The norms see to their statistics themselves. PyTorch 2.15 has another name for the option.
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in OPTIONS else "broadcast_buffers"
    options = {buffers: False, "find_unused_parameters": not uses_all_weights, "gradient_as_bucket_view": True}
    # What needs no gradient now is not looked after: the logits, which learn through their gates. But where steps may
    # leave weights out they stay in, left out by every step: one that leaves nothing out is complained of.
    net.policy.requires_grad_(not uses_all_weights)
    replica = DistributedDataParallel(net, **options)
    net.policy.requires_grad_(True)
    return replica


@torch.no_grad()
def begin_alike(net: MultiTaskNet) -> None:
    """Give the network of each process the first one's weights, logits and statistics."""
    if num_processes() > 1:
        for value in (*net.parameters(), *net.buffers()):
            value.copy_(broadcast_from_first(value))


def uses_all_weights(net: MultiTaskNet, gates: Gates) -> bool:
    """Whether each block is executed by a task; by every task, where they have BatchNorms of their own."""
    enough = all if net.task_bn else any
    return all(enough(not skips(gate) for gate in of_block) for of_block in zip(*gates.values(), strict=True))


def common_noise(like: Tensor) -> Tensor:
    """Gumbel noise of the shape of `like`, in all processes the first one's."""
    return broadcast_from_first(gumbel_noise(like))


def common_gates(gates: Gates) -> Gates:
    """Gates drawn with `common_noise`, for which all processes learn together: the gradient is the mean of theirs."""
    drawn = [gate for path in gates.values() for gate in path if mixes(gate)]
    if not drawn:
        return gates
    common = iter(broadcast_from_first(torch.stack(drawn)).unbind())
    return {task: [next(common) if mixes(gate) else gate for gate in path] for task, path in gates.items()}
