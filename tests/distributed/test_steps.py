"""A step that two processes take together is the step of one: losses, gradients, gates, masks, statistics."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.losses import Batch
from envs.optimisers import policy_optimiser, weight_optimiser
from envs.steps import policy_step, training_mode, weight_step
from envs.task_sets import build_tasks
from envs.updates import net_and_update
from models.blocks import SharedBatchNorm
from models.compiling import compile_parts
from models.multitask import MultiTaskNet, build_network
from models.replication import common_gates, common_noise, uses_all_weights
from models.shared_paths import HardGates
from models.synchronised import average_statistics, synchronise_norms
from tests.distributed.pairs import Pair
from tests.parity_inputs import policies
from utils.distributed import num_processes, rank

OUTPUTS = {
    "dense": {"seg": 5, "depth": 1},
    "classification": {"real": 5, "sketch": 5},
    "text": {"real": 5, "sketch": 5},
}


# What all are made of


def network(kind: str, **options: Any) -> MultiTaskNet:
    """Narrow, in float64, with weights that matter and dropout everywhere."""
    torch.manual_seed(3)
    backbone = "VDCNN9" if kind == "text" else "ResNet18"
    net = build_network(
        kind=kind, backbone=backbone, num_outputs=OUTPUTS[kind], backbone_width=4, head_width=4, num_words=30, **options
    )
    for name, parameter in net.backbone.named_parameters():
        if "conv" in name:
            nn.init.normal_(parameter, 0, 0.3)
    return synchronise_norms(net.double())


def own_rows(tensor: Tensor) -> Tensor:
    """This process's part of a batch."""
    return tensor.chunk(num_processes())[rank()]


def batch_of(kind: str) -> Batch:
    """This process's part: of four images, of which the first two hold hardly any ground truth, or of two domains."""
    random = torch.Generator().manual_seed(7)
    if kind == "dense":
        valid = torch.rand(4, 1, 32, 40, generator=random) < torch.tensor([0.02, 0.1, 0.9, 1.0]).view(4, 1, 1, 1)
        classes = torch.randint(0, 5, (4, 32, 40), generator=random)
        whole = {
            "img": 50 * torch.randn(4, 3, 32, 40, generator=random, dtype=torch.float64),
            "seg": torch.where(valid[:, 0], classes, 255),
            "depth": 5 * torch.rand(4, 1, 32, 40, generator=random),
            "depth_valid": valid,
        }
        return {name: own_rows(tensor) for name, tensor in whole.items()}
    # Of one image of 32x32, a ResNet's last blocks see one pixel.
    sizes = {"real": 6, "sketch": 2}
    if kind == "text":
        inputs = {task: torch.randint(0, 30, (size, 24), generator=random) for task, size in sizes.items()}
    else:
        inputs = {
            task: torch.randn(size, 3, 32, 32, generator=random, dtype=torch.float64) for task, size in sizes.items()
        }
    classes = {task: torch.randint(0, 5, (size,), generator=random) for task, size in sizes.items()}
    return {
        "text" if kind == "text" else "img": {task: own_rows(own) for task, own in inputs.items()},
        **{task: own_rows(own) for task, own in classes.items()},
    }


def gates_of(net: MultiTaskNet) -> HardGates:
    """One block is left out by all tasks."""
    gates = dict(zip(net.heads, policies(7, len(net.heads), net.num_blocks), strict=True))
    return {task: [*path[:2], 0, *path[3:]] for task, path in gates.items()}


def tasks_of(kind: str) -> dict[str, Any]:
    outputs = OUTPUTS[kind]
    return build_tasks("NYU_v2" if kind == "dense" else "DomainNet", list(outputs), list(outputs.values()))


# Steps


def state_after_weight_step(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a weight step leaves."""
    return state_after_weight_step_of(network(kind, **options), kind)


def state_after_step_in_backward() -> dict[str, Any]:
    """What a weight step leaves in which the weights are updated one by one."""
    return state_after_weight_step_of(network("dense", checkpointing=True), "dense", in_backward=True)


def state_after_compiled_step(backend: str | None) -> dict[str, Any]:
    """What a weight step without dropout leaves, of a network that is compiled unless the backend is None."""
    net = network("dense")
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0  # compiled, other bits are drawn
    if backend:
        compile_parts(net, backend)
    return state_after_weight_step_of(net, "dense")


def state_after_weight_step_of(net: MultiTaskNet, kind: str, in_backward: bool = False) -> dict[str, Any]:
    """What a weight step of this network leaves."""
    training_mode(net, fix_bn=False)
    gates, weights = gates_of(net), dict.fromkeys(OUTPUTS[kind], 2.0)
    replica, update = net_and_update(net, uses_all_weights(net, gates), in_backward)
    torch.manual_seed(1)
    optimiser = weight_optimiser(net, 0.01, 0.01)
    losses = weight_step(replica, gates, batch_of(kind), tasks_of(kind), weights, optimiser, update=update)
    return {
        "losses": losses,
        "gradients": {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None},
        "state": net.state_dict(),
        "random number": torch.rand(1),
    }


def state_after_policy_step(hard: bool) -> dict[str, Any]:
    """What a policy step leaves; each process would draw other gates."""
    net = network("dense")
    training_mode(net, fix_bn=False)
    torch.manual_seed(rank())
    draw_gates = net.policy.draw_hard_gates if hard else net.policy.draw_gates
    gates = common_gates(draw_gates(2.0, num_open=5, noise=common_noise))
    torch.manual_seed(1)
    regularisers = {"sparsity": sum(logits[:, 0].square().sum() for logits in net.policy.logits.values())}
    weights = {"seg": 20.0, "depth": 30.0, "sparsity": 0.5}
    optimiser = policy_optimiser(net, 0.01)
    losses = policy_step(net, gates, batch_of("dense"), tasks_of("dense"), weights, regularisers, optimiser)
    return {
        "losses": losses,
        "gates": {task: torch.stack([torch.as_tensor(gate) for gate in path]) for task, path in gates.items()},
        "gradients": {task: logits.grad for task, logits in net.policy.logits.items()},
        "state": net.state_dict(),
    }


WEIGHT_STEPS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("dense", {"checkpointing": True}),
    ("classification", {}),
    ("classification", {"task_bn": True}),
    ("text", {}),
]


def states_after_steps() -> dict[str, dict[str, Any]]:
    """Of every kind of step."""
    of_weights = {
        f"weights, {kind} {options}": state_after_weight_step(kind, options) for kind, options in WEIGHT_STEPS
    }
    of_policy = {f"policy, hard: {hard}": state_after_policy_step(hard) for hard in (False, True)}
    return of_weights | of_policy


@pytest.fixture(scope="module")
def steps(pair: Pair) -> list[dict[str, dict[str, Any]]]:
    """The states after each step: of one process, and of each of two."""
    return [states_after_steps(), *pair.run(states_after_steps)]


@pytest.mark.parametrize("step", [f"weights, {kind} {options}" for kind, options in WEIGHT_STEPS])
def test_a_weight_step_is_that_of_the_whole_batch(steps: list[dict[str, dict[str, Any]]], step: str) -> None:
    """Losses, gradients (and which there are none of), updates, statistics; no process draws other masks."""
    alone, *both = steps
    for of_process in both:
        close(of_process[step], alone[step])
    assert not alone[step]["gradients"].keys() >= dict(network("dense").named_parameters()).keys()


def test_a_step_in_the_backward_pass_is_that_of_the_whole_batch(pair: Pair) -> None:
    """Without gradients that are kept: the weights, which have learned, are what is compared."""
    alone = state_after_weight_step("dense", {})
    for of_process in pair.run(state_after_step_in_backward):
        assert of_process["gradients"] == {}
        close(of_process["state"], alone["state"])
        close(of_process["losses"], alone["losses"])


def state_from_different_weights(in_backward: bool) -> dict[str, Tensor]:
    """What a network holds, which each process has initialised differently, when steps are to begin."""
    net = network("dense")
    for value in net.state_dict().values():
        value += rank()
    net_and_update(net, uses_all_weights=True, in_backward=in_backward)
    return net.state_dict()


@pytest.mark.parametrize("in_backward", [False, True])
def test_all_begin_with_the_first_processs_weights_and_statistics(pair: Pair, in_backward: bool) -> None:
    expected = network("dense").state_dict()
    for of_process in pair.run(state_from_different_weights, in_backward):
        torch.testing.assert_close(of_process, expected, rtol=0, atol=0)


def test_a_compiled_step_is_that_of_the_whole_batch(pair: Pair) -> None:
    """What is compiled exchanges statistics, and has gradients of its own."""
    alone = state_after_compiled_step(None)
    for of_process in pair.run(state_after_compiled_step, "aot_eager"):
        close(of_process, alone)


@pytest.mark.parametrize("step", ["policy, hard: False", "policy, hard: True"])
def test_a_policy_step_is_that_of_the_whole_batch(steps: list[dict[str, dict[str, Any]]], step: str) -> None:
    """Through the first process's gates; what is lost on the logits themselves counts once."""
    alone, *both = steps
    for of_process in both:
        close(of_process[step], alone[step])


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses are computed in float32."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


# Norms that are not synchronised


def statistics_of_own_parts() -> tuple[Tensor, Tensor, Tensor]:
    """Running means of a norm that saw this process's part alone; after they were averaged; and the random part."""
    norm = SharedBatchNorm(3)
    part = own_rows(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)))
    norm(part)
    before = norm.running_mean.clone()
    average_statistics(nn.Sequential(norm))
    return part, before, norm.running_mean


def test_statistics_of_the_parts_are_averaged_where_they_are_to_be_seen(pair: Pair) -> None:
    (first, of_first, after), (second, of_second, also_after) = pair.run(statistics_of_own_parts)
    torch.testing.assert_close(of_first, 0.1 * first.mean(dim=(0, 2)))
    torch.testing.assert_close(of_second, 0.1 * second.mean(dim=(0, 2)))
    torch.testing.assert_close(after, (of_first + of_second) / 2)
    torch.testing.assert_close(also_after, after, rtol=0, atol=0)
