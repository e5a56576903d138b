"""One training step of each kind, with everything passed in.

Several processes take a step together, each with its part of the batch. Losses are those of the whole batch; gradients
too, as far as network and gates are what `envs.updates` and `models.replication` make of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from envs.batches import inputs_of
from envs.losses import Batch, means_of_whole_batch
from envs.tasks import Task
from envs.updates import UNSCALED, NotFinite, Update, update_after_backward
from models.blocks import SharedBatchNorm
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.vectors import as_vector, fill_from_vector


def task_losses(predictions: Mapping[str, Tensor], batch: Batch, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """The raw loss of every predicted task, a scalar each: the mean over the whole batch."""
    parts = {task: tasks[task].loss(prediction, batch) for task, prediction in predictions.items()}
    return {task: mean.value for task, mean in means_of_whole_batch(parts).items()}


def training_mode(net: MultiTaskNet, fix_bn: bool) -> None:
    """Put the network in training mode; with `fix_bn` its BatchNorms keep to their running statistics."""
    net.train()
    if fix_bn:
        for module in net.modules():
            if isinstance(module, SharedBatchNorm):
                module.eval()


def weight_step(
    net: nn.Module,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    optimiser: Optimizer,
    scaler: GradScaler = UNSCALED,
    update: Update = update_after_backward,
) -> dict[str, Tensor]:
    """Update the weights under given gates: warm-up, weight steps of policy learning, retraining.

    Args:
        net, update: in several processes, what `net_and_update` makes of the network.

    Returns:
        The raw loss of each task and their weighted sum as "total", detached.

    Raises: what the update raises.
    """
    optimiser.zero_grad(set_to_none=True)
    with statistics_kept_from_bad_steps(net):
        losses = task_losses(net(inputs_of(batch), gates), batch, tasks)
        return update(losses, loss_weights, optimiser, scaler)


def policy_step(
    net: MultiTaskNet,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    regularisers: Mapping[str, Tensor],
    optimiser: Optimizer,
    scaler: GradScaler = UNSCALED,
) -> dict[str, Tensor]:
    """Update the logits through the gates that were drawn from them; the weights stay as they are.

    Args:
        gates: in several processes `common_gates`.
        regularisers: name -> loss on the logits; `loss_weights` weighs them as it weighs the tasks.

    Returns:
        The raw losses of tasks and regularisers and their weighted sum as "total", detached.

    Raises: what `update_after_backward` raises.
    """
    optimiser.zero_grad(set_to_none=True)
    with statistics_kept_from_bad_steps(net), frozen(net.backbone, net.heads):
        losses = {**task_losses(net(inputs_of(batch), gates), batch, tasks), **regularisers}
        return update_after_backward(losses, loss_weights, optimiser, scaler)


@contextmanager
def statistics_kept_from_bad_steps(net: nn.Module) -> Iterator[None]:
    """Undo what the forward pass of a step that is `NotFinite` did to BatchNorms' running statistics."""
    buffers: dict[torch.dtype, list[Tensor]] = {}
    for buffer in net.buffers():
        buffers.setdefault(buffer.dtype, []).append(buffer)
    before = {kind: as_vector(of_kind) for kind, of_kind in buffers.items()}
    try:
        yield
    except NotFinite:
        for kind, of_kind in buffers.items():
            fill_from_vector(of_kind, before[kind])
        raise


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Compute no gradients for the modules' parameters, so that none of their inputs need be kept either."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
