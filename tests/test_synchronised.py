"""Synchronised BatchNorm where there is one process: it is what it stands for. With two: `tests/distributed`."""

import copy

import pytest
import torch
from torch import Tensor, nn

from models.blocks import ONE_TURN, SharedBatchNorm, Turns
from models.synchronised import SynchronisedBatchNorm, synchronise_norms
from tests.small_runs import ALL_BLOCKS, small_net


def norms(dtype: torch.dtype = torch.float64) -> tuple[SharedBatchNorm, SynchronisedBatchNorm]:
    """A norm with weights and statistics of its own, and its synchronised twin."""
    torch.manual_seed(0)
    norm = SharedBatchNorm(3).to(dtype)
    for values in (norm.weight.data, norm.bias.data, norm.running_mean):
        values.normal_()
    return norm, SynchronisedBatchNorm.of(copy.deepcopy(norm))


def passed(norm: nn.Module, x: Tensor, turns: Turns) -> dict[str, Tensor]:
    """Output, gradients and statistics of one pass."""
    x = x.clone().requires_grad_()
    out = norm(x, turns)
    (out * torch.linspace(-1, 2, out.numel()).to(out).view_as(out)).sum().backward()
    return {"out": out.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad, **norm.state_dict()}


@pytest.mark.parametrize("turns", [ONE_TURN, Turns(own=(0, 2), later=(1,)), ONE_TURN.again()])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 3, 7)])
def test_it_computes_what_the_norm_computes(shape: tuple[int, ...], turns: Turns) -> None:
    norm, synchronised = norms()
    x = 5 + 2 * torch.randn(shape, dtype=torch.float64)
    for training in (True, False):
        found, expected = (passed(module.train(training), x, turns) for module in (synchronised, norm))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_low_precision_are_not_of_low_precision(dtype: torch.dtype) -> None:
    norm, synchronised = norms(torch.float32)
    x = (5 + 2 * torch.randn(4, 3, 5, 6)).to(dtype).contiguous(memory_format=torch.channels_last)
    found, expected = passed(synchronised, x, ONE_TURN), passed(norm, x, ONE_TURN)
    assert found["out"].dtype == dtype
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    for name in ("out", "x", "weight", "bias"):
        torch.testing.assert_close(found[name], expected[name], rtol=2e-2, atol=2e-2)


def test_a_network_keeps_its_parameters_keys_and_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.synchronised.num_processes", lambda: 2)
    net, twin = small_net().eval(), small_net().eval()
    net.backbone.stem.bn.train().requires_grad_(False)
    before = {name: value.data_ptr() for name, value in [*net.named_parameters(), *net.named_buffers()]}
    assert synchronise_norms(net) is net
    assert {name: value.data_ptr() for name, value in [*net.named_parameters(), *net.named_buffers()]} == before
    assert list(net.state_dict()) == list(twin.state_dict())
    kinds = {type(module) for module in net.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {SynchronisedBatchNorm}
    assert net.backbone.stem.bn.training
    assert not net.backbone.stem.bn.weight.requires_grad
    assert not net.backbone.blocks[0].residual.bn1.training
    twin.load_state_dict(net.state_dict())
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(net.eval()(image, ALL_BLOCKS), twin(image, ALL_BLOCKS), rtol=0, atol=0)


def test_where_there_is_one_process_nothing_is_synchronised() -> None:
    assert not any(isinstance(module, SynchronisedBatchNorm) for module in synchronise_norms(small_net()).modules())
