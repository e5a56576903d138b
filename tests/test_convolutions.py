"""Our convolutions equal PyTorch's, in values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.convolutions import BlockConv, DilatedConv, PointwiseConv, SubsamplingConv
from models.winograd import Place, WinogradConv, is_winograd_faster, needed_taps

SIZES_AND_DILATIONS = [(8, 6, 1), (9, 7, 2), (9, 7, 6), (5, 6, 12), (1, 8, 3)]
"""Taps that see something everywhere, at some places, and nowhere; maps that a tile does not fit."""


def inputs(height: int, width: int) -> Tensor:
    return torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)


def gradients(output: Tensor, of: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(output, of, torch.randn(output.shape, dtype=output.dtype))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "dilation"), SIZES_AND_DILATIONS)
@pytest.mark.parametrize("kind", [BlockConv, DilatedConv])
def test_convolutions_have_the_librarys_gradients(
    kind: type[BlockConv | DilatedConv], height: int, width: int, dilation: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    conv = kind(4, 5, dilation).double().to(memory_format=layout)
    x = inputs(height, width)
    seen = x.to(memory_format=layout)
    expected = F.conv2d(seen, conv.weight, conv.bias, padding=dilation, dilation=dilation)
    assert torch.equal(conv(seen), expected)
    of = [x, *conv.parameters()]
    for ours, librarys in zip(gradients(conv(seen), of), gradients(expected, of), strict=True):
        torch.testing.assert_close(ours, librarys, rtol=0, atol=1e-12)


def test_a_convolution_of_a_block_in_bfloat16_is_the_librarys() -> None:
    conv, x = BlockConv(4, 5, 1), inputs(6, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
    assert output.dtype == torch.bfloat16
    assert type(output.grad_fn).__name__ == "ConvolutionBackward0"


def test_frozen_weights_still_pass_a_gradient_to_the_input() -> None:
    conv, x = DilatedConv(4, 5, 2).double().requires_grad_(False), inputs(6, 6)
    expected = F.conv2d(x, conv.weight, conv.bias, padding=2, dilation=2)
    torch.testing.assert_close(gradients(conv(x), [x])[0], gradients(expected, [x])[0])


def test_a_pointwise_convolution_is_the_librarys() -> None:
    torch.manual_seed(0)
    conv, x = PointwiseConv(4, 3).double(), inputs(5, 6)
    of = [x, conv.weight, conv.bias]
    expected = F.conv2d(x, conv.weight, conv.bias)
    torch.testing.assert_close(conv(x), expected)
    for ours, librarys in zip(gradients(conv(x), of), gradients(expected, of), strict=True):
        torch.testing.assert_close(ours, librarys)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "stride"), [(8, 12, 2), (7, 5, 2), (1, 3, 2), (4, 6, 1), (7, 7, 3)])
def test_a_subsampling_convolution_is_the_librarys(
    height: int, width: int, stride: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    conv = SubsamplingConv(4, 3, stride).double().to(memory_format=layout)
    x = inputs(height, width)
    of = [x, conv.weight]
    expected = F.conv2d(x, conv.weight, stride=stride)
    actual = conv(x.to(memory_format=layout))
    torch.testing.assert_close(actual, expected)
    for ours, librarys in zip(gradients(actual, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(ours, librarys)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("height", "width", "dilation"), [*SIZES_AND_DILATIONS, (17, 30, 1), (29, 21, 4)])
def test_winograds_convolution_is_the_librarys(height: int, width: int, dilation: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 5, 3, padding=dilation, dilation=dilation, bias=bias).double()
    x = inputs(height, width)
    places = Place(torch.float64), Place(torch.float64)
    torch.testing.assert_close(WinogradConv(conv, places)(x), conv(x), rtol=0, atol=1e-12)


def test_winograds_convolution_is_exact_to_a_few_digits_less_in_float32() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(256, 64, 3, padding=2, dilation=2, bias=False)
    x = torch.randn(1, 256, 24, 24).relu()
    exact = conv.double()(x.double())
    fast = WinogradConv(conv.float(), (Place(), Place()))(x)
    assert 1e-8 < (fast - exact).abs().max() / exact.abs().max() < 3e-5


@torch.inference_mode()
def test_winograds_convolutions_can_share_the_places_of_intermediate_results() -> None:
    torch.manual_seed(0)
    places = Place(), Place()
    first, second = (torch.nn.Conv2d(4, 5, 3, padding=d, dilation=d, bias=d == 2) for d in (1, 2))
    small, large = torch.randn(1, 4, 8, 8), torch.randn(2, 4, 15, 10)
    of_first, of_second = WinogradConv(first, places), WinogradConv(second, places)
    results = [of_second(large), of_first(small), of_second(small), of_first(large)]
    expected = [second(large), first(small), second(small), first(large)]
    for ours, librarys in zip(results, expected, strict=True):  # after all were made, so that none may have been lost
        torch.testing.assert_close(ours, librarys, rtol=0, atol=1e-5)


def test_needed_taps_are_those_that_see_no_padding() -> None:
    for length, dilation in ((7, 2), (5, 4), (5, 9), (1, 1)):
        ones = torch.ones(1, 1, length)
        seen = F.conv1d(ones, torch.ones(1, 1, 3), padding=dilation, dilation=dilation)
        assert needed_taps(length, dilation) == int(seen.sum())


def test_winograd_is_for_many_channels_and_maps_that_are_large_for_the_dilation() -> None:
    def faster(channels: int, dilation: int, size: int) -> bool:
        conv = torch.nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        return is_winograd_faster(conv, size, size)

    assert faster(512, dilation=4, size=64)
    assert not faster(16, dilation=4, size=64)
    assert not faster(512, dilation=24, size=29)
