"""Compiled parts compute what they compute uncompiled."""

import copy

import pytest
import torch
from torch import nn

from models.compiling import compile_parts
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet
from tests.test_checkpointing import HARD, SOFT, network, step
from utils.errors import UserError

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def without_dropout(net: MultiTaskNet) -> None:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0


@pytest.mark.parametrize(
    ("backend", "checkpointing"),
    [
        ("eager", False),
        pytest.param("inductor", False, marks=pytest.mark.long),
        pytest.param("aot_eager", True, marks=pytest.mark.long),
    ],
)
def test_compiled_parts_learn_as_uncompiled_ones(backend: str, checkpointing: bool) -> None:
    plain, compiled = network(checkpointing), network(checkpointing)
    for net in (plain, compiled):
        without_dropout(net)  # compiled, other bits are drawn
    compile_parts(compiled, backend)
    expected, found = (step(net, IMAGE, SOFT | HARD) for net in (plain, compiled))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        value = value.detach()
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()), msg=name)


def test_weights_keep_their_names_and_copies_are_not_compiled() -> None:
    net = network(checkpointing=False)
    names = list(net.state_dict())
    compile_parts(net, backend="aot_eager")
    assert list(net.state_dict()) == names
    assert net.heads["seg"]._compiled_call_impl is not None
    for other in (copy.deepcopy(net), prepare_for_inference(net, {"seg": [1] * 8, "depth": [1] * 8})):
        assert other.heads["seg"]._compiled_call_impl is None


def test_without_a_compiler_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        compile_parts(network(checkpointing=False))
