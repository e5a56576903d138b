"""Networks prepared for inference predict what the network itself does, with less."""

import pytest
import torch
from torch import Tensor, nn

from models.blocks import SharedBatchNorm
from models.inference import FasterConv, prepare_for_inference
from models.multitask import MultiTaskNet, build_network
from models.winograd import WinogradConv, has_winograd_form
from tests.parity_inputs import seeded
from utils.precision import PRECISIONS

GATES = {"seg": [1, 0, 0, 1, 0, 1, 1, 0], "depth": [1, 1, 0, 0, 0, 1, 0, 1]}
"""Blocks 2 and 4 (a stage's first), counted from 0, are dead."""


def network(
    kind: str = "dense", width: int = 8, task_bn: bool = False, precision: str = "fp32", execution: str = "shared"
) -> MultiTaskNet:
    net = build_network(
        backbone="VDCNN17" if kind == "text" else "ResNet18",
        kind=kind,
        num_outputs={"seg": 5, "depth": 1},
        backbone_width=width,
        head_width=16,
        num_words=30,
        task_bn=task_bn,
        precision=precision,
        execution=execution,
    )
    net.load_state_dict({key: torch.from_numpy(seeded(key, value.shape)) for key, value in net.state_dict().items()})
    return net


def inputs(kind: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(1, 30, (2, 32)) if kind == "text" else 50 * torch.randn(2, 3, 96, 128)


@pytest.mark.parametrize(
    ("kind", "task_bn", "execution"),
    [
        ("dense", False, "shared"),
        ("classification", False, "shared"),
        ("classification", True, "shared"),
        ("classification", True, "task_by_task"),
        ("text", False, "task_by_task"),
    ],
)
@torch.inference_mode()
def test_predictions_are_the_networks_own(kind: str, task_bn: bool, execution: str) -> None:
    net, seen = network(kind, task_bn=task_bn, execution=execution).eval(), inputs(kind)
    expected, prepared = net(seen, GATES), prepare_for_inference(net, GATES)
    for gates in (GATES, {"depth": GATES["depth"]}):
        predictions = prepared(seen, gates)
        assert predictions.keys() == gates.keys()
        for task, prediction in predictions.items():
            assert (prediction - expected[task]).abs().max() < 1e-5 * expected[task].abs().max()


@pytest.mark.parametrize("kind", ["classification", "text"])
@torch.inference_mode()
def test_tasks_with_inputs_of_their_own_share_batches_but_not_predictions(kind: str) -> None:
    net = network(kind).eval()
    prepared = prepare_for_inference(net, GATES)
    batches: list[int] = []
    for block in prepared.backbone.blocks:
        if hasattr(block, "residual"):
            block.residual.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    one, two = inputs(kind), inputs(kind).flip(0)
    for own in ({"seg": one, "depth": two[:1]}, {"seg": one, "depth": two[..., :64]}, {"depth": two}):
        gates = {task: GATES[task] for task in own}
        expected, predictions = net(own, gates), prepared(own, gates)
        for task, prediction in predictions.items():
            assert (prediction - expected[task]).abs().max() < 1e-5 * expected[task].abs().max()
    assert batches[:5] == [3, 1, 2, 3, 2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_norms_and_dead_blocks_are_gone_and_the_network_is_as_it_was(precision: str) -> None:
    net = network(precision=precision)
    before, training = {key: value.clone() for key, value in net.state_dict().items()}, net.training
    prepared = prepare_for_inference(net, GATES)
    assert not any(isinstance(module, SharedBatchNorm) for module in prepared.modules())
    assert [index for index, block in enumerate(prepared.backbone.blocks) if not hasattr(block, "residual")] == [2, 4]
    assert net.training == training
    assert all(weight.requires_grad for weight in net.parameters())
    assert not any(weight.requires_grad for weight in prepared.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(value.dtype == before[key].dtype for key, value in net.state_dict().items())


def test_weights_that_stay_as_they_are_are_not_copied() -> None:
    def places(net: MultiTaskNet) -> set[int]:
        return {weight.data_ptr() for weight in net.heads.parameters()}

    net = network()
    assert places(prepare_for_inference(net, GATES)) == places(net)


@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
@torch.inference_mode()
def test_wide_convolutions_become_winograds_on_maps_of_a_size_that_pays(weights: torch.dtype) -> None:
    net = network(width=64).eval().to(weights)
    prepared = prepare_for_inference(net, GATES)
    seen = 50 * torch.randn(1, 3, 224, 224, dtype=weights)
    expected, predictions = net(seen, GATES), prepared(seen, GATES)
    used = [module for module in prepared.modules() if isinstance(module, WinogradConv)]
    convolutions = [module for module in prepared.modules() if isinstance(module, FasterConv)]
    assert 0 < len(used) < len(convolutions)
    for task, prediction in predictions.items():
        assert (prediction - expected[task]).abs().max() < 1e-4 * expected[task].abs().max()


@torch.inference_mode()
def test_bf16_stays_bf16_and_close() -> None:
    net, seen = network(precision="bf16").eval(), inputs("dense")
    prepared = prepare_for_inference(net, GATES)
    assert prepared.precision == PRECISIONS["bf16"]
    exact = network().eval()(seen, GATES)
    for task, prediction in prepared(seen, GATES).items():
        assert 1e-4 < (prediction - exact[task]).abs().max() / exact[task].abs().max() < 2e-2


def test_rounded_weights_are_rounded_once_but_for_those_of_the_last_layers() -> None:
    prepared = prepare_for_inference(network(precision="bf16"), GATES)
    branch = prepared.heads["seg"].branches[0]
    kinds = [layer.weight.dtype for layer in (prepared.backbone.stem.conv, branch.conv1, branch.conv2, branch.conv3)]
    assert kinds == [torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.float32]
    of_classes = prepare_for_inference(network("classification", precision="bf16"), GATES)
    assert of_classes.heads["seg"].weight.dtype == torch.float32
    in_double = prepare_for_inference(network().double(), GATES)
    assert {weight.dtype for weight in in_double.parameters()} == {torch.float64}


def test_what_was_used_can_be_saved_and_asked_for_gradients_of_its_input() -> None:
    prepared, fresh = (prepare_for_inference(network(width=64), GATES) for _ in range(2))
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        prepared(image, GATES)
    assert any(isinstance(module, WinogradConv) for module in prepared.modules())
    fresh.load_state_dict(prepared.state_dict())
    prepared(image.requires_grad_(), GATES)["depth"].sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "options", [{"padding": 0}, {"padding": 1, "stride": 2}, {"padding": 1, "groups": 2}, {"padding": 2}]
)
def test_convolutions_that_winograds_is_not_are_left_alone(options: dict[str, int]) -> None:
    assert has_winograd_form(nn.Conv2d(8, 8, 3, padding=1))
    assert has_winograd_form(nn.Conv2d(8, 8, 3, padding=2, dilation=2))
    assert not has_winograd_form(nn.Conv2d(8, 8, 3, **options))
    assert not has_winograd_form(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"))


def test_a_block_that_was_dropped_cannot_be_run() -> None:
    prepared = prepare_for_inference(network(), GATES)
    with pytest.raises(AttributeError), torch.no_grad():
        prepared(inputs("dense"), {"seg": [1] * 8})


def test_what_is_prepared_learns_nothing() -> None:
    prepared = prepare_for_inference(network(), GATES)
    assert not prepared.training
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
