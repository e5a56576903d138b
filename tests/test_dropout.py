"""Dropout by random bits: its share, its scale, its gradient, its independence; and masks that processes share."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dropout import BatchDropout, ReluDropout, random_bits


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


# Masks of the whole batch


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (6, 9, 4)])
@pytest.mark.parametrize("dropout", [ReluDropout(), BatchDropout(0.1)])
def test_processes_have_their_rows_of_the_mask_of_the_whole_batch(
    dropout: nn.Module, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(shape) + 1

    def drop(x: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        return dropout.train()(x.clone()), torch.rand(1)

    whole, after = drop(x)
    monkeypatch.setattr("models.dropout.num_processes", lambda: 2)
    parts = []
    for number, part in enumerate(x.chunk(2)):
        monkeypatch.setattr("models.dropout.rank", lambda number=number: number)
        out, after_part = drop(part)
        parts.append(out)
        assert torch.equal(after_part, after), "all go on with the same random state"
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(*(part == 0 for part in parts))


def test_a_part_of_a_batch_is_dropped_as_pytorch_drops_a_whole_one() -> None:
    x = torch.rand(64, 50, 8) + 1
    torch.manual_seed(5)
    expected = F.dropout(x, 0.1)
    torch.manual_seed(5)
    assert torch.equal(BatchDropout(0.1)(x), expected)
    assert (expected == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(BatchDropout(0.1).eval()(x), x)
    assert torch.equal(BatchDropout(0.0)(x), x)
