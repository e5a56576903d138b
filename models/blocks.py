"""Residual blocks without their skip, and the gated block that a policy executes or skips.

Every `forward` takes `turns`: for which tasks' turns this one computation stands. It matters to BatchNorm alone. The
release runs the network once per task, so that a batch moves the running statistics once for each task that passes;
here a computation that tasks share must move them as far. And with `task_bn` every task has statistics of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch.nn.functional as F
from torch import Tensor, nn

from models.convolutions import BlockConv, SubsamplingConv


@dataclass(frozen=True)
class Turns:
    """The turns of one computation, among all tasks that pass a module one after the other.

    A turn is given by how many turns come after it. Averages with momentum weigh late turns more, so a computation
    must know which ones it stands for.

    Attributes:
        own: turns of the tasks that share this computation.
        later: turns of the computations that follow for the same batch.
        tasks: the names of the tasks that share this computation.
    """

    own: tuple[int, ...] = (0,)
    later: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()

    def momentum(self, momentum: float) -> float:
        """The momentum of one update that counts as `own` turns of the given momentum.

        Turn t ends with weight m (1 - m)^t in the average; what is given away to later computations shrinks this
        update's weight afterwards, so it starts larger by as much. Alone, n turns make 1 - (1 - m)^n.
        """
        own, later = (momentum * sum((1 - momentum) ** turn for turn in turns) for turns in (self.own, self.later))
        return own / (1 - later)

    def alone(self) -> "Turns":
        """These turns where no other computation updates the same averages."""
        return replace(self, own=(0,) * len(self.own), later=())

    def again(self) -> "Turns":
        """For computing again what these turns stood for: the averages do not move once more."""
        return replace(self, own=(), later=())


ONE_TURN = Turns()


def take_turns(groups: Sequence[Sequence[str]], order: Sequence[str]) -> list[Turns]:
    """The turns of computations that run group by group, where the tasks by themselves would go in `order`."""
    passing = [task for task in order if any(task in group for group in groups)]
    turn = {task: len(passing) - 1 - position for position, task in enumerate(passing)}
    turns = [tuple(turn[task] for task in group) for group in groups]
    return [
        Turns(own, later=tuple(chain(*turns[index + 1 :])), tasks=tuple(tasks))
        for index, (own, tasks) in enumerate(zip(turns, groups, strict=True))
    ]


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose running statistics count a batch once per task that shares the computation.

    It is for images, and for texts, too: its parent's `forward`, which wants four axes, is never called.
    """

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """Normalise `x` [N, C, ...] by its own statistics in training, by the running ones else."""
        momentum = 0.0
        if self.training:
            self.num_batches_tracked.add_(len(turns.own))
            momentum = turns.momentum(self.momentum)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )


class TaskBatchNorm(nn.Module):
    """A BatchNorm for every task (`task_bn`): tasks then share weights, but no computation."""

    def __init__(self, channels: int, tasks: Sequence[str]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({task: SharedBatchNorm(channels) for task in tasks})

    def forward(self, x: Tensor, turns: Turns) -> Tensor:
        """Normalise `x` [N, C, ...] by the statistics, scale and shift of the one task whose turn it is."""
        (task,) = turns.tasks
        return self.norms[task](x, turns.alone())


Norm = Callable[[int], nn.Module]
"""Number of channels -> BatchNorm, called as `norm(x, turns)`."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias that keeps the size at stride 1."""
    if stride == 1:
        return BlockConv(in_channels, out_channels, dilation)
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class BasicBlock(nn.Module):
    """conv3x3-bn-relu-conv3x3-bn, the residual branch of ResNet18 and ResNet34."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1, norm: Norm = SharedBatchNorm
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, dilation)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = norm(channels)

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride]."""
        x = F.relu(self.bn1(self.conv1(x), turns), inplace=True)
        return self.bn2(self.conv2(x), turns)


class Bottleneck(nn.Module):
    """conv1x1(stride)-bn-relu-conv3x3-bn-relu-conv1x1-bn, the residual branch of ResNet50 and ResNet101.

    Its BatchNorm scales and shifts are frozen (release).
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1, norm: Norm = SharedBatchNorm
    ) -> None:
        super().__init__()
        self.conv1 = SubsamplingConv(in_channels, channels, stride)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = norm(channels * self.expansion)
        for frozen in (self.bn1, self.bn2, self.bn3):
            frozen.requires_grad_(False)

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, in_channels, H, W] -> [N, 4 * channels, H/stride, W/stride]."""
        x = F.relu(self.bn1(self.conv1(x), turns), inplace=True)
        x = F.relu(self.bn2(self.conv2(x), turns), inplace=True)
        return self.bn3(self.conv3(x), turns)


class IdentityShortcut(nn.Module):
    """The shortcut of a block that keeps its input's shape."""

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, C, ...] -> the same tensor."""
        return x


class ProjectionShortcut(nn.Module):
    """Convolution of kernel size 1, then bn: the shortcut of a stage's first block when the stage changes shape.

    It also stands where a stage is dilated. `conv` brings the stride and the numbers of channels.
    """

    def __init__(self, conv: nn.Conv1d | nn.Conv2d, norm: Norm = SharedBatchNorm) -> None:
        super().__init__()
        self.conv = conv
        self.bn = norm(conv.out_channels)

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride]; texts have one axis instead of two."""
        return self.bn(self.conv(x), turns)


class GatedBlock(nn.Module):
    """One decision of the policy: a task executes the residual branch or takes the shortcut alone (section 3).

    Any backbone is a list of objects with these two methods.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def skip(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """The block's output for tasks that skip it: `shortcut(x)`, with no activation (release)."""
        return self.shortcut(x, turns)

    def execute(self, x: Tensor, skipped: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """The block's output for tasks that execute it, given `skipped = skip(x)`."""
        return F.relu(skipped + self.residual(x, turns), inplace=True)
