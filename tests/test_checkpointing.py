"""Activation checkpointing: the same results, and less is kept for the backward pass."""

import pytest
import torch
from torch import Tensor

from models.checkpointing import segment_lengths
from models.multitask import MultiTaskNet, build_network
from models.shared_paths import Gates

SOFT = {"seg": [1, 1, 1, 0, 1, torch.tensor(0.3), torch.tensor(0.6), torch.tensor(0.9)]}
HARD = {"depth": [1, 0, 1, 1, 0, 0, 1, 1]}


def network(checkpointing: bool, task_bn: bool = False, kind: str = "dense") -> MultiTaskNet:
    torch.manual_seed(0)
    net = build_network(
        backbone="VDCNN17" if kind == "text" else "ResNet18",
        kind=kind,
        num_outputs={"seg": 4, "depth": 1},
        backbone_width=8,
        head_width=16,
        num_words=30,
        task_bn=task_bn,
        checkpointing=checkpointing,
    )
    return net.train()


def step(net: MultiTaskNet, inputs: Tensor, gates: Gates) -> dict[str, Tensor]:
    """Predictions, then all gradients and all statistics after a backward pass."""
    torch.manual_seed(7)
    predictions = net(inputs, gates)
    sum(prediction.square().sum() for prediction in predictions.values()).backward()
    gradients = {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {**predictions, **gradients, **dict(net.named_buffers())}


@pytest.mark.parametrize(("kind", "task_bn"), [("dense", False), ("classification", True), ("text", False)])
def test_predictions_gradients_and_statistics_are_the_same_to_the_last_bit(kind: str, task_bn: bool) -> None:
    torch.manual_seed(1)
    inputs = torch.randint(30, (2, 16)) if kind == "text" else torch.randn(2, 3, 64, 64)
    plain, checkpointed = (step(network(saves, task_bn, kind), inputs, SOFT | HARD) for saves in (False, True))
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert any("num_batches_tracked" in name and (value > 0).all() for name, value in plain.items())


def kept_bytes(net: MultiTaskNet, image: Tensor) -> int:
    """What autograd keeps for the backward pass, weights included, each memory once."""
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        predictions = net(image, SOFT | HARD)
    del predictions
    return sum(kept.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    image = torch.randn(4, 3, 128, 128)
    plain, checkpointed = (kept_bytes(network(saves), image) for saves in (False, True))
    assert checkpointed < plain / 2


def test_a_shortcut_that_projects_is_computed_again_as_blocks_are() -> None:
    net, computed = network(checkpointing=True), []
    net.backbone.blocks[2].shortcut.conv.register_forward_hook(lambda *_: computed.append(1))
    net(torch.randn(2, 3, 64, 64), HARD)["depth"].sum().backward()
    assert len(computed) == 3, "with its segment, then by itself"


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 7, 8, 16, 33])
def test_segments_hold_all_blocks_and_none_keeps_more_than_it_must(num_blocks: int) -> None:
    lengths = segment_lengths(num_blocks)
    assert sum(lengths) == num_blocks
    assert min(lengths) > 0
    kept = max(number + length for number, length in enumerate(lengths))
    # So many beginnings and blocks at once, if each segment has one block less than the one before.
    assert kept * (kept - 1) / 2 < num_blocks <= kept * (kept + 1) / 2


def test_a_block_is_computed_again_in_the_backward_pass_alone() -> None:
    net, computed = network(checkpointing=True), []
    net.backbone.blocks[0].residual.register_forward_hook(lambda *_: computed.append(1))
    predictions = net(torch.randn(2, 3, 64, 64), HARD)
    assert len(computed) == 1
    predictions["depth"].sum().backward()
    assert len(computed) == 3, "with its segment, then by itself"
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64), HARD)
    assert len(computed) == 4
