"""What turns a task's features into its prediction."""

import torch.nn.functional as F
from torch import Tensor, nn


class ASPPBranch(nn.Module):
    """conv3x3(dilation)-relu-dropout-conv1x1-relu-dropout-conv1x1, one field of view of the head."""

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


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the sum of four branches of dilation 6, 12, 18 and 24."""

    dilations = (6, 12, 18, 24)

    def __init__(self, in_channels: int, out_channels: int, width: int = 1024) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ASPPBranch(in_channels, out_channels, width, dilation) for dilation in self.dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, in_channels, h, w] -> prediction [N, out_channels, h, w]."""
        return sum(branch(x) for branch in self.branches)
