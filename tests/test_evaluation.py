"""The evaluation loop: what it measures, how much it takes, and that the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

from envs.evaluation import Evaluation, evaluate
from envs.losses import Batch
from envs.task_sets import build_tasks
from envs.tasks import PROTOCOLS, Task
from models.shared_paths import Gates, all_blocks
from tests.small_runs import StopAtCheck
from utils.interruption import Interrupted

NUM_CHANNELS = {"seg": 5, "sn": 3, "depth": 1}
GATES = all_blocks(NUM_CHANNELS, 4)


class StubNet(nn.Module):
    """One convolution per task at 1/8 of the size; remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.heads = nn.ModuleDict({task: nn.Conv2d(4, channels, 1) for task, channels in NUM_CHANNELS.items()})
        self.calls: list[dict] = []

    def forward(self, image: Tensor, gates: Gates) -> dict[str, Tensor]:
        training = {module.training for module in self.modules()}
        self.calls.append({"gates": gates, "training": training, "gradients": torch.is_grad_enabled()})
        features = self.trunk(image)
        return {task: self.heads[task](features) for task in gates}


def make_batch(seed: int, num_images: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def uniform(channels: int) -> Tensor:
        return torch.rand(num_images, channels, 32, 48, generator=generator)

    return {
        "img": 100 * uniform(3) - 50,
        "seg": torch.where(uniform(1)[:, 0] < 0.1, 255, (5 * uniform(1)[:, 0]).long()),
        "normal": 255 * uniform(3),
        "normal_valid": uniform(1) < 0.8,
        "depth": 5 * uniform(1),
        "depth_valid": uniform(1) < 0.7,
        "name": [f"{seed}:{image}" for image in range(num_images)],
    }


def make_tasks(normals: str = "release") -> dict[str, Task]:
    return build_tasks("NYU_v2", list(NUM_CHANNELS), list(NUM_CHANNELS.values()), normals)


@pytest.fixture
def net() -> StubNet:
    torch.manual_seed(0)
    return StubNet()


@pytest.fixture
def batches() -> list[Batch]:
    return [make_batch(seed=0, num_images=2), make_batch(seed=1, num_images=1)]


@pytest.mark.parametrize("normals", ["release", "decoded"])
def test_metrics_equal_those_of_metrics_updated_by_hand(net: StubNet, batches: list[Batch], normals: str) -> None:
    tasks = make_tasks(normals)
    evaluation = evaluate(net, GATES, batches, tasks)
    net.eval()
    for protocol in PROTOCOLS:
        for name, task in tasks.items():
            metric = task.new_metric(protocol)
            if metric is None:
                assert evaluation.metrics[protocol][name] is None
                continue
            for batch in batches:
                metric.update(net(batch["img"], GATES)[name], batch)
            assert evaluation.metrics[protocol][name] == metric.compute()
    assert (evaluation.metrics["standard"]["sn"] is None) == (normals == "release")
    assert evaluation.num_samples == 3


def test_the_network_runs_once_per_batch_in_evaluation_mode(net: StubNet, batches: list[Batch]) -> None:
    evaluate(net.train(), GATES, batches, make_tasks())
    assert net.calls == 2 * [{"gates": GATES, "training": {False}, "gradients": False}]


def test_it_can_be_ended_before_any_batch(net: StubNet, batches: list[Batch]) -> None:
    for number in (1, 2):
        net.calls.clear()
        with pytest.raises(Interrupted):
            evaluate(net.train(), GATES, batches, make_tasks(), before_each=StopAtCheck(number).check)
        assert len(net.calls) == number - 1
        assert all(module.training for module in net.modules())
    assert evaluate(net, GATES, batches, make_tasks(), before_each=StopAtCheck(3).check).num_samples == 3


def test_every_module_returns_to_its_own_mode(net: StubNet, batches: list[Batch]) -> None:
    net.train()
    batch_norm = net.trunk[1]
    batch_norm.eval()
    statistics = batch_norm.running_mean.clone()
    evaluate(net, GATES, batches, make_tasks())
    in_evaluation_mode = [module for module in net.modules() if not module.training]
    assert in_evaluation_mode == [batch_norm]
    torch.testing.assert_close(batch_norm.running_mean, statistics, rtol=0, atol=0)

    net.eval()
    evaluate(net, GATES, batches, make_tasks())
    assert not any(module.training for module in net.modules())


def test_without_batches_there_are_no_values(net: StubNet) -> None:
    evaluation = evaluate(net, GATES, [], make_tasks())
    assert evaluation.num_samples == 0
    assert set(evaluation.metrics["release"]["depth"].values()) == {None}


def test_some_of_the_tasks_can_be_evaluated_alone(net: StubNet, batches: list[Batch]) -> None:
    tasks = {"depth": make_tasks()["depth"]}
    evaluation = evaluate(net, {"depth": GATES["depth"]}, batches, tasks)
    assert evaluation.metrics["release"].keys() == {"depth"}
    everything = evaluate(net, GATES, batches, make_tasks())
    assert evaluation.metrics["standard"]["depth"] == everything.metrics["standard"]["depth"]


# What an evaluation says of itself


def an_evaluation() -> Evaluation:
    metrics = {
        "release": {"seg": {"mIoU": 0.27518, "err": None}, "sn": {"Angle Mean": 17.5}},
        "standard": {"seg": {"mIoU": 0.25}, "sn": None},
    }
    return Evaluation(metrics, num_samples=4)


def test_flat_names_protocol_task_and_metric() -> None:
    assert an_evaluation().flat() == {
        "release/seg/mIoU": 0.27518,
        "release/seg/err": None,
        "release/sn/Angle Mean": 17.5,
        "standard/seg/mIoU": 0.25,
    }


def test_headlines_are_the_releases_in_the_order_of_the_tasks() -> None:
    tasks = build_tasks("NYU_v2", ["sn", "seg"], [3, 40])
    assert an_evaluation().headlines(tasks) == "sn Angle Mean 17.5  seg mIoU 0.2752"


def test_a_headline_without_value_is_a_dash() -> None:
    evaluation = Evaluation({"release": {"seg": {"mIoU": None}}, "standard": {}}, num_samples=1)
    assert evaluation.headlines(build_tasks("NYU_v2", ["seg"], [40])) == "seg mIoU -"


class OwnInputs(nn.Module):
    """Finds class 1 in everything; knows no task without inputs."""

    def forward(self, inputs: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
        return {task: torch.tensor([[0.0, 5.0]]).expand(len(inputs[task]), 2) for task in gates}


def test_a_task_that_has_run_out_no_longer_counts() -> None:
    tasks = build_tasks("DomainNet", ["real", "sketch"], [2, 2])
    batches = [
        {
            "img": {"real": torch.zeros(2, 3), "sketch": torch.zeros(1, 3)},
            "real": torch.tensor([1, 0]),
            "sketch": torch.tensor([1]),
        },
        {"img": {"real": torch.zeros(2, 3)}, "real": torch.tensor([0, 0])},
    ]
    evaluation = evaluate(OwnInputs(), all_blocks(tasks, 1), batches, tasks)
    assert evaluation.num_samples == 5
    for protocol in PROTOCOLS:
        assert evaluation.metrics[protocol]["real"]["accuracy"] == 0.25
        assert evaluation.metrics[protocol]["sketch"]["accuracy"] == 1
