"""On a GPU everything gives what it gives on the CPU, within rounding. Skipped, and counted, where there is none."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measure import settle
from dataloaders.rendered import write_nyu_v2
from envs.losses import Batch
from envs.optimisers import loss_scaler, warm_up_optimiser
from envs.steps import weight_step
from envs.task_sets import build_tasks
from envs.tasks import PROTOCOLS
from envs.updates import Update, update_after_backward, update_in_backward
from models.compiling import compile_parts
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet, build_network
from models.shared_paths import HardGates, decided
from tests.metric_inputs import PARITY, parity_batch, parity_predictions
from tests.parity_inputs import policies
from tests.script_runs import FOLDERS, ROOT, SMALL
from tests.small_runs import StopAtCheck
from utils.devices import on_device, random_states, restore_random_states, to_device
from utils.interruption import Interruption
from utils.precision import allow_tf32

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

DEVICES = ("cpu", "cuda")
TWO_TASKS = ROOT / "yamls" / "adashare" / "nyu_v2_2task.yml"
NUM_OUTPUTS = {"seg": 40, "sn": 3, "depth": 1}
DOMAINS = {"real": 5, "sketch": 5}

LEAST_ROUNDING = 5e-5
"""Of the third loss, relative, where factors are rounded to 10 bits or fewer; two runs in float32 differ by less."""


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """TF32 keeps ten bits of each factor; these tests compare numbers."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def own_inputs(kind: str) -> Batch:
    """Five images, or texts, of one domain and three of another."""
    random = torch.Generator().manual_seed(3)

    def inputs(count: int) -> Tensor:
        if kind == "text":
            return torch.randint(0, 30, (count, 24), generator=random)
        return torch.randn(count, 3, 64, 64, generator=random)

    counts = {"real": 5, "sketch": 3}
    classes = {task: torch.randint(0, 5, (count,), generator=random) for task, count in counts.items()}
    return {"text" if kind == "text" else "img": {task: inputs(count) for task, count in counts.items()}, **classes}


def common_image() -> Batch:
    """Two images with the ground truth of the parity numbers."""
    return {
        "img": 50 * torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(3)),
        **parity_batch("NYU_v2", 0),
    }


@pytest.mark.parametrize(
    ("kind", "task_bn"), [("dense", False), ("classification", False), ("classification", True), ("text", False)]
)
def test_training_steps_equal_the_cpus(kind: str, task_bn: bool) -> None:
    losses = {device: losses_of_steps(network(kind, task_bn=task_bn).to(device), kind) for device in DEVICES}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.parametrize("kind", ["dense", "classification", "text"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_steps_in_fewer_bits_stay_close(kind: str, precision: str) -> None:
    exact = losses_of_steps(network(kind).cuda(), kind)
    rounded = losses_of_steps(network(kind, precision=precision).cuda(), kind)
    assert abs(rounded[-1] - exact[-1]) > LEAST_ROUNDING * exact[-1]
    assert rounded == pytest.approx(exact, rel=0.1)


def test_training_steps_with_checkpointing_are_the_same() -> None:
    exact = losses_of_steps(network("dense").cuda(), "dense")
    assert losses_of_steps(network("dense", checkpointing=True).cuda(), "dense") == pytest.approx(exact, rel=1e-3)


def test_training_steps_in_the_backward_pass_are_the_same_and_take_less_memory() -> None:
    losses, peaks = {}, {}
    for update in (update_after_backward, update_in_backward):
        net = network("dense", backbone_width=64, checkpointing=True).cuda()
        torch.cuda.reset_peak_memory_stats()
        losses[update] = losses_of_steps(net, "dense", update)
        peaks[update] = torch.cuda.max_memory_allocated()
    assert losses[update_in_backward] == pytest.approx(losses[update_after_backward], rel=1e-3)
    assert peaks[update_in_backward] < peaks[update_after_backward]


def test_a_step_in_tf32_stays_close() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    exact = losses_of_steps(network("dense").cuda(), "dense")
    allow_tf32(True)
    rounded = losses_of_steps(network("dense").cuda(), "dense")
    assert abs(rounded[-1] - exact[-1]) > LEAST_ROUNDING * exact[-1]
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_compiled_parts_predict_and_learn_as_uncompiled_ones(precision: str, most: float) -> None:
    plain, compiled = (network("dense", precision=precision).cuda() for _ in range(2))
    compile_parts(compiled)
    expected, predictions = prepared_predictions(plain), prepared_predictions(compiled, compile_with="inductor")
    for task, prediction in predictions.items():
        assert (prediction - expected[task]).abs().max() < most * expected[task].abs().max()
    assert losses_of_steps(compiled, "dense") == pytest.approx(losses_of_steps(plain, "dense"), rel=most)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.05), ("fp16", 0.01)])
def test_a_network_prepared_for_inference_predicts_what_the_cpus_own_does(precision: str, most: float) -> None:
    batch, gates = common_image(), gates_of("dense")
    with torch.no_grad():
        expected = network("dense").eval()(batch["img"], gates)
    for task, prediction in prepared_predictions(network("dense", precision=precision).cuda()).items():
        assert (prediction.cpu() - expected[task]).abs().max() < most * expected[task].abs().max()


@torch.inference_mode()
def prepared_predictions(net: MultiTaskNet, compile_with: str | None = None) -> dict[str, Tensor]:
    """Of the common image, by the network as it is prepared for a test."""
    image, gates = common_image()["img"].to(next(net.parameters()).device), gates_of("dense")
    return prepare_for_inference(net, gates, compile_with)(image, gates)


def network(kind: str, **options: Any) -> MultiTaskNet:
    """Without dropout, which draws other bits on a GPU."""
    torch.manual_seed(0)
    net = build_network(
        kind=kind,
        backbone="VDCNN17" if kind == "text" else "ResNet18",
        num_outputs=NUM_OUTPUTS if kind == "dense" else DOMAINS,
        **{"backbone_width": 8, "head_width": 16, "num_words": 30} | options,
    )
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    return net


def gates_of(kind: str) -> HardGates:
    """Some blocks are left out."""
    outputs = NUM_OUTPUTS if kind == "dense" else DOMAINS
    return dict(zip(outputs, policies(7, len(outputs), 8), strict=True))


def losses_of_steps(net: MultiTaskNet, kind: str, update: Update = update_after_backward) -> list[float]:
    """Of three training steps, where the network is."""
    outputs = NUM_OUTPUTS if kind == "dense" else DOMAINS
    tasks = build_tasks("NYU_v2" if kind == "dense" else "DomainNet", list(outputs), list(outputs.values()), "decoded")
    batch = to_device(common_image() if kind == "dense" else own_inputs(kind), next(net.parameters()).device)
    optimiser, scaler = warm_up_optimiser(net.train(), 1e-3, 1e-3), loss_scaler(net)
    weights = dict.fromkeys(outputs, 2.0)

    def step() -> float:
        return weight_step(net, gates_of(kind), batch, tasks, weights, optimiser, scaler, update)["total"].item()

    return [settle(step) for _ in range(3)]


@pytest.mark.parametrize("dataset", PARITY)
def test_losses_and_metrics_equal_the_cpus(dataset: str) -> None:
    tasks = build_tasks(dataset, PARITY[dataset]["tasks"], PARITY[dataset]["num_classes"], small_res=False)
    values: dict[str, dict[str, float]] = {device: {} for device in DEVICES}
    for device in DEVICES:
        batch, predictions = (to_device(part(dataset, 0), device) for part in (parity_batch, parity_predictions))
        for name, task in tasks.items():
            values[device][name] = task.loss(predictions[name], batch).value.item()
            for protocol in PROTOCOLS:
                meter = task.new_metric(protocol)
                if meter is not None:
                    meter.update(predictions[name], batch)
                    measured = meter.compute()
                    values[device] |= {f"{protocol} {name} {metric}": value for metric, value in measured.items()}
    assert values["cuda"] == pytest.approx(values["cpu"], rel=1e-4)


def test_classification_metrics_equal_the_cpus() -> None:
    task = build_tasks("DomainNet", ["real"], [5])["real"]
    prediction, batch = torch.randn(5, 5, generator=torch.Generator().manual_seed(1)), own_inputs("classification")
    values = {}
    for device in DEVICES:
        meter = task.new_metric("release")
        meter.update(prediction.to(device), to_device(batch, device))
        values[device] = meter.compute()
    assert values["cuda"] == pytest.approx(values["cpu"], rel=1e-4)


def test_hard_gates_are_zeros_and_ones_and_architectures_those_of_the_cpu() -> None:
    net = build_network(backbone="ResNet18", num_outputs=NUM_OUTPUTS, backbone_width=4, head_width=4).cuda()
    gates = decided(net.policy.draw_hard_gates(1.0, num_open=5))
    assert all(path[:3] == [1, 1, 1] and set(path) <= {0, 1} for path in gates.values())
    assert net.policy.sample_architecture(88) == net.cpu().policy.sample_architecture(88)


def test_batches_that_are_copied_ahead_last_until_they_were_computed_with() -> None:
    images = [torch.full((8, 500, 500), float(number)).pin_memory() for number in range(9)]
    batches = [{"img": {"real": image}, "name": [number]} for number, image in enumerate(images)]
    sums, names = [], []
    for batch in on_device(batches, torch.device("cuda")):
        torch.cuda._sleep(10**8)  # cycles, in which the copies of later batches are done
        sums.append(batch["img"]["real"].mean())
        names += batch["name"]
    assert names == list(range(9))
    assert [number.item() for number in sums] == names


def test_a_gpus_random_numbers_go_on_where_they_were() -> None:
    torch.rand(5, device="cuda")
    states = random_states()
    drawn = torch.rand(5, device="cuda")
    restore_random_states(states)
    assert torch.equal(torch.rand(5, device="cuda"), drawn)


def test_the_three_phases_with_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    write_nyu_v2(tmp_path / "rooms", {"train": 8, "test": 3}, height=48, width=64, seed=5)
    folders = [f"paths.{folder}={tmp_path / folder}" for folder in FOLDERS]
    values = [*SMALL, f"dataload.dataroot={tmp_path / 'rooms'}", "dataload.num_workers=2", *folders]
    monkeypatch.chdir(ROOT)

    def run(name: str, *arguments: str) -> None:
        command = [name, "--config", str(TWO_TASKS), "--gpus", "0", *arguments, "--set", *values]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(ROOT / name), run_name="__main__")

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "check", StopAtCheck(20).check)
        with pytest.raises(SystemExit, match="143"):
            run("train.py")
    run("train.py", "--resume")
    run("re-train.py", "--exp_ids", "0")
    run("test.py", "--exp_ids", "0")
    output = capfd.readouterr().out
    assert output.startswith("device: GPU 0")
    assert "going on after iteration" in output
    tested = json.loads((tmp_path / "result_dir" / "nyu_v2_2task" / "test_rs0088.json").read_text())
    assert tested["num_samples"] == 3
    assert "CPU" not in tested["cost"]["device"]
