"""On a GPU everything gives what it gives on the CPU, within rounding. Skipped, and counted, where there is none."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from dataloaders.rendered import write_nyu_v2
from envs.metrics import (
    DepthRelease,
    DepthStandard,
    NormalsRelease,
    NormalsStandard,
    SegmentationRelease,
    SegmentationStandard,
)
from envs.optimisers import warm_up_optimiser
from envs.steps import weight_step
from envs.task_sets import build_tasks
from models.multitask import build_network
from models.shared_paths import decided
from tests.parity_inputs import policies
from tests.test_scripts import ROOT, SMALL, TWO_TASKS
from utils.devices import to_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

NUM_OUTPUTS = {"seg": 40, "sn": 3, "depth": 1}


@pytest.fixture(autouse=True)
def _full_precision():
    """TF32 keeps ten bits of each factor; these tests compare numbers."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def a_batch() -> dict:
    generator = torch.Generator().manual_seed(3)
    seg = torch.randint(0, 40, (4, 64, 96), generator=generator)
    seg[:, :4] = 255
    depth = torch.rand(4, 1, 64, 96, generator=generator) * 5
    normal = torch.randn(4, 3, 64, 96, generator=generator)
    return {
        "img": torch.randn(4, 3, 64, 96, generator=generator) * 50,
        "seg": seg,
        "normal": normal,
        "normal_valid": torch.rand(4, 1, 64, 96, generator=generator) > 0.2,
        "depth": depth,
        "depth_valid": depth > 1,
        "name": list("abcd"),
    }


def test_a_training_step_equals_the_cpus() -> None:
    tasks = build_tasks("NYU_v2", list(NUM_OUTPUTS), list(NUM_OUTPUTS.values()), "decoded")
    gates = dict(zip(NUM_OUTPUTS, policies(7, 3, 8), strict=True))
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net = build_network(backbone="ResNet18", num_outputs=NUM_OUTPUTS, backbone_width=8, head_width=16).to(device)
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0
        batch = to_device(a_batch(), torch.device(device))
        optimiser = warm_up_optimiser(net.train(), 1e-3, 1e-3)
        weights = {"seg": 1, "sn": 20, "depth": 3}
        losses[device] = [weight_step(net, gates, batch, tasks, weights, optimiser)["total"].item() for _ in range(2)]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("seg", SegmentationRelease),
        ("seg", SegmentationStandard),
        ("sn", NormalsRelease),
        ("sn", NormalsStandard),
        ("depth", DepthRelease),
        ("depth", DepthStandard),
    ],
)
def test_metrics_equal_the_cpus(task: str, metric: type) -> None:
    prediction = torch.randn(4, NUM_OUTPUTS[task], 9, 13, generator=torch.Generator().manual_seed(1))
    values = {}
    for device in ("cpu", "cuda"):
        meter = metric()
        meter.update(prediction.to(device), to_device(a_batch(), torch.device(device)))
        values[device] = meter.compute()
    assert values["cuda"] == pytest.approx(values["cpu"], rel=1e-4)


def test_hard_gates_are_decided_in_place() -> None:
    net = build_network(backbone="ResNet18", num_outputs=NUM_OUTPUTS, backbone_width=4, head_width=4).cuda()
    gates = decided(net.policy.draw_hard_gates(1.0, num_open=5))
    assert all(path[:3] == [1, 1, 1] and set(path) <= {0, 1} for path in gates.values())
    assert net.policy.sample_architecture(88) == net.cpu().policy.sample_architecture(88)


def test_the_three_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    write_nyu_v2(tmp_path / "rooms", {"train": 8, "test": 3}, height=48, width=64, seed=5)
    folders = [f"paths.{folder}={tmp_path / folder}" for folder in ("log_dir", "checkpoint_dir", "result_dir")]
    values = [*SMALL, f"dataload.dataroot={tmp_path / 'rooms'}", "dataload.num_workers=2", *folders]
    monkeypatch.chdir(ROOT)
    for name in ("train.py", "re-train.py", "test.py"):
        phase = [] if name == "train.py" else ["--exp_ids", "0"]
        command = [name, "--config", str(TWO_TASKS), "--gpus", "0", *phase, "--set", *values]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(ROOT / name), run_name="__main__")
    assert capfd.readouterr().out.startswith("device: GPU 0")
    tested = json.loads((tmp_path / "result_dir" / "nyu_v2_2task" / "test_rs0088.json").read_text())
    assert tested["num_samples"] == 3
    assert "CPU" not in tested["cost"]["device"]
