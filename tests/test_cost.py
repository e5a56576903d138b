"""Cost: parameters and multiply-adds equal numbers counted by hand, and sharing is worth what it should be."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from envs.cost_report import cost_report
from models.compiling import compile_parts
from models.multitask import MultiTaskNet, build_network
from models.shared_paths import all_blocks
from utils.cost import Cost, measure_cost, without_data

OUTPUTS = {"seg": 5, "sn": 3, "depth": 1}
IMAGE = torch.zeros(1, 3, 32, 48)


class TinyNet(nn.Module):
    """One convolution that is used twice, a norm, a 1x1 convolution, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 2, 1)
        self.unused = nn.Conv2d(3, 100, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.norm(self.twice(self.twice(image))))


def test_a_tiny_network_by_hand() -> None:
    shadow = without_data(TinyNet())
    cost = measure_cost(shadow, lambda net: net(torch.empty(1, 3, 4, 5, device="meta")))
    assert cost.parameters == 3 * 3 * 9 + (3 + 3) + (3 * 2 + 2)
    assert cost.multiply_adds == 2 * (3 * 3 * 9) * 20 + (3 * 2) * 20


def test_measuring_changes_nothing() -> None:
    net = TinyNet().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    shadow = without_data(net)
    costs = [measure_cost(shadow, lambda net: net(torch.empty(2, 3, 4, 5, device="meta"))) for _ in range(2)]
    assert costs[0] == costs[1]
    assert all(module.training for module in net.modules())
    assert all(not module._forward_hooks for module in [*net.modules(), *shadow.modules()])
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_a_module_without_data_has_shapes_alone() -> None:
    shadow = without_data(TinyNet().train())
    assert {tensor.device.type for tensor in shadow.state_dict().values()} == {"meta"}
    assert shadow.unused.weight.shape == (100, 3, 3, 3)
    assert not any(module.training for module in shadow.modules())


def test_time_is_not_that_of_compiling() -> None:
    net, programs = build_network(backbone="ResNet18", num_outputs=OUTPUTS, backbone_width=4, head_width=4), []
    compile_parts(net, lambda program, _: programs.append(program) or program.forward)
    cost_report(net, all_blocks(OUTPUTS, 8), IMAGE)
    assert not programs


# ResNet18 of width 4 with ASPP heads of width 4, at 32x48, counted by hand.

STEM = Cost(parameters=3 * 4 * 49 + 2 * 4, multiply_adds=3 * 4 * 49 * 16 * 24)
# (input channels, output channels, pixels of the output) of each block
BLOCKS = [(4, 4, 9 * 13)] * 2 + [
    *[(4, 8, 5 * 7), (8, 8, 5 * 7)],
    *[(8, 16, 5 * 7), (16, 16, 5 * 7)],
    *[(16, 32, 5 * 7), (32, 32, 5 * 7)],
]


def residual_cost(block: int) -> Cost:
    in_channels, channels, pixels = BLOCKS[block]
    weights = 9 * channels * (in_channels + channels)
    return Cost(weights + 2 * 2 * channels, weights * pixels)


def shortcut_cost(block: int) -> Cost:
    in_channels, channels, pixels = BLOCKS[block]
    if in_channels == channels:
        return Cost(0, 0)
    return Cost(in_channels * channels + 2 * channels, in_channels * channels * pixels)


def head_cost(num_outputs: int) -> Cost:
    weights, biases = 9 * 32 * 4 + 4 * 4 + 4 * num_outputs, 4 + 4 + num_outputs
    return Cost(4 * (weights + biases), 4 * weights * 35)


def total(*costs: Cost) -> dict[str, int]:
    return {
        "parameters": sum(cost.parameters for cost in costs),
        "multiply_adds": sum(cost.multiply_adds for cost in costs),
    }


def path_cost(gates: list[int]) -> list[Cost]:
    """The blocks of one task's path: every shortcut, and the residuals that it executes."""
    return [shortcut_cost(block) for block in range(8)] + [
        residual_cost(block) for block, gate in enumerate(gates) if gate
    ]


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    return build_network(backbone="ResNet18", num_outputs=OUTPUTS, backbone_width=4, head_width=4)


def report(net: MultiTaskNet, gates: dict[str, list[int]]) -> dict[str, Any]:
    return cost_report(net, gates, IMAGE)


def counted(cost: dict[str, Any]) -> dict[str, int]:
    """What of a cost does not depend on the machine."""
    return {kind: cost[kind] for kind in ("parameters", "multiply_adds")}


def shares(cost: dict[str, int], full: dict[str, int]) -> dict[str, float]:
    return {kind: cost[kind] / full[kind] for kind in ("parameters", "multiply_adds")}


def test_a_task_alone_pays_for_what_it_executes(net: MultiTaskNet) -> None:
    gates = {"seg": [1, 0, 0, 1, 1, 0, 1, 0], "sn": [0] * 8}
    measured = report(net, gates)
    assert measured["input_size"] == [32, 48]
    assert measured["device"] == f"CPU, {torch.get_num_threads()} threads"
    for task, path in gates.items():
        by_hand = total(STEM, *path_cost(path), head_cost(OUTPUTS[task]))
        full = total(STEM, *path_cost([1] * 8), head_cost(OUTPUTS[task]))
        assert counted(measured["per_task"][task]) == by_hand
        assert measured["per_task"][task]["relative_to_single_task"] == shares(by_hand, full)


def test_tasks_together_share_until_their_gates_differ(net: MultiTaskNet) -> None:
    # One path up to block 3, where seg executes and sn skips; block 6 is then computed for each of them.
    gates = {"seg": [1, 0, 1, 1, 0, 0, 1, 0], "sn": [1, 0, 1, 0, 0, 0, 1, 1]}
    together = report(net, gates)["together"]
    heads = [head_cost(OUTPUTS["seg"]), head_cost(OUTPUTS["sn"])]
    blocks = path_cost([1, 0, 1, 1, 0, 0, 1, 1])
    twice = [shortcut_cost(4), shortcut_cost(6), residual_cost(6)]
    assert together["parameters"] == total(STEM, *blocks, *heads)["parameters"]
    assert together["multiply_adds"] == total(STEM, *blocks, *twice, *heads)["multiply_adds"]


def test_hard_sharing_pays_for_one_backbone_and_single_tasks_for_one_each(net: MultiTaskNet) -> None:
    measured = report(net, all_blocks(OUTPUTS, 8))
    backbone = [STEM, *path_cost([1] * 8)]
    heads = [head_cost(outputs) for outputs in OUTPUTS.values()]
    shared, single = total(*backbone, *heads), total(*3 * backbone, *heads)
    assert counted(measured["together"]) == shared
    assert counted(measured["single_task_networks"]) == single
    assert measured["together"]["relative_to_single_task"] == shares(shared, single)
    for task in OUTPUTS:
        assert measured["per_task"][task]["relative_to_single_task"] == {"parameters": 1, "multiply_adds": 1}


def test_single_task_networks_do_not_depend_on_the_gates(net: MultiTaskNet) -> None:
    skipping, executing = (report(net, {task: [gate] * 8 for task in OUTPUTS}) for gate in (0, 1))
    assert counted(skipping["single_task_networks"]) == counted(executing["single_task_networks"])
    assert skipping["together"]["relative_to_single_task"]["parameters"] < 0.5


def test_everything_is_timed_and_the_network_left_as_it_was(net: MultiTaskNet) -> None:
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measured = report(net, all_blocks(OUTPUTS, 8))
    assert torch.equal(torch.rand(1), expected)
    assert all(module.training for module in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert measured["per_task"].keys() == OUTPUTS.keys()
    for cost in (*measured["per_task"].values(), measured["together"], measured["single_task_networks"]):
        assert cost["seconds"] > 0


def test_together_never_costs_more_than_one_by_one(net: MultiTaskNet) -> None:
    random = np.random.RandomState(0)
    for _ in range(3):
        gates = {task: random.randint(0, 2, 8).tolist() for task in OUTPUTS}
        measured = report(net, gates)
        for kind in ("parameters", "multiply_adds"):
            together = measured["together"][kind]
            one_by_one = [cost[kind] for cost in measured["per_task"].values()]
            assert max(one_by_one) < together < sum(one_by_one)


def test_cost_is_that_of_shared_paths_however_the_network_is_trained() -> None:
    gates = {"seg": [1, 0, 1, 0, 0, 1, 0, 1], "sn": [1, 0, 0, 1, 0, 1, 0, 0]}
    reports = []
    for options in ({}, {"execution": "task_by_task"}, {"checkpointing": True}):
        net = build_network(
            backbone="ResNet18",
            num_outputs={"seg": 4, "sn": 3},
            backbone_width=4,
            head_width=4,
            **options,
        )
        report = cost_report(net, gates, IMAGE)
        reports.append({key: report["together"][key] for key in ("parameters", "multiply_adds")})
    assert reports[0] == reports[1] == reports[2]
