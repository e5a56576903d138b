"""Residual blocks without their skip, and the gated block that a policy executes or skips.

Every `forward` takes `num_tasks`: how many tasks share this computation. It matters to BatchNorm's running
statistics alone: the release runs the network once per task, so a batch that m tasks share moves the statistics m
times. One pass here moves them as far.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose running statistics count a batch once per task that shares it."""

    def forward(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """Normalise `x` [N, C, H, W]; m equal updates of momentum m0 are one of momentum 1 - (1 - m0)^m."""
        if not self.training:
            return super().forward(x)
        self.num_batches_tracked.add_(num_tasks)
        momentum = 1 - (1 - self.momentum) ** num_tasks
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps
        )


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


class BasicBlock(nn.Module):
    """conv3x3-bn-relu-conv3x3-bn, the residual branch of ResNet18 and ResNet34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, dilation)
        self.bn1 = SharedBatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = SharedBatchNorm2d(channels)

    def forward(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride]."""
        x = F.relu(self.bn1(self.conv1(x), num_tasks), inplace=True)
        return self.bn2(self.conv2(x), num_tasks)


class Bottleneck(nn.Module):
    """conv1x1(stride)-bn-relu-conv3x3-bn-relu-conv1x1-bn, the residual branch of ResNet50 and ResNet101.

    Its BatchNorm scales and shifts are frozen (release).
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
        self.bn1 = SharedBatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = SharedBatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = SharedBatchNorm2d(channels * self.expansion)
        for norm in (self.bn1, self.bn2, self.bn3):
            norm.weight.requires_grad_(False)
            norm.bias.requires_grad_(False)

    def forward(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """[N, in_channels, H, W] -> [N, 4 * channels, H/stride, W/stride]."""
        x = F.relu(self.bn1(self.conv1(x), num_tasks), inplace=True)
        x = F.relu(self.bn2(self.conv2(x), num_tasks), inplace=True)
        return self.bn3(self.conv3(x), num_tasks)


class IdentityShortcut(nn.Module):
    """The shortcut of a block that keeps its input's shape."""

    def forward(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """[N, C, H, W] -> the same tensor."""
        return x


class ProjectionShortcut(nn.Module):
    """conv1x1-bn, the shortcut of a stage's first block when the stage changes shape or is dilated."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.bn = SharedBatchNorm2d(out_channels)

    def forward(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride]."""
        return self.bn(self.conv(x), num_tasks)


class GatedBlock(nn.Module):
    """One decision of the policy: a task executes the residual branch or takes the shortcut alone (section 3).

    Any backbone is a list of objects with these two methods.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def skip(self, x: Tensor, num_tasks: int = 1) -> Tensor:
        """The block's output for tasks that skip it: `shortcut(x)`, with no activation (release)."""
        return self.shortcut(x, num_tasks)

    def execute(self, x: Tensor, skipped: Tensor, num_tasks: int = 1) -> Tensor:
        """The block's output for tasks that execute it, given `skipped = skip(x)`."""
        return torch.relu(skipped + self.residual(x, num_tasks))
