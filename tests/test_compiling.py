"""Compiled parts compute what they compute uncompiled."""

import copy
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor, nn

from models.compiling import COMPILERS, compile_parts, has_compiler
from models.dropout import ReluDropout
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet, build_network
from tests.test_checkpointing import HARD, SOFT, network, step
from utils.errors import UserError

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

needs_pytorch_2_5 = pytest.mark.skipif(
    torch.__version__.startswith("2.4."), reason="with PyTorch 2.4, checkpointing is not compiled"
)


def without_dropout(net: MultiTaskNet) -> None:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0


@pytest.mark.parametrize(
    ("backend", "checkpointing"),
    [
        ("eager", False),
        pytest.param("inductor", False, marks=pytest.mark.long),
        pytest.param("aot_eager", True, marks=[pytest.mark.long, needs_pytorch_2_5]),
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


@pytest.mark.long
def test_compiled_dropout_drops_one_half() -> None:
    torch.manual_seed(0)
    x = 1 + torch.rand(2, 8, 20, 20).to(memory_format=torch.channels_last)
    dropout = ReluDropout().train()
    dropout.compile(backend="inductor", dynamic=False)
    dropped = dropout(x.requires_grad_())
    dropped.sum().backward()
    kept = dropped != 0
    assert 0.45 < kept.float().mean() < 0.55
    torch.testing.assert_close(dropped, torch.where(kept, 2 * x, 0))
    torch.testing.assert_close(x.grad, 2.0 * kept)


@needs_pytorch_2_5
def test_what_a_backward_pass_computes_again_is_compiled_in_its_thread_too() -> None:
    def compiled_in(run: Callable[[Tensor], None]) -> int:
        """How many graphs, of a network in whose backward pass blocks are passed in many ways."""
        graphs = []
        net = network(checkpointing=True).train()
        compile_parts(net, lambda graph, _: graphs.append(graph) or graph.forward)
        run(sum(prediction.sum() for prediction in net(IMAGE, SOFT | HARD).values()))
        return len(graphs)

    def in_a_thread(loss: Tensor) -> None:
        thread = Thread(target=loss.backward)
        thread.start()
        thread.join()

    assert compiled_in(in_a_thread) == compiled_in(lambda loss: loss.backward())


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


@pytest.mark.parametrize("variable", COMPILERS)
def test_only_a_compiler_that_torch_would_use_counts(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    assert not has_compiler(variable)
    for name, found in (("c++", False), (COMPILERS[variable][-1], True)):
        (tmp_path / name).touch(mode=0o755)
        assert has_compiler(variable) == found
    monkeypatch.setenv(variable, "nothing")
    assert not has_compiler(variable)


def test_weights_keep_their_names_and_of_copies_the_prepared_are_compiled() -> None:
    net = network(checkpointing=False)
    names = list(net.state_dict())
    compile_parts(net, backend="aot_eager")
    assert list(net.state_dict()) == names
    assert net.heads["seg"]._compiled_call_impl is not None
    assert copy.deepcopy(net).heads["seg"]._compiled_call_impl is None
    prepared = prepare_for_inference(net, {"seg": [1] * 7 + [0], "depth": [1] * 7 + [0]}, "aot_eager")
    assert all(head._compiled_call_impl is not None for head in prepared.heads.values())


@pytest.mark.parametrize(("has_gpu", "variable", "language"), [(False, "CXX", "C\\+\\+"), (True, "CC", "C")])
def test_without_a_compiler_the_sentence_says_so(
    has_gpu: bool, variable: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with pytest.raises(UserError, match=f"a {language} compiler.*{variable} names"):
        compile_parts(network(checkpointing=False))
