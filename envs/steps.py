"""One training step of each kind, with everything passed in.

Several processes take a step together, each with its part of the batch. Losses are those of the whole batch, and so
whether the step is taken; gradients too, as far as network and gates are those of `models.replication`.
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
from models.blocks import SharedBatchNorm
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.vectors import as_vector, fill_from_vector

UNSCALED = GradScaler("cpu", enabled=False)
"""For losses whose gradients need no scaling: in every precision but float16."""


def task_losses(predictions: Mapping[str, Tensor], batch: Batch, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """The raw loss of every predicted task, a scalar each: the mean over the whole batch."""
    parts = {task: tasks[task].loss(prediction, batch) for task, prediction in predictions.items()}
    return {task: mean.value for task, mean in means_of_whole_batch(parts).items()}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum of weight * loss over the losses."""
    return sum(weights[name] * loss for name, loss in losses.items())


def training_mode(net: MultiTaskNet, fix_bn: bool) -> None:
    """Put the network in training mode; with `fix_bn` its BatchNorms keep to their running statistics."""
    net.train()
    if fix_bn:
        for module in net.modules():
            if isinstance(module, SharedBatchNorm):
                module.eval()


class NotFinite(Exception):
    """A step whose losses or gradients are not finite. It was not taken, and the network is as it was before.

    Attributes:
        names: of the losses that are not finite, or "gradient" where only gradients are not.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.names = names


class ScaledTooMuch(NotFinite):
    """A step whose gradients overflow float16 at the scale of the loss. No fault: the scale has been lowered.

    Attributes:
        scale: by which the next loss is multiplied.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(["gradient"])
        self.scale = scale


def weight_step(
    net: nn.Module,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    optimiser: Optimizer,
    scaler: GradScaler = UNSCALED,
) -> dict[str, Tensor]:
    """Update the weights under given gates: warm-up, weight steps of policy learning, retraining.

    Args:
        net: a `MultiTaskNet`, in several processes `replicated`.

    Returns:
        The raw loss of each task and their weighted sum as "total", detached.

    Raises: `NotFinite`, in float16 also `ScaledTooMuch`.
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

    Raises: `NotFinite`, in float16 also `ScaledTooMuch`.
    """
    optimiser.zero_grad(set_to_none=True)
    with statistics_kept_from_bad_steps(net), frozen(net.backbone, net.heads):
        losses = {**task_losses(net(inputs_of(batch), gates), batch, tasks), **regularisers}
        return update(losses, loss_weights, optimiser, scaler)


def update(
    losses: Mapping[str, Tensor], loss_weights: Mapping[str, float], optimiser: Optimizer, scaler: GradScaler
) -> dict[str, Tensor]:
    """Minimise the weighted sum by one step; returns the losses and the sum as "total", detached.

    Raises: `NotFinite`, before the optimiser is asked for anything; `ScaledTooMuch` where the next loss is scaled less,
        but by no less than 1.
    """
    total = weighted_sum(losses, loss_weights)
    scaler.scale(total).backward()
    scaler.unscale_(optimiser)
    detached = {name: loss.detach() for name, loss in {**losses, "total": total}.items()}
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    # A sum is finite if all are, and much faster than a look at each; all in one tensor: a device is waited for once.
    finite = torch.stack([value.sum() for value in (*detached.values(), *gradients)]).isfinite().all()
    if finite:
        scaler.step(optimiser)
    scaler.update()
    if not finite:
        bad_losses = [name for name, loss in detached.items() if not loss.isfinite()]
        if scaler.is_enabled() and scaler.get_scale() >= 1 and not bad_losses:
            raise ScaledTooMuch(scaler.get_scale())
        raise NotFinite(bad_losses or ["gradient"])
    return detached


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
