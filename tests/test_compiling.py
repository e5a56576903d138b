"""Compiled parts compute what they compute uncompiled."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from models.compiling import COMPILER, compile_parts, has_compiler
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet, build_network
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
        pytest.param(
            "aot_eager",
            True,
            marks=[
                pytest.mark.long,
                pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="refused with PyTorch 2.4"),
            ],
        ),
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


def test_many_tasks_with_inputs_of_their_own_are_compiled() -> None:
    tasks = {f"task{number}": 2 for number in range(6)}
    gates = {task: [1] * 4 for task in tasks}
    predictions = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = build_network(backbone="VDCNN9", kind="text", num_outputs=tasks, backbone_width=4, num_words=30).train()
        if compiled:
            compile_parts(net, "eager")
        words = {task: torch.randint(30, (2, 16), generator=torch.Generator().manual_seed(3)) for task in tasks}
        predictions.append(net(words, gates))
    torch.testing.assert_close(predictions[1], predictions[0])


def test_only_what_the_compiler_of_torch_is_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not has_compiler()
    for name, found in (("c++", False), (COMPILER, True)):
        (tmp_path / name).touch(mode=0o755)
        assert has_compiler() == found
    monkeypatch.setenv("CXX", "nothing")
    assert not has_compiler()


def test_weights_keep_their_names_and_of_copies_the_prepared_are_compiled() -> None:
    net = network(checkpointing=False)
    names = list(net.state_dict())
    compile_parts(net, backend="aot_eager")
    assert list(net.state_dict()) == names
    assert net.heads["seg"]._compiled_call_impl is not None
    assert copy.deepcopy(net).heads["seg"]._compiled_call_impl is None
    prepared = prepare_for_inference(net, {"seg": [1] * 7 + [0], "depth": [1] * 7 + [0]})
    assert all(head._compiled_call_impl is not None for head in prepared.heads.values())


def test_without_a_compiler_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        compile_parts(network(checkpointing=False))
