"""Shared paths equal one task after the other, and compute no block twice or for nothing."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.multitask import MultiTaskNet, build_network
from models.shared_paths import Gates, all_blocks, decided
from tests.parity_inputs import policies

KINDS = ("hard", "soft", "mixed")


def small_network(num_tasks: int, seed: int = 0, backbone: str = "ResNet18") -> MultiTaskNet:
    """Narrow, in float64 so that rounding does not hide errors, with BatchNorms that matter."""
    torch.manual_seed(seed)
    tasks = {f"task{k}": 2 for k in range(num_tasks)}
    net = build_network(backbone=backbone, num_outputs=tasks, backbone_width=4, head_width=4)
    for name, parameter in net.backbone.named_parameters():
        if "conv" in name:
            nn.init.normal_(parameter, 0, 0.3)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    return net.double()


def random_gates(net: MultiTaskNet, kind: str, seed: int) -> Gates:
    """Per task and block 0 or 1 (hard), a number between (soft), or any of them with a common start (mixed)."""
    random = np.random.RandomState(seed)
    gates = dict(zip(net.heads, policies(seed, len(net.heads), net.num_blocks), strict=True))
    if kind == "hard":
        return gates
    soft = {task: [torch.tensor(value, dtype=torch.float64) for value in random.rand(net.num_blocks)] for task in gates}
    if kind == "soft":
        return soft
    closed = net.num_blocks // 2
    return {task: [*gates[task][:closed], *soft[task][closed:]] for task in gates}


def one_by_one(net: MultiTaskNet, image: Tensor, gates: Gates) -> dict[str, Tensor]:
    """The network run once per task, blocks that its gates skip left out: the plainest way to the same end."""
    predictions = {}
    for task, path in gates.items():
        x = net.backbone.stem(image)
        for block, gate in zip(net.backbone.blocks, path, strict=True):
            shortcut = block.shortcut(x)
            if isinstance(gate, int) and gate == 0:
                x = shortcut
            else:
                x = gate * torch.relu(shortcut + block.residual(x)) + (1 - gate) * shortcut
        predictions[task] = net.heads[task](x)
    return predictions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_tasks", range(1, 9))
def test_evaluation_equals_task_by_task(num_tasks: int, kind: str) -> None:
    net = small_network(num_tasks).eval()
    every_block = build_twin(net, "task_by_task").eval()
    image = torch.randn(2, 3, 33, 41, dtype=torch.float64)
    for seed in range(3):
        gates = random_gates(net, kind, seed)
        shared = net(image, gates)
        for other in (one_by_one(net, image, gates), every_block(image, gates)):
            assert list(shared) == list(other)
            for task in gates:
                torch.testing.assert_close(shared[task], other[task], rtol=1e-5, atol=1e-12)


def build_twin(net: MultiTaskNet, execution: str) -> MultiTaskNet:
    tasks = dict.fromkeys(net.heads, 2)
    twin = build_network(
        backbone="ResNet18", num_outputs=tasks, backbone_width=4, head_width=4, execution=execution
    ).double()
    twin.load_state_dict(net.state_dict())
    return twin


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_tasks", range(1, 9))
def test_training_equals_task_by_task(num_tasks: int, kind: str) -> None:
    """Outputs, gradients of weights, and running statistics, over two steps."""
    shared, apart = small_network(num_tasks).train(), None
    apart = copy.deepcopy(shared)
    gates = random_gates(shared, kind, seed=num_tasks)
    for step in range(2):
        torch.manual_seed(step)
        image = torch.randn(2, 3, 33, 41, dtype=torch.float64)
        for net, predict in ((shared, shared), (apart, lambda image, gates: one_by_one(apart, image, gates))):
            net.zero_grad()
            sum(prediction.square().sum() for prediction in predict(image, gates).values()).backward()
        for (name, one), other in zip(shared.named_parameters(), apart.parameters(), strict=True):
            if one.grad is None or other.grad is None:
                assert one.grad is None, name
                assert other.grad is None, name
            else:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-9)
        for (name, one), other in zip(shared.named_buffers(), apart.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}")
    assert any(buffer.abs().sum() > 0 for name, buffer in shared.named_buffers() if "running_mean" in name)


def test_gradients_reach_the_gates() -> None:
    net = small_network(3).train()
    twin = build_twin(net, "task_by_task").train()
    for head in (net.heads, twin.heads):
        head.eval()
    image = torch.randn(2, 3, 33, 41, dtype=torch.float64)
    gradients = []
    for network in (net, twin):
        torch.manual_seed(4)
        logits = list(network.policy.logits.values())
        gates = network.policy.draw_gates(temperature=1.0, num_open=5)
        loss = sum(prediction.square().sum() for prediction in network(image, gates).values())
        gradients.append(torch.autograd.grad(loss, logits))
    for shared, apart in zip(*gradients, strict=True):
        assert (shared[-5:] != 0).all()
        assert (shared[:-5] == 0).all()
        torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-9)


class Calls:
    """Counts how often each block's parts run, and on which inputs."""

    def __init__(self, net: MultiTaskNet) -> None:
        self.inputs: dict[str, list[Tensor]] = {}
        for index, block in enumerate(net.backbone.blocks):
            for part in ("residual", "shortcut"):
                getattr(block, part).register_forward_hook(self.recorder(f"{part}{index}"))
        net.backbone.stem.register_forward_hook(self.recorder("stem"))

    def recorder(self, name: str):
        def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.inputs.setdefault(name, []).append(inputs[0])

        return record

    def count(self, name: str) -> int:
        return len(self.inputs.get(name, []))


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 5, 8])
def test_no_block_runs_twice_on_one_input_and_skipped_blocks_not_at_all(num_tasks: int) -> None:
    net = small_network(num_tasks).eval()
    for seed in range(5):
        gates = random_gates(net, "hard", seed)
        calls = Calls(copy_with_hooks := copy.deepcopy(net))
        copy_with_hooks(torch.randn(1, 3, 33, 41, dtype=torch.float64), gates)
        assert calls.count("stem") == 1
        for block in range(net.num_blocks):
            # Tasks with the same gates so far have the same input.
            executing = {tuple(path[:block]) for path in gates.values() if path[block] == 1}
            reaching = {tuple(path[:block]) for path in gates.values()}
            assert calls.count(f"residual{block}") == len(executing)
            assert calls.count(f"shortcut{block}") == len(reaching)
        for inputs in calls.inputs.values():
            assert max(Counter(map(id, inputs)).values()) == 1


def test_a_block_that_all_skip_is_not_computed() -> None:
    net = small_network(3).train()
    gates = {task: [1, 0, 1, 1, 0, 0, 1, 0] for task in net.heads}
    calls = Calls(net)
    predictions = net(torch.randn(1, 3, 33, 41, dtype=torch.float64), gates)
    assert [calls.count(f"residual{block}") for block in range(8)] == [1, 0, 1, 1, 0, 0, 1, 0]
    assert net.backbone.blocks[1].residual.bn1.num_batches_tracked == 0
    sum(prediction.sum() for prediction in predictions.values()).backward()
    assert net.backbone.blocks[1].residual.conv1.weight.grad is None


def test_the_closed_blocks_of_the_curriculum_run_once_for_all_tasks() -> None:
    net = small_network(4).train()
    calls = Calls(net)
    net(torch.randn(1, 3, 33, 41, dtype=torch.float64), net.policy.draw_gates(5.0, num_open=2))
    assert [calls.count(f"residual{block}") for block in range(8)] == [1] * 7 + [4]


def test_running_statistics_count_a_batch_once_per_task() -> None:
    net = small_network(3).train()
    stem = net.backbone.stem.bn
    image = torch.randn(2, 3, 33, 41, dtype=torch.float64)
    net(image, all_blocks(net.heads, net.num_blocks))
    expected = torch.zeros(4, dtype=torch.float64)
    features = net.backbone.stem.conv(image)
    for _ in range(3):
        expected = 0.9 * expected + 0.1 * features.mean(dim=(0, 2, 3))
    torch.testing.assert_close(stem.running_mean, expected)
    assert stem.num_batches_tracked == 3


def test_tasks_can_be_run_alone() -> None:
    net = small_network(3).eval()
    gates = random_gates(net, "hard", 2)
    image = torch.randn(1, 3, 33, 41, dtype=torch.float64)
    together = net(image, gates)
    alone = net(image, {"task1": gates["task1"]})
    assert list(alone) == ["task1"]
    torch.testing.assert_close(alone["task1"], together["task1"])


def test_decided_gates_give_what_their_tensors_give() -> None:
    net = small_network(2).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = net.policy.draw_hard_gates(1.0, num_open=8)
    image = torch.randn(1, 3, 33, 41, dtype=torch.float64)
    for task, prediction in net(image, decided(drawn)).items():
        torch.testing.assert_close(prediction, net(image, drawn)[task])


class CountScalars(TorchDispatchMode):
    """Counts the tensors that are turned into numbers one by one."""

    count = 0

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_gates_are_decided_in_their_order_and_without_a_wait_for_each() -> None:
    path = [1, torch.tensor(0.0), torch.tensor(1.0, requires_grad=True), 0]
    gates = {"seg": path, "sn": path[::-1], "depth": [0, 1, 1, 0]}
    with CountScalars() as scalars:
        decisions = decided(gates)
    assert decisions == {"seg": [1, 0, 1, 0], "sn": [0, 1, 0, 1], "depth": [0, 1, 1, 0]}
    assert all(type(gate) is int for path in decisions.values() for gate in path)
    assert scalars.count == 0


@pytest.mark.parametrize("backbone", ["ResNet34", "ResNet50", "ResNet101"])
def test_every_backbone_runs_by_shared_paths(backbone: str) -> None:
    net = small_network(2, backbone=backbone).eval()
    gates = random_gates(net, "hard", 1)
    image = torch.randn(1, 3, 33, 41, dtype=torch.float64)
    expected = one_by_one(net, image, gates)
    for task, prediction in net(image, gates).items():
        assert prediction.shape == (1, 2, 5, 6)
        torch.testing.assert_close(prediction, expected[task], rtol=1e-5, atol=1e-12)


def test_bottlenecks_keep_their_norms_scale_and_shift() -> None:
    net = small_network(1, backbone="ResNet50")
    norms = [m for m in net.backbone.blocks[0].residual.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    assert net.backbone.stem.bn.weight.requires_grad
