"""The optimisers of the three phases (release): Adam, then SGD for weights and Adam for logits, then Adam again."""

import torch
from torch.amp import GradScaler
from torch.optim import SGD, Adam, Optimizer

from models.multitask import MultiTaskNet

Decay = tuple[int, float]
"""Every how many iterations a rate is multiplied by which factor."""

WEIGHT_DECAY = 1e-4


def _weight_groups(net: MultiTaskNet, heads_lr: float, backbone_lr: float) -> list[dict]:
    return [
        {"name": "heads", "params": list(net.heads.parameters()), "lr": heads_lr},
        {"name": "backbone", "params": list(net.backbone.parameters()), "lr": backbone_lr},
    ]


def warm_up_optimiser(net: MultiTaskNet, heads_lr: float, backbone_lr: float) -> Adam:
    """For the weights in warm-up and retraining."""
    return Adam(_weight_groups(net, heads_lr, backbone_lr), betas=(0.5, 0.999), weight_decay=WEIGHT_DECAY, fused=True)


def weight_optimiser(net: MultiTaskNet, heads_lr: float, backbone_lr: float) -> SGD:
    """For the weights while the policy is learned."""
    optimiser = SGD(_weight_groups(net, heads_lr, backbone_lr), momentum=0.9, weight_decay=WEIGHT_DECAY, fused=True)
    begin_momenta(optimiser)
    return optimiser


def begin_momenta(optimiser: SGD) -> None:
    """Give weights that have no momentum yet one of 0, with which their first step is the same.

    A fused step fails if some weights have one and others, of blocks that no task has executed so far, have none.
    """
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if weight.requires_grad and "momentum_buffer" not in optimiser.state[weight]:
                optimiser.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def policy_optimiser(net: MultiTaskNet, policy_lr: float) -> Adam:
    """For the logits."""
    groups = [{"name": "policy", "params": list(net.policy.parameters()), "lr": policy_lr}]
    return Adam(groups, weight_decay=5e-4)


def loss_scaler(net: MultiTaskNet) -> GradScaler:
    """What scales the loss, where small gradients would vanish in float16; in other precisions it does nothing."""
    device = next(net.parameters()).device
    return GradScaler(device.type, enabled=net.precision == torch.float16)


class StepDecay:
    """Rates that fall by steps, as torch's `StepLR` has them, with a decay of its own for each group of parameters.

    They follow from the number of steps alone, whether these were taken or had to be left out.

    Args:
        optimiser: whose groups are named "heads" and "backbone", and have the rates to begin with.
        heads, backbone: None keeps the rate.
        steps: those of a run that goes on, which has the rates it would have had.
    """

    def __init__(self, optimiser: Optimizer, heads: Decay | None, backbone: Decay | None, steps: int = 0) -> None:
        self._groups = {group["name"]: group for group in optimiser.param_groups}
        self._first_rates = {name: group["lr"] for name, group in self._groups.items()}
        self._decays = {"heads": heads, "backbone": backbone}
        self._steps = steps
        self._set_rates()

    def step(self) -> None:
        """Set the rates of the next step."""
        self._steps += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for name, group in self._groups.items():
            frequency, factor = self._decays[name] or (1, 1.0)
            group["lr"] = self._first_rates[name] * factor ** (self._steps // frequency)


def learning_rates(optimiser: Optimizer) -> dict[str, float]:
    """Current rate of each parameter group, for the log."""
    return {f"lr/{group['name']}": group["lr"] for group in optimiser.param_groups}
