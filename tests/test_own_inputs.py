"""Tasks with inputs of their own, and with BatchNorms of their own: each is as if it were alone with the weights."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from models.multitask import MultiTaskNet, build_network
from models.shared_paths import HardGates, group_by_tensor
from tests.parity_inputs import policies

TASKS = ("real", "sketch", "clipart")
SIZES = {"real": 3, "sketch": 2, "clipart": 4}


def network(kind: str = "classification", task_bn: bool = False, tasks: tuple[str, ...] = TASKS) -> MultiTaskNet:
    """Narrow, in float64 so that rounding does not hide errors, with weights that matter."""
    torch.manual_seed(3)
    net = build_network(
        kind=kind,
        backbone="VDCNN9" if kind == "text" else "ResNet18",
        num_outputs=dict.fromkeys(tasks, 5),
        backbone_width=4,
        head_width=4,
        num_words=30,
        task_bn=task_bn,
    )
    for name, parameter in net.backbone.named_parameters():
        if "conv" in name:
            nn.init.normal_(parameter, 0, 0.3)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    return net.double()


def own_inputs(kind: str, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    if kind == "text":
        return {task: torch.randint(0, 30, (size, 24)) for task, size in SIZES.items()}
    return {task: torch.randn(size, 3, 32, 40, dtype=torch.float64) for task, size in SIZES.items()}


def some_gates(net: MultiTaskNet) -> HardGates:
    return dict(zip(TASKS, policies(2, len(TASKS), net.num_blocks), strict=True))


def one_by_one(net: MultiTaskNet, inputs: dict[str, Tensor], gates: HardGates) -> dict[str, Tensor]:
    """The whole network, task after task."""
    predictions = {}
    for task, path in gates.items():
        x = net.backbone.stem(inputs[task])
        for block, gate in zip(net.backbone.blocks, path, strict=True):
            x = torch.relu(block.shortcut(x) + block.residual(x)) if gate else block.shortcut(x)
        predictions[task] = net.heads[task](net.backbone.summarise(x, inputs[task]))
    return predictions


@pytest.mark.parametrize("kind", ["dense", "classification", "text"])
@pytest.mark.parametrize("training", [True, False])
def test_each_task_sees_its_own_inputs_alone(kind: str, training: bool) -> None:
    """Predictions, and in training the running statistics of the norms that all go through, equal one by one."""
    together = network(kind).train(training)
    apart = copy.deepcopy(together)
    gates = some_gates(together)
    for step in range(2):
        inputs = own_inputs(kind, step)
        found, expected = together(inputs, gates), one_by_one(apart, inputs, gates)
        for task in TASKS:
            assert len(found[task]) == SIZES[task]
            torch.testing.assert_close(found[task], expected[task], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dict(together.named_buffers()), dict(apart.named_buffers()), rtol=1e-9, atol=1e-12)


def test_one_image_is_the_same_whether_it_is_given_once_or_to_every_task() -> None:
    net = network("dense").eval()
    image, gates = torch.randn(2, 3, 32, 40, dtype=torch.float64), some_gates(net)
    once, by_task = net(image, gates), net(dict.fromkeys(TASKS, image), gates)
    torch.testing.assert_close(once, by_task, rtol=0, atol=0)


def test_tasks_with_the_very_same_tensor_share_its_computation() -> None:
    """Two tasks look at one image, the third at another: the stem runs twice."""
    net, calls = network("dense").eval(), []
    net.backbone.stem.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    image, other = torch.randn(2, 2, 3, 32, 40, dtype=torch.float64).unbind()
    net({"real": image, "sketch": other, "clipart": image}, some_gates(net))
    assert [call is image for call in calls] == [True, False]


def test_groups_are_of_the_same_tensor_not_of_equal_values() -> None:
    one, equal = torch.ones(2), torch.ones(2)
    groups = group_by_tensor({"a": one, "b": equal, "c": one})
    assert [tasks for _, tasks in groups] == [["a", "c"], ["b"]]


def test_only_tasks_with_gates_are_predicted() -> None:
    net = network().eval()
    inputs = own_inputs("classification")
    assert list(net(inputs, {"sketch": [1] * 8})) == ["sketch"]


# BatchNorms of every task's own


def alone(net: MultiTaskNet, task: str) -> MultiTaskNet:
    """A network for one task, without `task_bn`, with the weights of `net` and the norms of the task."""
    single = network(tasks=(task,))
    own = {re.sub(rf"\.norms\.{task}\.", ".", key): value for key, value in net.state_dict().items()}
    single.load_state_dict({key: value for key, value in own.items() if key in single.state_dict()})
    return single


@pytest.mark.parametrize("common_image", [True, False])
def test_norms_of_its_own_make_a_task_independent_of_what_the_others_see(common_image: bool) -> None:
    net = network(task_bn=True).train()
    gates, inputs = some_gates(net), own_inputs("classification")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    singles = {task: alone(net, task).train() for task in TASKS}
    found = net(inputs["real"] if common_image else inputs, gates)
    for task, single in singles.items():
        expected = single(inputs["real" if common_image else task], {task: gates[task]})[task]
        torch.testing.assert_close(found[task], expected, rtol=1e-9, atol=1e-12)
        after = alone(net, task).state_dict()
        torch.testing.assert_close(dict(single.state_dict()), dict(after), rtol=1e-9, atol=1e-12)


def test_weights_are_shared_where_norms_are_not() -> None:
    names = dict(network(task_bn=True).named_parameters())
    assert "backbone.blocks.0.residual.bn1.norms.sketch.weight" in names
    assert "backbone.blocks.2.shortcut.bn.norms.real.bias" in names
    assert "backbone.stem.bn.norms.clipart.weight" in names
    assert sum("conv1.weight" in name for name in names) == 8


def test_both_executions_agree_with_norms_of_every_tasks_own() -> None:
    shared = network(task_bn=True).eval()
    by_task = build_network(
        kind="classification",
        backbone="ResNet18",
        num_outputs=dict.fromkeys(TASKS, 5),
        backbone_width=4,
        task_bn=True,
        execution="task_by_task",
    )
    by_task.double().eval().load_state_dict(shared.state_dict())
    inputs, gates = own_inputs("classification"), some_gates(shared)
    torch.testing.assert_close(shared(inputs, gates), by_task(inputs, gates), rtol=1e-9, atol=1e-12)
