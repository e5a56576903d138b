"""The baseline: what the release does, written as plainly as PyTorch allows.

Every task goes through the whole network by itself, stem included; every block is computed, and one that is skipped is
multiplied by 0. In warm-up alone, where all tasks execute all blocks, they have one pass in common. Memory is laid out
image by image, channel by channel. Of `models` it takes the layers and the weights alone, so that nothing that makes
those faster makes this faster.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.implementation import LEARNING_RATE, Implementation, Training
from benchmarks.work import Work, seed_weights
from envs.experiment import configured_network
from envs.losses import Batch
from envs.steps import frozen, task_losses
from envs.tasks import Task
from envs.updates import weighted_sum
from models.convolutions import BlockConv
from models.heads import ASPP
from models.multitask import MultiTaskNet
from models.resnet import ResNet
from models.shared_paths import Gate, Gates, HardGates, mixes


class PlainBranch(nn.Module):
    """conv3x3(dilation)-relu-dropout-conv1x1-relu-dropout-conv1x1, of the library's own layers."""

    def __init__(self, in_channels: int, out_channels: int, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.conv3 = nn.Conv2d(width, out_channels, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, h, w] -> [N, out_channels, h, w]."""
        x = self.dropout(F.relu(self.conv1(x), inplace=True))
        x = self.dropout(F.relu(self.conv2(x), inplace=True))
        return self.conv3(x)


class PlainASPP(nn.Module):
    """The head of a task: the sum of four branches."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(PlainBranch(in_channels, out_channels, width, d) for d in ASPP.dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, in_channels, h, w] -> prediction [N, out_channels, h, w]."""
        return sum(branch(x) for branch in self.branches)


class TaskByTaskNet(nn.Module):
    """Stem, blocks and head for one task after the other."""

    def __init__(self, net: MultiTaskNet, num_outputs: dict[str, int], head_width: int) -> None:
        super().__init__()
        self.backbone = net.backbone
        self.policy = net.policy
        self.heads = nn.ModuleDict(
            {task: PlainASPP(net.backbone.out_channels, outputs, head_width) for task, outputs in num_outputs.items()}
        )

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks that a path executes or skips."""
        return len(self.backbone.blocks)

    def forward(self, image: Tensor, gates: Gates) -> dict[str, Tensor]:
        """Images [N, 3, H, W] -> task -> prediction, as `MultiTaskNet.forward`."""
        if execute_everything(gates):
            features = dict.fromkeys(gates, run_every_block(self.backbone, image, [1] * self.num_blocks))
        else:
            features = {task: run_every_block(self.backbone, image, path) for task, path in gates.items()}
        return {task: self.heads[task](x) for task, x in features.items()}


def execute_everything(gates: Gates) -> bool:
    """Whether all gates are fixed at 1, as in warm-up."""
    return all(not mixes(gate) and gate == 1 for path in gates.values() for gate in path)


def run_every_block(backbone: ResNet, image: Tensor, path: Sequence[Gate]) -> Tensor:
    """One task's features [N, C, H/8, W/8] of images [N, 3, H, W], by its gates, one per block."""
    x = backbone.stem(image)
    for block, gate in zip(backbone.blocks, path, strict=True):
        skipped = block.shortcut(x)
        executed = F.relu(skipped + block.residual(x))
        x = gate * executed + (1 - gate) * skipped
    return x


def with_librarys_convolutions(net: nn.Module) -> nn.Module:
    """Let blocks have 3x3 convolutions of the library's own; values are lost. Returns the network."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, BlockConv):
                plain = nn.Conv2d(
                    child.in_channels, child.out_channels, 3, padding=child.padding, dilation=child.dilation, bias=False
                )
                setattr(module, name, plain)
    return net


def lay_out_by_channel(module: nn.Module) -> nn.Module:
    """Give every parameter memory in the order of its axes; values are lost. Returns the module."""
    for parameter in module.parameters():
        # New memory: kernels of size 1 pass for either order, and would keep the strides of the other.
        parameter.data = torch.empty(parameter.shape)
    return module


@dataclass(frozen=True)
class Baseline(Implementation):
    """The release's way."""

    name: str
    rate: str

    def build(self, work: Work, device: torch.device) -> TaskByTaskNet:
        """The network of the work; see `Implementation`."""
        num_outputs = {name: task.num_channels for name, task in work.tasks.items()}
        net = TaskByTaskNet(configured_network(work.config, work.tasks), num_outputs, work.config.head_width)
        return seed_weights(lay_out_by_channel(with_librarys_convolutions(net))).to(device)

    def prepare_test(self, net: TaskByTaskNet, gates: HardGates) -> TaskByTaskNet:
        """The network as it is."""
        return net.eval()

    def computing(self, net: TaskByTaskNet) -> AbstractContextManager:
        """Nothing: the library's default is float32."""
        return nullcontext()

    def full_training(self, net: TaskByTaskNet, work: Work) -> Training:
        """Adam."""
        optimiser = Adam(weights(net), lr=LEARNING_RATE, betas=(0.5, 0.999), weight_decay=1e-4)
        return plain_training(plain_weight_step, net, work, optimiser)

    def alternate_training(self, net: TaskByTaskNet, work: Work) -> Training:
        """SGD with momentum."""
        optimiser = SGD(weights(net), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
        return plain_training(plain_weight_step, net, work, optimiser)

    def policy_training(self, net: TaskByTaskNet, work: Work) -> Training:
        """Adam."""
        optimiser = Adam(net.policy.parameters(), lr=LEARNING_RATE, weight_decay=5e-4)
        return plain_training(plain_policy_step, net, work, optimiser)


def weights(net: TaskByTaskNet) -> list[nn.Parameter]:
    """All parameters but the logits."""
    return [*net.backbone.parameters(), *net.heads.parameters()]


def plain_training(step: Callable[..., None], net: TaskByTaskNet, work: Work, optimiser: Optimizer) -> Training:
    """Steps of the network on the losses of the work."""
    on_losses = {"tasks": work.tasks, "loss_weights": work.loss_weights}
    return Training(optimiser, partial(step, net, **on_losses, optimiser=optimiser))


def plain_weight_step(
    net: TaskByTaskNet,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    optimiser: Optimizer,
) -> None:
    """Update the weights under given gates."""
    optimiser.zero_grad()
    losses = task_losses(net(batch["img"], gates), batch, tasks)
    weighted_sum(losses, loss_weights).backward()
    optimiser.step()


def plain_policy_step(
    net: TaskByTaskNet,
    gates: Gates,
    batch: Batch,
    tasks: Mapping[str, Task],
    loss_weights: Mapping[str, float],
    regularisers: Mapping[str, Tensor],
    optimiser: Optimizer,
) -> None:
    """Update the logits through the gates that were drawn from them, while the weights are frozen."""
    optimiser.zero_grad()
    with frozen(net.backbone, net.heads):
        losses = {**task_losses(net(batch["img"], gates), batch, tasks), **regularisers}
        weighted_sum(losses, loss_weights).backward()
    optimiser.step()
