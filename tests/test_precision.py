"""Networks that compute in fewer bits: what they predict, and how the loss is scaled."""

from collections.abc import Iterator

import pytest
import torch

from envs.optimisers import loss_scaler, warm_up_optimiser
from envs.steps import weight_step
from envs.updates import NotFinite
from models.multitask import MultiTaskNet, build_network
from tests.parity_inputs import seeded
from tests.script_runs import Script
from tests.small_runs import ALL_BLOCKS, LOSS_WEIGHTS, TASKS
from utils.precision import allow_tf32, notes_on_precision

IMAGE = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 50


def network(precision: str) -> MultiTaskNet:
    torch.manual_seed(0)
    return build_network(
        backbone="ResNet18",
        num_outputs={task: record.num_channels or 40 for task, record in TASKS.items()},
        backbone_width=8,
        head_width=16,
        precision=precision,
    )


def seeded_network(precision: str) -> MultiTaskNet:
    """With weights, BatchNorms and predictions of the size that trained ones have."""
    net = network(precision)
    net.load_state_dict({key: torch.from_numpy(seeded(key, value.shape)) for key, value in net.state_dict().items()})
    return net.eval()


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 2**-5), ("fp16", 2**-8)])
def test_predictions_are_float32_and_close_to_those_of_fp32(precision: str, digits: float) -> None:
    exact, rounded = (seeded_network(name)(IMAGE, ALL_BLOCKS) for name in ("fp32", precision))
    for task, prediction in rounded.items():
        assert prediction.dtype == torch.float32
        difference = (prediction - exact[task]).abs().max() / exact[task].abs().max()
        assert 0 < difference < digits


@pytest.mark.parametrize("kind", ["dense", "classification"])
def test_the_last_layer_is_not_rounded(kind: str) -> None:
    torch.manual_seed(0)
    net = build_network(
        backbone="ResNet18", kind=kind, num_outputs={"a": 3}, backbone_width=8, head_width=16, precision="bf16"
    )
    prediction = net.eval()(IMAGE, {"a": [1] * 8})["a"]
    assert not torch.equal(prediction, prediction.bfloat16().float())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_and_their_gradients_stay_float32(precision: str) -> None:
    net = network(precision)
    sum(p.square().mean() for p in net(IMAGE, ALL_BLOCKS).values()).backward()
    of_weights = [*net.backbone.parameters(), *net.heads.parameters()]
    assert {weight.grad.dtype for weight in of_weights} == {torch.float32}


def batch() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(1)
    size = (2, 48, 64)
    return {
        "img": IMAGE,
        "seg": torch.randint(40, size, generator=numbers),
        "depth": torch.rand(2, 1, 48, 64, generator=numbers),
        "depth_valid": torch.ones(2, 1, 48, 64, dtype=torch.bool),
    }


def test_gradients_do_not_depend_on_the_scale_of_the_loss() -> None:
    steps = {}
    for scale in (1.0, 2.0**10):
        net = network("fp16")
        torch.manual_seed(5)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        weight_step(net, ALL_BLOCKS, batch(), TASKS, LOSS_WEIGHTS, warm_up_optimiser(net, 1e-3, 1e-3), scaler)
        steps[scale] = net.heads["depth"].branches[0].conv3.bias.grad.clone()
    torch.testing.assert_close(*steps.values(), rtol=0.02, atol=1e-6)


def test_a_scale_that_is_too_large_leaves_the_step_out_and_is_halved() -> None:
    net = network("fp16")
    optimiser = warm_up_optimiser(net, 1e-3, 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NotFinite) as fault:
        weight_step(net, ALL_BLOCKS, batch(), TASKS, LOSS_WEIGHTS, optimiser, scaler)
    assert fault.value.names == ["gradient"]
    assert scaler.get_scale() == 2.0**59
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    weight_step(net, ALL_BLOCKS, batch(), TASKS, LOSS_WEIGHTS, optimiser, torch.amp.GradScaler("cpu", init_scale=1.0))


def test_only_float16_scales_its_loss() -> None:
    assert [loss_scaler(network(name)).is_enabled() for name in ("fp32", "bf16", "fp16")] == [False, False, True]


@pytest.mark.parametrize(
    ("precision", "device", "capability", "is_noted"),
    [
        ("bf16", "cpu", "AVX2", True),
        ("fp16", "cpu", "AVX2", True),
        ("fp32", "cpu", "AVX2", False),
        ("bf16", "cpu", "AVX512", False),
        ("bf16", "cuda", "AVX2", False),
    ],
)
def test_a_precision_that_the_cpu_emulates_is_noted(
    precision: str, device: str, capability: str, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    notes = notes_on_precision(precision, torch.device(device))
    assert [f"train.precision={precision}" in note for note in notes] == [True] * is_noted


@pytest.fixture
def _tf32_as_before() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    yield
    allow_tf32(before)


@pytest.mark.usefixtures("_tf32_as_before")
@pytest.mark.parametrize("allowed", [False, True])
def test_every_script_says_whether_a_gpu_may_round_to_tf32(allowed: bool, script: Script) -> None:
    values = ("train.total_iters=4", f"train.tf32={allowed}")
    for name, *arguments in (("train.py",), ("re-train.py", "--exp_ids", "0"), ("test.py",)):
        allow_tf32(not allowed)
        script(name, *arguments, values=values)
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == allowed
