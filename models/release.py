"""The released checkpoints' key names -> ours.

The released code numbers tasks from 1 and keeps blocks by stage: `backbone.blocks.{stage}.{i}.conv1.weight`,
`backbone.ds.{stage}.{0,1}`, `task{k}_fc1_c{branch}.conv1.weight`, `task{k}_logits`. These are the networks for dense
tasks; how the released code names those for DomainNet is not known here.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from models.multitask import MultiTaskNet
from models.policy import EXECUTE
from models.shared_paths import HardGates


def is_release_state(state: dict[str, Tensor]) -> bool:
    """Whether a state dict carries the released code's names."""
    return any(re.match(r"task\d+_(logits|fc1_c0)", key) for key in state)


def release_names(net: MultiTaskNet) -> dict[str, str]:
    """Our state-dict keys -> the released names, for every key of `net`."""
    return {key: _release_name(net, key) for key in net.state_dict()}


def from_release(state: dict[str, Tensor], net: MultiTaskNet) -> dict[str, Tensor]:
    """Rename a released state dict to our keys; keys that `net` does not have keep their name.

    Loading the result strictly then names whatever is missing or left over.
    """
    our_names = {released: ours for ours, released in release_names(net).items()}
    return {our_names.get(key, key): value for key, value in state.items()}


def gates_from_release(policies: dict[str, Tensor], tasks: Sequence[str]) -> HardGates:
    """The release's sampled policies, `task{k}_policy` one-hot [L, 2], as gates.

    Raises:
        ValueError: other names than those of the tasks in order, or tensors of another form.
    """
    expected = [f"task{number}_policy" for number in range(1, len(tasks) + 1)]
    if sorted(policies) != sorted(expected):
        raise ValueError(f"it names {sorted(policies)}; expected {expected}, one per task.")
    for name, policy in policies.items():
        if policy.ndim != 2 or policy.shape[1] != 2 or not _is_one_hot(policy):
            raise ValueError(f"{name} has shape {list(policy.shape)}; expected one-hot rows [blocks, 2].")
    return {task: policies[name][:, EXECUTE].int().tolist() for task, name in zip(tasks, expected, strict=True)}


def _is_one_hot(policy: Tensor) -> bool:
    return bool(((policy == 0) | (policy == 1)).all() and (policy.sum(dim=1) == 1).all())


def _release_name(net: MultiTaskNet, key: str) -> str:
    numbers = {task: number for number, task in enumerate(net.heads, start=1)}
    part, _, rest = key.partition(".")
    if part == "policy":
        task = rest.removeprefix("logits.")
        return f"task{numbers[task]}_logits"
    if part == "heads":
        task, _, branch, parameter = rest.split(".", 3)
        return f"task{numbers[task]}_fc1_c{branch}.{parameter}"
    if rest.startswith("stem."):
        return "backbone." + rest.removeprefix("stem.").replace("conv.", "conv1.").replace("bn.", "bn1.")
    _, index, branch, parameter = rest.split(".", 3)
    stage, position = net.backbone.stage_and_position(int(index))
    if branch == "shortcut":
        return f"backbone.ds.{stage}." + parameter.replace("conv.", "0.").replace("bn.", "1.")
    return f"backbone.blocks.{stage}.{position}.{parameter}"
