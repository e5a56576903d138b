"""The released names: every weight finds its place in both directions, and sampled policies become gates."""

from pathlib import Path

import pytest
import torch

from models.multitask import MultiTaskNet, build_network
from models.release import from_release, gates_from_release, is_release_state, release_names
from utils.checkpoint import load_weights
from utils.errors import UserError

STAGE_LENGTHS = {
    "ResNet18": (2, 2, 2, 2),
    "ResNet34": (3, 4, 6, 3),
    "ResNet50": (3, 4, 6, 3),
    "ResNet101": (3, 4, 23, 3),
}


def small_net(backbone: str, *tasks: str) -> MultiTaskNet:
    num_outputs = {task: number for number, task in enumerate(tasks, start=1)}
    return build_network(backbone=backbone, num_outputs=num_outputs, backbone_width=4, head_width=4)


def one_hot(gates: list[int]) -> torch.Tensor:
    """[L, 2], column 0 = execute."""
    return torch.tensor([[gate, 1 - gate] for gate in gates])


@pytest.mark.parametrize("backbone", STAGE_LENGTHS)
def test_a_state_survives_the_way_to_the_released_names_and_back(backbone: str) -> None:
    net = small_net(backbone, "seg", "sn")
    names = release_names(net)
    released = {names[key]: value for key, value in net.state_dict().items()}
    assert len(released) == len(names)
    assert is_release_state(released)
    assert not is_release_state(net.state_dict())

    other = small_net(backbone, "seg", "sn")
    other.load_state_dict(from_release(released, other), strict=True)
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("backbone", STAGE_LENGTHS)
def test_blocks_are_counted_within_their_stage(backbone: str) -> None:
    names = release_names(small_net(backbone, "seg"))
    places = [(stage, position) for stage, length in enumerate(STAGE_LENGTHS[backbone]) for position in range(length)]
    for index, (stage, position) in enumerate(places):
        ours, released = f"backbone.blocks.{index}.residual", f"backbone.blocks.{stage}.{position}"
        assert names[f"{ours}.conv1.weight"] == f"{released}.conv1.weight"
        assert names[f"{ours}.bn2.running_var"] == f"{released}.bn2.running_var"
        assert (f"{ours}.conv3.weight" in names) == (backbone in ("ResNet50", "ResNet101"))


@pytest.mark.parametrize("backbone", STAGE_LENGTHS)
def test_shortcuts_bear_the_number_of_their_stage(backbone: str) -> None:
    released = set(release_names(small_net(backbone, "seg")).values())
    # A bottleneck's first stage widens its input, a basic block's does not.
    stages = (0, 1, 2, 3) if backbone in ("ResNet50", "ResNet101") else (1, 2, 3)
    shortcuts = {f"backbone.ds.{stage}.{part}" for stage in stages for part in ("0.weight", "1.running_mean")}
    endings = (".0.weight", ".1.running_mean")
    assert {name for name in released if name.startswith("backbone.ds.") and name.endswith(endings)} == shortcuts


def test_stem_heads_and_logits_have_the_released_names() -> None:
    names = release_names(small_net("ResNet18", "depth", "seg"))
    assert names["backbone.stem.conv.weight"] == "backbone.conv1.weight"
    assert names["backbone.stem.bn.num_batches_tracked"] == "backbone.bn1.num_batches_tracked"
    assert names["policy.logits.depth"] == "task1_logits"
    assert names["policy.logits.seg"] == "task2_logits"
    assert names["heads.depth.branches.0.conv1.weight"] == "task1_fc1_c0.conv1.weight"
    assert names["heads.seg.branches.3.conv3.bias"] == "task2_fc1_c3.conv3.bias"


def test_keys_that_do_not_belong_keep_their_names_and_are_listed() -> None:
    net = small_net("ResNet18", "seg")
    names = release_names(net)
    released = {names[key]: value for key, value in net.state_dict().items()}
    released["task2_logits"] = torch.zeros(8, 2)
    released["backbone.fc.weight"] = torch.zeros(1)
    del released["backbone.ds.1.0.weight"]
    state = from_release(released, net)
    with pytest.raises(UserError) as error:
        load_weights(net, state, Path("released.pth.tar"))
    assert "2 unknown: backbone.fc.weight, task2_logits" in str(error.value)
    assert "1 missing: backbone.blocks.2.shortcut.conv.weight" in str(error.value)


def test_policies_go_to_the_tasks_by_their_number() -> None:
    tasks = [f"task called {letter}" for letter in "kjihgfedcba"]  # 11: number 10 comes after 2
    rows = [[int(bit) for bit in f"{number:05b}"] for number in range(1, 12)]
    policies = {f"task{number}_policy": one_hot(row) for number, row in enumerate(rows, start=1)}
    shuffled = dict(sorted(policies.items(), reverse=True))
    gates = gates_from_release(shuffled, tasks)
    assert gates == dict(zip(tasks, rows, strict=True))
    assert list(gates) == tasks


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8, torch.bool])
def test_gates_are_plain_numbers_whatever_the_type(dtype: torch.dtype) -> None:
    gates = gates_from_release({"task1_policy": one_hot([1, 0, 0]).to(dtype)}, ["seg"])
    assert gates == {"seg": [1, 0, 0]}
    assert all(type(gate) is int for gate in gates["seg"])


@pytest.mark.parametrize(
    "names", [["task1_policy"], ["task0_policy", "task1_policy"], ["task1_policy", "task2_policy", "task3_policy"]]
)
def test_policies_of_other_tasks_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"expected \['task1_policy', 'task2_policy'\]"):
        gates_from_release(dict.fromkeys(names, one_hot([1, 0])), ["seg", "sn"])


@pytest.mark.parametrize(
    "policy",
    [
        torch.tensor([[1, 1], [0, 1]]),
        torch.tensor([[0, 0], [0, 1]]),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([[2, -1]]),
        torch.tensor([[float("nan"), 1]]),
        torch.tensor([1, 0]),
        torch.tensor([[1, 0, 0]]),
        torch.tensor([[[1, 0]]]),
        torch.tensor(1),
    ],
)
def test_policies_that_are_not_one_hot_are_refused(policy: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"task2_policy .* one-hot"):
        gates_from_release({"task1_policy": one_hot([1]), "task2_policy": policy}, ["seg", "sn"])
