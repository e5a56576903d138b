"""What turns a task's features into its prediction.

The last layer costs little and decides: it is computed in float32, whatever the precision of the rest.
"""

from collections.abc import Callable

from torch import Tensor, nn

from models.checkpointing import run_plainly
from models.convolutions import DilatedConv, PointwiseConv
from models.dropout import ReluDropout
from utils.precision import in_full_precision


class LastConv(PointwiseConv):
    """One linear layer for every pixel: what is predicted there."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, h, w] -> [N, out_channels, h, w]."""
        with in_full_precision(x.device):
            return super().forward(x.to(self.weight.dtype))


class ASPPBranch(nn.Module):
    """conv3x3(dilation)-relu-dropout-conv1x1-relu-dropout-conv1x1, one field of view of the head."""

    def __init__(self, in_channels: int, out_channels: int, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = DilatedConv(in_channels, width, dilation)
        self.conv2 = PointwiseConv(width, width)
        self.conv3 = LastConv(width, out_channels)
        self.relu_dropout = ReluDropout()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, h, w] -> [N, out_channels, h, w]."""
        x = self.relu_dropout(self.conv1(x))
        x = self.relu_dropout(self.conv2(x))
        return self.conv3(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the sum of four branches of dilation 6, 12, 18 and 24.

    Args:
        run_branch: how a branch is run on its input.
    """

    dilations = (6, 12, 18, 24)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 1024,
        run_branch: Callable[[nn.Module, Tensor], Tensor] = run_plainly,
    ) -> None:
        super().__init__()
        self.run_branch = run_branch
        self.branches = nn.ModuleList(
            ASPPBranch(in_channels, out_channels, width, dilation) for dilation in self.dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, in_channels, h, w] -> prediction [N, out_channels, h, w]."""
        return sum(self.run_branch(branch, x) for branch in self.branches)


class LinearHead(nn.Linear):
    """One linear layer: classes of whole images, or of texts."""

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, in_features] -> logits [N, out_features]."""
        with in_full_precision(x.device):
            return super().forward(x.to(self.weight.dtype))
