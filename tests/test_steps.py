"""Single training steps: who is updated, and what is computed for it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from envs.data import Data
from envs.losses import Mean
from envs.optimisers import policy_optimiser, weight_optimiser
from envs.steps import frozen, policy_step, training_mode, weight_step
from envs.updates import NotFinite
from tests.small_runs import ALL_BLOCKS, LOSS_WEIGHTS, TASKS, small_data, small_net

ONE = torch.tensor(1)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return small_data(tmp_path / "frames")


def test_a_policy_step_computes_no_gradient_for_any_weight(data: Data) -> None:
    net = small_net()
    gates = net.policy.draw_gates(temperature=5.0, num_open=3)
    batch = next(data.training("train", batch_size=2))
    before = {task: logits.detach().clone() for task, logits in net.policy.logits.items()}
    policy_step(net, gates, batch, TASKS, LOSS_WEIGHTS, {}, policy_optimiser(net, 0.01))
    weights = [*net.backbone.parameters(), *net.heads.parameters()]
    assert all(weight.grad is None and weight.requires_grad for weight in weights)
    for task, logits in net.policy.logits.items():
        assert (logits.grad[-3:] != 0).all()
        assert not torch.equal(logits, before[task])


def test_a_weight_step_reports_raw_losses_and_their_weighted_sum(data: Data) -> None:
    net = small_net()
    batch = next(data.training("train", batch_size=2))
    losses = weight_step(net, ALL_BLOCKS, batch, TASKS, LOSS_WEIGHTS, weight_optimiser(net, 0.01, 0.01))
    assert losses.keys() == {"seg", "depth", "total"}
    assert losses["total"].item() == pytest.approx(losses["seg"].item() + 3 * losses["depth"].item(), rel=1e-6)
    assert not any(loss.requires_grad for loss in losses.values())
    assert all(logits.grad is None for logits in net.policy.logits.values())


def test_blocks_that_are_executed_for_the_first_time_learn_as_in_a_first_step(data: Data) -> None:
    """The release's SGD, of which fused ones know that weights may have no gradient, but not that they may get one."""
    batch = next(data.training("train", batch_size=2))
    without = {task: [1, 1, 0, *path[3:]] for task, path in ALL_BLOCKS.items()}
    net, twin = small_net(), small_net()
    optimiser = weight_optimiser(net, 0.01, 0.01)
    weight_step(net, without, batch, TASKS, LOSS_WEIGHTS, optimiser)
    twin.load_state_dict(net.state_dict())
    states = torch.get_rng_state()
    weight_step(net, ALL_BLOCKS, batch, TASKS, LOSS_WEIGHTS, optimiser)
    torch.set_rng_state(states)
    weight_step(twin, ALL_BLOCKS, batch, TASKS, LOSS_WEIGHTS, weight_optimiser(twin, 0.01, 0.01))
    first_steps = zip(net.backbone.blocks[2].named_parameters(), twin.backbone.blocks[2].parameters(), strict=True)
    for (name, weight), alone in first_steps:
        assert torch.equal(weight, alone) == ("shortcut" not in name), name


def fail_while_frozen(module: nn.Module) -> None:
    with frozen(module):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        raise KeyError


def test_frozen_parameters_learn_again_and_those_frozen_before_stay_so() -> None:
    backbone = small_net().backbone
    backbone.stem.bn.weight.requires_grad_(False)
    with pytest.raises(KeyError):
        fail_while_frozen(backbone)
    assert [name for name, p in backbone.named_parameters() if not p.requires_grad] == ["stem.bn.weight"]


def test_fixed_norms_keep_their_statistics_in_training(data: Data) -> None:
    net = small_net()
    image = next(data.training("train", batch_size=2))["img"]
    moved = {}
    for fix_bn in (True, False):
        training_mode(net, fix_bn)
        before = net.backbone.stem.bn.running_mean.clone()
        net(image, ALL_BLOCKS)
        moved[fix_bn] = not torch.equal(net.backbone.stem.bn.running_mean, before)
        assert net.training
    assert moved == {True: False, False: True}


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("kind", ["weights", "policy"])
def test_a_step_that_is_not_finite_changes_nothing(
    data: Data, kind: str, gradient_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = small_net()
    training_mode(net, fix_bn=False)
    batch = next(data.training("train", batch_size=2))
    if gradient_only:
        # The square root has no finite derivative at 0, whatever it is multiplied by.
        roots = replace(TASKS["depth"], loss=lambda prediction, _: Mean((prediction * 0).abs().sqrt().sum(), ONE))
        monkeypatch.setitem(TASKS, "depth", roots)
    else:
        batch["depth"] *= float("nan")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gates = net.policy.draw_gates(temperature=5.0, num_open=3)
    steps = {
        "weights": lambda: weight_step(net, ALL_BLOCKS, batch, TASKS, LOSS_WEIGHTS, weight_optimiser(net, 0.01, 0.01)),
        "policy": lambda: policy_step(net, gates, batch, TASKS, LOSS_WEIGHTS, {}, policy_optimiser(net, 0.01)),
    }
    with pytest.raises(NotFinite) as fault:
        steps[kind]()
    assert fault.value.names == (["gradient"] if gradient_only else ["depth", "total"])
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert all(weight.requires_grad for weight in net.parameters())
