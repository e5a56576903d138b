"""ResNets as a stem and a flat list of gated blocks: dilated for dense tasks, plain for classification.

What the network needs of a backbone: `stem`, `blocks`, `summarise` and `out_channels`.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import (
    ONE_TURN,
    BasicBlock,
    Bottleneck,
    GatedBlock,
    IdentityShortcut,
    Norm,
    ProjectionShortcut,
    SharedBatchNorm,
    Turns,
)
from models.convolutions import SubsamplingConv
from utils.precision import at_least_float32


@dataclass(frozen=True)
class ResNetLayout:
    """Which residual block a ResNet repeats, and how often in each of its four stages."""

    block: type[BasicBlock] | type[Bottleneck]
    stages: tuple[int, int, int, int]


LAYOUTS = {
    "ResNet18": ResNetLayout(BasicBlock, (2, 2, 2, 2)),
    "ResNet34": ResNetLayout(BasicBlock, (3, 4, 6, 3)),
    "ResNet50": ResNetLayout(Bottleneck, (3, 4, 6, 3)),
    "ResNet101": ResNetLayout(Bottleneck, (3, 4, 23, 3)),
}


class Stem(nn.Module):
    """conv7x7/2-bn-relu-maxpool3x3/2, computed once for all tasks that share the image."""

    def __init__(self, channels: int, norm: Norm = SharedBatchNorm, ceil_mode: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn = norm(channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=ceil_mode)

    def forward(self, image: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, 3, H, W] -> [N, channels, h, w], about H / 4 and W / 4.

        Exactly, with `ceil_mode`, h = floor(ceil(H / 2) / 2) + 1, without it h = ceil(ceil(H / 2) / 2).
        """
        return self.pool(F.relu(self.bn(self.conv(image), turns), inplace=True))


class ResNet(nn.Module):
    """Stem and gated blocks of a ResNet.

    `stage_lengths` says how the flat list of blocks falls into stages; `out_channels` is what the heads receive.
    """

    strides: ClassVar[tuple[int, ...]]
    dilations: ClassVar[tuple[int, ...]]
    ceil_mode: ClassVar[bool]

    def __init__(self, name: str, width: int = 64, norm: Norm = SharedBatchNorm) -> None:
        super().__init__()
        layout = LAYOUTS[name]
        self.stage_lengths = layout.stages
        self.stem = Stem(width, norm, self.ceil_mode)
        self.blocks = nn.ModuleList()
        in_channels = width
        for stage, (length, stride, dilation) in enumerate(
            zip(layout.stages, self.strides, self.dilations, strict=True)
        ):
            channels = width * 2**stage
            out_channels = channels * layout.block.expansion
            for position in range(length):
                first = position == 0
                block_stride = stride if first else 1
                shortcut: nn.Module = IdentityShortcut()
                if first and (stride != 1 or in_channels != out_channels or dilation != 1):
                    conv = SubsamplingConv(in_channels, out_channels, block_stride)
                    shortcut = ProjectionShortcut(conv, norm)
                self.blocks.append(
                    GatedBlock(layout.block(in_channels, channels, block_stride, dilation, norm), shortcut)
                )
                in_channels = out_channels
        self.out_channels = in_channels
        self._initialise()

    def stage_and_position(self, index: int) -> tuple[int, int]:
        """Where block `index` of the flat list stands: (stage, place within the stage), as other codebases name it."""
        ends = list(accumulate(self.stage_lengths))
        stage = next(stage for stage, end in enumerate(ends) if index < end)
        return stage, index - (ends[stage] - self.stage_lengths[stage])

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.01)


class DilatedResNet(ResNet):
    """For dense tasks: output stride 8."""

    strides = (1, 2, 1, 1)
    dilations = (1, 1, 2, 4)
    ceil_mode = True

    def summarise(self, features: Tensor, image: Tensor) -> Tensor:
        """What a head receives of a path's features [N, C, H/8, W/8]: all of them."""
        return features


class ClassificationResNet(ResNet):
    """For classes of whole images (DomainNet): output stride 32, then the mean over all places."""

    strides = (1, 2, 2, 2)
    dilations = (1, 1, 1, 1)
    ceil_mode = False

    def summarise(self, features: Tensor, image: Tensor) -> Tensor:
        """What a head receives of a path's features [N, C, H/32, W/32]: their mean, [N, C], in float32 at least."""
        return at_least_float32(features).mean(dim=(2, 3))
