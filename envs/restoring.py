"""Networks, policies and architectures back from their files, our own or the release's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.batches import ClassNames
from models.multitask import MultiTaskNet
from models.policy import Policy
from models.release import from_release, gates_from_release, is_release_state
from models.resnet import DilatedResNet
from models.shared_paths import HardGates
from utils.checkpoint import load_checkpoint, load_gates, load_tensor_pickle, load_weights
from utils.errors import UserError


@dataclass(frozen=True)
class LearnedPolicy:
    """A policy from a checkpoint.

    Attributes:
        num_open: how many of the last blocks follow it; None for all that have logits.
        vocabulary: the words that the network has learned; None for images.
    """

    policy: Policy
    num_open: int | None
    vocabulary: tuple[str, ...] | None = None


def load_network(net: MultiTaskNet, path: Path) -> dict[str, Any]:
    """Load weights and logits from one of our checkpoints or of the release's; returns what else it holds.

    Raises:
        UserError: no such checkpoint, or one that does not fit the network.
    """
    checkpoint = load_checkpoint(path)
    load_weights(net, our_state(checkpoint.pop("mtl-net"), net, path), path)
    return checkpoint


def load_learned_policy(net: MultiTaskNet, path: Path) -> LearnedPolicy:
    """Load weights and logits into `net`, for sampling from its policy; raises as `load_network`."""
    checkpoint = load_network(net, path)
    num_open, blocks = checkpoint.get("open_blocks"), net.policy.num_policy_blocks
    if num_open is not None and (not isinstance(num_open, int) or not 0 <= num_open <= blocks):
        raise UserError(f"checkpoint {path} says {num_open} for how many of {blocks} blocks are open; choose another.")
    return LearnedPolicy(net.policy, num_open, kept_vocabulary(checkpoint, path))


@dataclass(frozen=True)
class WarmStart:
    """What weights from a checkpoint come with.

    Attributes:
        vocabulary: the words that the network has learned; None for images.
        log_position: bytes of `metrics.jsonl` that were written until then; 0 where the checkpoint does not say.
    """

    vocabulary: tuple[str, ...] | None
    log_position: int


def load_without_policy(net: MultiTaskNet, path: Path) -> WarmStart:
    """Load the weights of a checkpoint and keep the logits as they are (`train.resume`); raises as `load_network`."""
    checkpoint = load_checkpoint(path)
    state = our_state(checkpoint["mtl-net"], net, path)
    weights = {key: value for key, value in state.items() if not key.startswith("policy.")}
    fresh = {key: value for key, value in net.state_dict().items() if key.startswith("policy.")}
    load_weights(net, weights | fresh, path)
    position = checkpoint.get("log_position")
    return WarmStart(kept_vocabulary(checkpoint, path), position if isinstance(position, int) else 0)


def kept_vocabulary(checkpoint: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    """The words that a checkpoint's network has learned, None for images; `UserError` for anything but words."""
    words = checkpoint.get("vocabulary")
    if words is None:
        return None
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise UserError(f"checkpoint {path} has a vocabulary that is no list of words; choose another.")
    return tuple(words)


def our_state(state: dict[str, Any], net: MultiTaskNet, path: Path) -> dict[str, Any]:
    """A state dict under our names, whichever it came with; raises `UserError` for names that are not known."""
    if not is_release_state(state):
        return state
    if not isinstance(net.backbone, DilatedResNet):
        raise UserError(
            f"checkpoint {path} bears the release's names, which are known here for dense tasks alone: "
            "use one that train.py or re-train.py wrote."
        )
    return from_release(state, net)


def load_architecture(net: MultiTaskNet, path: Path) -> HardGates:
    """Gates sampled before: our JSON at `path`, else the release's pickle of the same stem beside it.

    Raises:
        UserError: neither file exists, both do but differ, or the gates do not fit the network's tasks and blocks.
    """
    pickled = path.with_suffix(".pickle")
    readings = {}
    if path.is_file():
        readings[path] = load_gates(path)
    if pickled.is_file():
        readings[pickled] = load_release_gates(pickled, list(net.heads))
    if not readings:
        raise UserError(f"sampled gates {path} (or {pickled.name}) do not exist: run re-train.py first.")
    gates, *others = readings.values()
    if others and others[0] != gates:
        raise UserError(f"gates {path} and {pickled.name} differ: remove the one that is not meant.")
    expected = dict.fromkeys(net.heads, net.num_blocks)
    found = {task: len(path_gates) for task, path_gates in gates.items()}
    if found != expected:
        raise UserError(
            f"gates {next(iter(readings))} are for {found} (task: blocks), but the network has {expected}; "
            "set backbone and tasks as they were when they were sampled."
        )
    return {task: gates[task] for task in net.heads}


def load_release_gates(path: Path, tasks: Sequence[str]) -> HardGates:
    """The gates of one of the release's pickles.

    Raises:
        UserError: the file holds anything but one one-hot tensor per task.
    """
    policies = load_tensor_pickle(path)
    try:
        return gates_from_release(policies, tasks)
    except ValueError as error:
        raise UserError(f"policy {path} does not fit the configured tasks: {error}") from error


def kept_class_names(checkpoint: dict[str, Any], path: Path) -> ClassNames:
    """Names of each task's classes, as far as a checkpoint knows; `UserError` for anything but names."""
    names = checkpoint.get("class_names", {})
    if not isinstance(names, dict) or not all(isinstance(of_task, dict) for of_task in names.values()):
        raise UserError(f"checkpoint {path} has class names that are no names by task and class; choose another.")
    return names


@dataclass(frozen=True)
class Retrained:
    """An architecture with its weights on disk.

    Attributes:
        iteration: when the weights were saved; None where the checkpoint does not say.
        vocabulary: the words that the network has learned; None for images.
        class_names: task -> class -> name, as far as the training data told.
    """

    gates: HardGates
    checkpoint: Path
    iteration: int | None
    vocabulary: tuple[str, ...] | None = None
    class_names: ClassNames = field(default_factory=dict)


def read_retrained(net: MultiTaskNet, gates_path: Path, checkpoint_path: Path) -> Retrained:
    """Read an architecture and its weights, which `net` then holds.

    Raises:
        UserError: a file is missing or does not fit the network, or the weights were trained under other gates, as
            far as the checkpoint knows.
    """
    gates = load_architecture(net, gates_path)
    checkpoint = load_network(net, checkpoint_path)
    if checkpoint.get("gates", gates) != gates:
        raise UserError(
            f"checkpoint {checkpoint_path} was trained under other gates than those sampled now: run re-train.py."
        )
    return Retrained(
        gates,
        checkpoint_path,
        checkpoint.get("iter"),
        kept_vocabulary(checkpoint, checkpoint_path),
        kept_class_names(checkpoint, checkpoint_path),
    )


def common_vocabulary(architectures: Iterable[Retrained]) -> tuple[str, ...] | None:
    """The vocabulary that all have learned; `UserError` where they differ."""
    first, *others = architectures
    for other in others:
        if other.vocabulary != first.vocabulary:
            raise UserError(
                f"checkpoints {first.checkpoint} and {other.checkpoint} have learned different words: "
                "test one at a time."
            )
    return first.vocabulary
