"""Updates within the backward pass: the same weights, hardly any gradients in memory, what is left out when."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from envs import updates
from envs.data import Data
from envs.losses import Batch, Mean
from envs.optimisers import warm_up_optimiser, weight_optimiser
from envs.policy_learning import learn_policy
from envs.steps import training_mode, weight_step
from envs.updates import NotFinite, PartlyNotFinite, Update, update_after_backward, update_in_backward
from envs.weight_training import WeightTraining, train_weights
from models.multitask import MultiTaskNet, build_network
from models.policy import Curriculum
from models.shared_paths import Gates
from tests.small_runs import LOSS_WEIGHTS, TASKS, kept, logged, run_files, same, small_data, small_run
from utils.errors import UserError
from utils.logger import RunLogger

GATES = {"seg": [1, 0, 1, 0, 1, 1, 1, 0], "depth": [1, 0, 0, 1, 1, 1, 1, 1]}
"""The second block is executed by no task; others by one, by both together, and by both on paths of their own."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return small_data(tmp_path_factory.mktemp("data"), ["train", "train1", "train2"])


@pytest.fixture
def batch(data: Data) -> Batch:
    return next(data.training("train", batch_size=2))


def network(backbone: str = "ResNet18", **options: Any) -> MultiTaskNet:
    torch.manual_seed(0)
    net = build_network(
        backbone=backbone, num_outputs={"seg": 40, "depth": 1}, backbone_width=8, head_width=8, **options
    )
    training_mode(net, fix_bn=False)
    return net


def learns(name: str) -> bool:
    """Whether a parameter of this name has a gradient."""
    return not name.startswith(("policy", "backbone.blocks.1.residual"))


def loss_without_gradient(prediction: Tensor, batch: Batch) -> Mean:
    """0, but the square root has no finite derivative there, whatever it is multiplied by."""
    return Mean((prediction * 0).abs().sqrt().sum(), torch.tensor(1))


def take_steps(
    net: MultiTaskNet, optimiser: Optimizer, batch: Batch, update: Update, gates: Gates = GATES, number: int = 3
) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    return [weight_step(net, gates, batch, TASKS, LOSS_WEIGHTS, optimiser, update=update) for _ in range(number)]


@pytest.mark.parametrize("make_optimiser", [warm_up_optimiser, weight_optimiser])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"checkpointing": True},
        {"checkpointing": True, "precision": "bf16"},
        {"task_bn": True},
        {"execution": "task_by_task", "checkpointing": True},
        {"backbone": "ResNet50"},  # some of whose weights are frozen
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_weights_are_those_of_an_update_after_the_backward_pass(
    batch: Batch, make_optimiser: Callable[..., Optimizer], options: dict[str, Any], soft: bool
) -> None:
    states = []
    for update in (update_after_backward, update_in_backward):
        net = network(**options)
        torch.manual_seed(2)
        gates = net.policy.draw_gates(5.0, net.num_blocks) if soft else {task: 2 * GATES[task] for task in GATES}
        gates = {task: [g.detach() if soft else g for g in path[: net.num_blocks]] for task, path in gates.items()}
        optimiser = make_optimiser(net, 0.01, 0.001)
        losses = take_steps(net, optimiser, batch, update, gates)
        states.append({"losses": losses, "net": net.state_dict(), "optimiser": optimiser.state_dict()})
    assert same(*states)
    assert states[0]["losses"][0]["total"] != states[0]["losses"][2]["total"]


def test_no_two_weights_have_their_gradients_at_the_same_time(batch: Batch) -> None:
    net, at_once = network(), []
    weights = [weight for name, weight in net.named_parameters() if learns(name)]
    for weight in weights:
        weight.register_post_accumulate_grad_hook(lambda _: at_once.append(sum(w.grad is not None for w in weights)))
    take_steps(net, warm_up_optimiser(net, 0.01, 0.01), batch, update_in_backward, number=1)
    assert at_once == [1] * len(weights)
    assert all(weight.grad is None for weight in weights)
    take_steps(net, warm_up_optimiser(net, 0.01, 0.01), batch, update_after_backward, number=1)
    assert at_once[-1] == len(weights), "in another backward pass no weight makes its step"


def test_a_loss_that_is_not_finite_changes_nothing(batch: Batch) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = batch | {"depth": batch["depth"] * torch.nan}
    with pytest.raises(NotFinite) as fault:
        take_steps(net, warm_up_optimiser(net, 0.01, 0.01), batch, update_in_backward)
    assert fault.value.names == ["depth", "total"]
    assert same(dict(net.state_dict()), before)


def test_a_gradient_that_is_not_finite_leaves_the_weights_out_that_it_reaches(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "depth", replace(TASKS["depth"], loss=loss_without_gradient))
    net = network()
    optimiser = weight_optimiser(net, 0.01, 0.01)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(PartlyNotFinite) as fault:
        take_steps(net, optimiser, batch, update_in_backward)
    assert fault.value.names == ["gradient"]
    learned = {name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])}
    used = [name for name, _ in net.named_parameters() if learns(name)]
    assert learned == {name for name in used if name.startswith(("heads.seg", "backbone.blocks.2.residual"))}
    assert fault.value.num_weights == len(used) - len(learned)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_scaled_losses_are_refused(batch: Batch) -> None:
    net = network()
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match="scaled losses"):
        weight_step(
            net, GATES, batch, TASKS, LOSS_WEIGHTS, warm_up_optimiser(net, 0.01, 0.01), scaler, update_in_backward
        )


# In training


def retrain(folder: Path, data: Data, until: int, **settings: object) -> None:
    torch.manual_seed(0)
    with RunLogger(run_files(folder).logs) as logger:
        run = small_run(folder, data, logger, **settings)
        train_weights(run, WeightTraining.start(run, "training", GATES), until, "training", keeps_best=False)


def learn(folder: Path, data: Data, **settings: object) -> None:
    def sparsity(logits: dict[str, Tensor], num_open: int) -> dict[str, Tensor]:
        return {"sparsity": sum(task[-num_open:, 0].sum() for task in logits.values())}

    torch.manual_seed(0)
    with RunLogger(run_files(folder).logs) as logger:
        learn_policy(small_run(folder, data, logger, warm_up_iters=0, **settings), Curriculum(8, None), sparsity, None)


@pytest.mark.parametrize("phase", ["retraining", "policy learning"])
def test_training_with_steps_in_the_backward_pass_ends_with_the_same_weights(
    tmp_path: Path, data: Data, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []
    step_alone = updates.step_alone
    monkeypatch.setattr(updates, "step_alone", lambda *weight: (alone.append(weight), step_alone(*weight)))
    for in_backward in (True, False):
        folder = tmp_path / str(in_backward)
        if phase == "retraining":
            retrain(folder, data, 5, step_in_backward=in_backward)
        else:
            learn(folder, data, total_iters=6, step_in_backward=in_backward)
        assert bool(alone) == in_backward
        alone.clear()
    inside, after = (kept(tmp_path / name, "latest") for name in ("True", "False"))
    assert same(inside["mtl-net"], after["mtl-net"])
    assert same(inside["optimisers"], after["optimisers"])


def test_steps_whose_gradients_are_not_finite_are_told_and_end_the_run(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "depth", replace(TASKS["depth"], loss=loss_without_gradient))
    with pytest.raises(UserError, match="training has diverged: at iteration 2, after 2 steps in a row"):
        retrain(tmp_path, data, 5, step_in_backward=True, max_bad_steps=2)
    logs = run_files(tmp_path).logs
    assert [line["not_finite"] for line in logged(logs) if line["kind"] == "bad_step"] == [["gradient"]] * 2
    assert re.search(
        r"iteration 1: left out for \d+ weights, since gradient is not finite", (logs / "log.txt").read_text()
    )
