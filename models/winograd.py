"""3x3 convolution with a quarter of the multiplications (Winograd's F(4x4, 3x3); Lavin and Gray, CVPR 2016).

A tile of 4x4 outputs depends on 6x6 inputs. Both tile and kernel are transformed by small matrices of constants; what
is a convolution then becomes one multiplication for each of the 36 numbers, that is, over all tiles and channels, 36
matrix products. A convolution of dilation d is d x d convolutions side by side, each over every d-th row and column.

Inference on a CPU uses it: there, dense convolutions run at the speed of matrix products, so that doing less is all
that is left to gain. Results differ from a plain convolution's by some 1e-5 of the largest output.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolutions import inside

TILE = 4
"""Outputs of a tile along one axis."""

WINDOW = TILE + 2
"""Inputs that they depend on."""

INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)

COST_OF_TRANSFORMING = 60
COST_OF_READING = 10
"""Of a number that is transformed, and of a weight that is read, in multiply-adds: those wait for no memory."""


def both_axes(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """The transform of rows, then of columns, as one matrix: float64 [A * A, B * B] of one [A, B]."""
    along_one = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(along_one, along_one)


def num_tiles(length: int, dilation: int) -> int:
    """Tiles along one axis in each of the `dilation` convolutions side by side; the last may reach beyond the end."""
    return -(-length // (TILE * dilation))


class Place:
    """Memory for one intermediate result after another.

    New memory for each would cost more than filling it: the system clears it and hands it over page by page.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.memory = torch.empty(0, dtype=dtype)

    def take(self, *shape: int) -> Tensor:
        """A tensor of this shape, of any content; what was here before is lost."""
        size = prod(shape)
        if self.memory.numel() < size:
            with torch.inference_mode(False):  # which it outlives
                self.memory = self.memory.new_empty(size)
        return self.memory[:size].view(shape)


class WinogradConv(nn.Module):
    """A 3x3 convolution that keeps the size, with fixed weights: for inference, by one thread at a time.

    Args:
        conv: the convolution to stand for, one that `has_winograd_form`.
        places: for intermediate results, in its precision; other convolutions may have the same.
    """

    def __init__(self, conv: nn.Conv2d, places: tuple[Place, Place]) -> None:
        super().__init__()
        self.places = places
        (self.dilation, _) = conv.dilation
        out_channels, in_channels = conv.weight.shape[:2]
        taps = conv.weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
        kernels = both_axes(KERNEL_TRANSFORM).to(taps) @ taps
        buffers = {
            "kernels": kernels.view(-1, in_channels, out_channels),
            "bias": None if conv.bias is None else conv.bias.detach(),
            "input_transform": both_axes(INPUT_TRANSFORM).to(taps),
            "output_transform": both_axes(OUTPUT_TRANSFORM).to(taps),
        }
        for name, buffer in buffers.items():
            # Not to be saved: all follow from the convolution.
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H, W], in channels-last memory."""
        (num, in_channels, height, width), d = x.shape, self.dilation
        out_channels = self.kernels.shape[2]
        rows, columns = num_tiles(height, d), num_tiles(width, d)
        here, there = self.places
        seen = tile_windows(x, d, rows, columns)
        seen = here.take(*seen.shape).copy_(seen).view(WINDOW**2, -1)
        windows = torch.mm(self.input_transform, seen, out=there.take(*seen.shape)).view(WINDOW**2, -1, in_channels)
        products = torch.bmm(windows, self.kernels, out=here.take(*windows.shape[:2], out_channels))
        products = products.view(WINDOW**2, -1)
        tiles = torch.mm(self.output_transform, products, out=there.take(TILE**2, products.shape[1]))
        # [row in tile, column in tile, N, tile row, shift, tile column, shift, O] -> [N, rows, columns, O].
        tiles = tiles.view(TILE, TILE, num, rows, d, columns, d, -1).permute(2, 3, 0, 4, 5, 1, 6, 7)
        output = here.take(*tiles.shape).copy_(tiles).view(num, rows * TILE * d, columns * TILE * d, -1)
        output = output[:, :height, :width]
        return (output.clone() if self.bias is None else output + self.bias).permute(0, 3, 1, 2)


def tile_windows(x: Tensor, dilation: int, rows: int, columns: int) -> Tensor:
    """The inputs of every tile, as a view of `x` [N, I, H, W] with zeros around it.

    Returns:
        [row in window, column in window, N, tile row, row shift, tile column, column shift, I]; the shifts, 0 to
        dilation - 1, number the convolutions side by side.
    """
    (num, channels, height, width), d = x.shape, dilation
    below, right = rows * TILE * d - height + d, columns * TILE * d - width + d
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, d, right, d, below))
    of_image, of_row, of_column, of_channel = padded.stride()
    return padded.as_strided(
        (WINDOW, WINDOW, num, rows, d, columns, d, channels),
        (d * of_row, d * of_column, of_image, TILE * d * of_row, of_row, TILE * d * of_column, of_column, of_channel),
    )


def has_winograd_form(conv: nn.Conv2d) -> bool:
    """Whether `WinogradConv` can stand for a convolution."""
    rows, columns = conv.dilation
    keeps_size = conv.stride == (1, 1) and conv.padding == conv.dilation and conv.padding_mode == "zeros"
    return conv.kernel_size == (3, 3) and conv.groups == 1 and rows == columns and keeps_size


def is_winograd_faster(conv: nn.Conv2d, height: int, width: int) -> bool:
    """Whether `WinogradConv` has less to do for an input of this size than the convolution itself.

    The convolution leaves out what is padding; tiles reach beyond the end. Both depend on the dilation.
    """
    (dilation, _), (in_channels, out_channels) = conv.dilation, (conv.in_channels, conv.out_channels)
    products = in_channels * out_channels
    windows = num_tiles(height, dilation) * num_tiles(width, dilation) * (dilation * WINDOW) ** 2
    transforms = windows * (in_channels + out_channels) * COST_OF_TRANSFORMING
    ours = windows * products + transforms + WINDOW**2 * products * COST_OF_READING
    direct = needed_taps(height, dilation) * needed_taps(width, dilation) * products + 9 * products * COST_OF_READING
    return ours < 0.9 * direct  # the estimate is a rough one


def needed_taps(length: int, dilation: int) -> int:
    """Along one axis, over all outputs and the three taps of each: how many do not look at padding."""
    outputs = [inside(length, offset)[0] for offset in (-dilation, 0, dilation)]
    return sum(of_tap.stop - of_tap.start for of_tap in outputs)
