"""How parameters learn from losses: all together after the backward pass, or each within it.

An update is what a step of `envs.steps` ends with. Several processes make it together, of losses that are those of the
whole batch; whether it is made, they decide alike.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from models.multitask import MultiTaskNet
from models.replication import begin_alike, replicated
from utils.collectives import average_in_place

Update = Callable[[Mapping[str, Tensor], Mapping[str, float], Optimizer, GradScaler], dict[str, Tensor]]
"""(losses, their weights, optimiser, scaler) -> the losses and their weighted sum as "total", detached."""

UNSCALED = GradScaler("cpu", enabled=False)
"""For losses whose gradients need no scaling: in every precision but float16."""


class NotFinite(Exception):
    """An update whose losses or gradients are not finite. It was not made, or in part only: `PartlyNotFinite`.

    Attributes:
        names: of the losses that are not finite, or "gradient" where only gradients are not.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.names = names


class ScaledTooMuch(NotFinite):
    """Gradients overflow float16 at the scale of the loss. No fault: the scale has been lowered.

    Attributes:
        scale: by which the next loss is multiplied.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(["gradient"])
        self.scale = scale


class PartlyNotFinite(NotFinite):
    """Gradients of some weights are not finite, which is known only when other weights have made their update.

    Attributes:
        num_weights: how many tensors of weights are as they were before.
    """

    def __init__(self, num_weights: int) -> None:
        super().__init__(["gradient"])
        self.num_weights = num_weights


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum of weight * loss over the losses."""
    return sum(weights[name] * loss for name, loss in losses.items())


def update_after_backward(
    losses: Mapping[str, Tensor], loss_weights: Mapping[str, float], optimiser: Optimizer, scaler: GradScaler
) -> dict[str, Tensor]:
    """Minimise the weighted sum by one step, unless a loss or gradient is not finite.

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
        bad_losses = names_of_not_finite(detached)
        if scaler.is_enabled() and scaler.get_scale() >= 1 and not bad_losses:
            raise ScaledTooMuch(scaler.get_scale())
        raise NotFinite(bad_losses or ["gradient"])
    return detached


def update_in_backward(
    losses: Mapping[str, Tensor], loss_weights: Mapping[str, float], optimiser: Optimizer, scaler: GradScaler
) -> dict[str, Tensor]:
    """The same, but each weight makes its step as soon as its gradient is known, and the gradient is given back.

    A gradient is known when all paths have passed that use the weight. So gradients take the memory of one block's
    weights instead of that of all; but hardly less than before where the network is run task by task, one whole path
    after the other. A GPU is waited for once for each weight, to see whether its gradient is finite. In several
    processes the network is not to be `replicated`: the mean of the processes' gradients is taken here.

    Args:
        scaler: one that does nothing; scaled gradients are looked at all together.

    Raises: `NotFinite` for losses, before anything is done; `PartlyNotFinite` for gradients.
    """
    if scaler.is_enabled():
        raise ValueError("an update within the backward pass cannot be of scaled losses")
    total = weighted_sum(losses, loss_weights)
    detached = {name: loss.detach() for name, loss in {**losses, "total": total}.items()}
    if not torch.stack(list(detached.values())).isfinite().all():
        raise NotFinite(names_of_not_finite(detached))
    with stepping_in_backward(optimiser) as left_out:
        total.backward()
    if left_out:
        raise PartlyNotFinite(len(left_out))
    return detached


def net_and_update(net: MultiTaskNet, uses_all_weights: bool, in_backward: bool) -> tuple[nn.Module, Update]:
    """The network as steps call it that train its weights, in all processes the first one's, and their update.

    Args:
        uses_all_weights: whether every step does, as `models.replication` wants to know.
        in_backward: whether weights are updated within the backward pass.
    """
    begin_alike(net)
    if in_backward:
        return net, update_in_backward
    return replicated(net, uses_all_weights), update_after_backward


@contextmanager
def stepping_in_backward(optimiser: Optimizer) -> Iterator[list[Tensor]]:
    """While the block runs, let a weight that receives its gradient make its step, and give the gradient back.

    All that the weight was used for is done then: nothing in the backward pass sees the new weight.

    Yields:
        The weights that made no step, since their gradient was not finite.
    """
    left_out: list[Tensor] = []

    def step(group: dict[str, Any], weight: Tensor) -> None:
        average_in_place(weight.grad)
        if weight.grad.sum().isfinite():
            step_alone(optimiser, group, weight)
        else:
            left_out.append(weight)
        weight.grad = None

    hooks = [
        weight.register_post_accumulate_grad_hook(partial(step, group))
        for group in optimiser.param_groups
        for weight in group["params"]
        if weight.requires_grad
    ]
    try:
        yield left_out
    finally:
        for hook in hooks:
            hook.remove()


def step_alone(optimiser: Optimizer, group: dict[str, Any], weight: Tensor) -> None:
    """One step of an optimiser for a single weight of one of its groups; it looks at no other, which takes time."""
    groups = optimiser.param_groups
    optimiser.param_groups = [{**group, "params": [weight]}]
    try:
        optimiser.step()
    finally:
        optimiser.param_groups = groups


def names_of_not_finite(losses: Mapping[str, Tensor]) -> list[str]:
    """The names of those losses that are not finite."""
    return [name for name, loss in losses.items() if not loss.isfinite()]
