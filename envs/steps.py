"""One training step of each kind, with everything passed in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim import Optimizer

from envs.batches import inputs_of
from envs.losses import Batch
from envs.tasks import Task
from models.blocks import SharedBatchNorm
from models.multitask import MultiTaskNet
from models.shared_paths import Gates


def task_losses(predictions: Mapping[str, Tensor], batch: Batch, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """The raw loss of every predicted task, a scalar each."""
    return {task: tasks[task].loss(prediction, batch) for task, prediction in predictions.items()}


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


def weight_step(
    net: MultiTaskNet,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    optimiser: Optimizer,
) -> dict[str, Tensor]:
    """Update the weights under given gates: warm-up, weight steps of policy learning, retraining.

    Returns:
        The raw loss of each task and their weighted sum as "total", detached.
    """
    optimiser.zero_grad(set_to_none=True)
    losses = task_losses(net(inputs_of(batch), gates), batch, tasks)
    total = weighted_sum(losses, loss_weights)
    total.backward()
    optimiser.step()
    return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}


def policy_step(
    net: MultiTaskNet,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    regularisers: Mapping[str, Tensor],
    optimiser: Optimizer,
) -> dict[str, Tensor]:
    """Update the logits through the gates that were drawn from them; the weights stay as they are.

    Args:
        regularisers: name -> loss on the logits; `loss_weights` weighs them as it weighs the tasks.

    Returns:
        The raw losses of tasks and regularisers and their weighted sum as "total", detached.
    """
    optimiser.zero_grad(set_to_none=True)
    with frozen(net.backbone, net.heads):
        losses = {**task_losses(net(inputs_of(batch), gates), batch, tasks), **regularisers}
        total = weighted_sum(losses, loss_weights)
        total.backward()
    optimiser.step()
    return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}


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
