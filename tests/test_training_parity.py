"""Training steps of both phases equal the released implementation's, on two real frames."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dataloaders.loading import collate
from dataloaders.nyu_v2 import NYUv2
from envs.experiment import configured_tasks, regularisers
from envs.optimisers import policy_optimiser, warm_up_optimiser, weight_optimiser
from envs.policy_learning import draw_constant_gates
from envs.steps import policy_step, task_losses, weight_step
from envs.tasks import Task
from models.multitask import MultiTaskNet
from models.release import release_names
from tests.parity_networks import TASKS, parity, released_network
from tests.released_frames import NAMES, RELEASED_FRAMES, needs_released_frames
from utils.config import TrainingConfig, load_config

ROOT = Path(__file__).parents[1]
CROP = 224

pytestmark = needs_released_frames


@pytest.fixture(autouse=True)
def _two_threads():
    """Adam amplifies rounding, and the order of sums depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(TASKS))
def setting(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(setting: str) -> TrainingConfig:
    return load_config(ROOT / "yamls" / "adashare" / f"{setting}.yml", [f"dataload.dataroot={RELEASED_FRAMES}"])


@pytest.fixture(scope="module")
def tasks(config: TrainingConfig) -> dict[str, Task]:
    return configured_tasks(config)


@pytest.fixture(scope="module")
def batch(tasks: dict[str, Task]) -> dict:
    """Frames 0061 and 0295, top left corner."""
    frames = NYUv2(RELEASED_FRAMES, "test", [task.target for task in tasks.values()])
    assert [path["img"].stem for path in frames.frames[:2]] == NAMES[:2]
    whole = collate([frames[0, index] for index in range(2)])
    return {name: entry[..., :CROP, :CROP] if isinstance(entry, Tensor) else entry for name, entry in whole.items()}


def network(setting: str, execution: str = "shared") -> MultiTaskNet:
    """The released network in training mode, without dropout."""
    net = released_network(setting, execution).train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    return net


def fixed_gates(setting: str) -> dict[str, list[int]]:
    return dict(zip(TASKS[setting], parity("training")[setting]["policies"], strict=True))


def close(losses: dict[str, Tensor], expected: dict[str, float], tolerance: float) -> None:
    """The released code calls the sharing loss "hamming"."""
    expected = {name.replace("hamming", "sharing"): value for name, value in expected.items()}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=tolerance)


def test_losses_in_evaluation(setting: str, tasks: dict[str, Task], batch: dict) -> None:
    net = network(setting).eval()
    with torch.no_grad():
        losses = task_losses(net(batch["img"], fixed_gates(setting)), batch, tasks)
    close(losses, parity("training")[setting]["eval_losses"], 1e-4)


def test_retraining_steps(setting: str, config: TrainingConfig, tasks: dict[str, Task], batch: dict) -> None:
    net = network(setting)
    optimiser = warm_up_optimiser(net, config.train.heads_lr, config.train.backbone_lr)
    loss_weights = dict(zip(config.tasks, config.lambdas, strict=True))
    steps = parity("training")[setting]["retrain_adam_steps"]
    for expected, tolerance in zip(steps, (1e-4, 1e-3, 1e-2), strict=True):
        losses = weight_step(net, fixed_gates(setting), batch, tasks, loss_weights, optimiser)
        close(losses, expected, tolerance)


def test_weights_and_statistics_after_three_steps(
    setting: str, config: TrainingConfig, tasks: dict[str, Task], batch: dict
) -> None:
    """With the release's execution, under which blocks that a task skips see its inputs too."""
    net = network(setting, execution="task_by_task")
    optimiser = warm_up_optimiser(net, config.train.heads_lr, config.train.backbone_lr)
    loss_weights = dict(zip(config.tasks, config.lambdas, strict=True))
    for _ in range(3):
        weight_step(net, fixed_gates(setting), batch, tasks, loss_weights, optimiser)
    state = {released: net.state_dict()[ours] for ours, released in release_names(net).items()}
    for name, (mean, std) in parity("training")[setting]["after_3_steps"].items():
        # Means near 0 are differences of large numbers, so the spread is the scale for both.
        assert state[name].mean().item() == pytest.approx(mean, abs=1e-2 * std), name
        assert state[name].std().item() == pytest.approx(std, rel=1e-2), name


def test_policy_learning_steps(setting: str, config: TrainingConfig, tasks: dict[str, Task], batch: dict) -> None:
    """Alternating steps with the Gumbel noise set to zero, one, three and all blocks open."""
    net = network(setting)
    weights = weight_optimiser(net, config.train.heads_lr, config.train.backbone_lr)
    logits = policy_optimiser(net, policy_lr=0.01)
    loss_weights = dict(zip(config.tasks, config.lambdas, strict=True))
    loss_weights |= {"sparsity": config.train.reg_w, "sharing": config.train.reg_w_hamming}
    losses_on_logits = regularisers(config, net.policy)
    expected = parity("training")[setting]
    temperature = config.train.init_temp
    for step in expected["policy_phase_steps_without_gumbel_noise"]:
        assert temperature == pytest.approx(step["temp"])
        num_open = step["num_train_layers"] or net.num_blocks
        if step["flag"] == "update_w":
            with torch.no_grad():
                gates = net.policy.draw_gates(temperature, num_open, noise=torch.zeros_like)
            losses = weight_step(net, gates, batch, tasks, loss_weights, weights)
        else:
            gates = net.policy.draw_gates(temperature, num_open, noise=torch.zeros_like)
            on_logits = losses_on_logits(dict(net.policy.logits.items()), num_open)
            losses = policy_step(net, gates, batch, tasks, loss_weights, on_logits, logits)
            temperature *= config.train.decay_temp
        close(losses, step["losses"], 1e-3)
    for learned, released in zip(net.policy.logits.values(), expected["logits_after"], strict=True):
        # Adam's first steps are 0.01 whatever the gradient's size: where it is near 0, rounding picks the sign, and
        # one step the other way makes a difference of 0.02.
        difference = (learned.detach() - torch.tensor(released)).abs()
        assert difference.median() < 1e-4
        assert (difference < 1e-3).float().mean() > 0.75
        assert difference.max() < 0.02


def test_constant_gates_carry_no_gradient(setting: str) -> None:
    policy = network(setting).policy
    for hard in (False, True):
        for path in draw_constant_gates(policy, 5.0, 3, hard).values():
            assert not any(isinstance(gate, Tensor) and gate.requires_grad for gate in path)
