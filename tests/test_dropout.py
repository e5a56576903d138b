"""Dropout by random bits: its share, its scale, its gradient, its independence."""

import pytest
import torch
from torch import Tensor

from models.dropout import ReluDropout, random_bits


def activations(layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 24, 37, 41).to(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_of_what_relu_leaves_is_doubled_and_the_rest_dropped(layout: torch.memory_format) -> None:
    x = activations(layout)
    y = ReluDropout()(x)
    positive, kept = x > 0, y != 0
    assert torch.equal(y[kept], 2 * x[kept])
    assert not kept[~positive].any()
    assert kept[positive].float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert y.is_contiguous(memory_format=layout)
    y.sum().backward()
    assert torch.equal(x.grad, 2.0 * kept)


def test_every_bit_is_drawn_by_itself() -> None:
    bits = random_bits(torch.empty(64, 3, 50, 50)).float() - 0.5
    flat = bits.flatten(1)
    for lag in range(1, 17):
        assert abs((flat[:, lag:] * flat[:, :-lag]).mean().item()) < 0.003
    assert abs((flat[0] * flat[1]).mean().item()) < 0.01
    assert flat.mean(dim=0).abs().max() < 0.5


def test_the_mask_belongs_to_the_random_state() -> None:
    x, dropout = activations(), ReluDropout()
    state = torch.get_rng_state()
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)


def test_evaluation_drops_nothing() -> None:
    x = activations().detach()
    assert torch.equal(ReluDropout().eval()(x.clone()), x.relu())


def test_values_that_are_not_finite_stay_so() -> None:
    x = torch.full((1, 1, 8, 8), torch.nan)
    assert ReluDropout()(x).isnan().all()
