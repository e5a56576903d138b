"""Dilated ResNets as a stem and a flat list of gated blocks."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import (
    ONE_TURN,
    BasicBlock,
    Bottleneck,
    GatedBlock,
    IdentityShortcut,
    ProjectionShortcut,
    SharedBatchNorm2d,
    Turns,
)


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
    """conv7x7/2-bn-relu-maxpool3x3/2, computed once for all tasks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn = SharedBatchNorm2d(channels)

    def forward(self, image: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """[N, 3, H, W] -> [N, channels, h, w] with h = floor(ceil(H / 2) / 2) + 1, about H / 4, and w likewise."""
        x = F.relu(self.bn(self.conv(image), turns), inplace=True)
        return F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)


class ResNet(nn.Module):
    """Stem and gated blocks of a ResNet with output stride 8: strides 1, 2, 1, 1 and dilations 1, 1, 2, 4.

    `stage_lengths` says how the flat list of blocks falls into stages; `out_channels` is what the heads receive.
    """

    strides = (1, 2, 1, 1)
    dilations = (1, 1, 2, 4)

    def __init__(self, name: str, width: int = 64) -> None:
        super().__init__()
        layout = LAYOUTS[name]
        self.stage_lengths = layout.stages
        self.stem = Stem(width)
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
                projects = first and (stride != 1 or in_channels != out_channels or dilation != 1)
                self.blocks.append(
                    GatedBlock(
                        residual=layout.block(in_channels, channels, block_stride, dilation),
                        shortcut=ProjectionShortcut(in_channels, out_channels, block_stride)
                        if projects
                        else IdentityShortcut(),
                    )
                )
                in_channels = out_channels
        self.out_channels = in_channels
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.01)
