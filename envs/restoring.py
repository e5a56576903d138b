"""Networks, policies and architectures back from their files, our own or the release's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from envs.batches import ClassNames
from models.multitask import MultiTaskNet
from models.policy import Policy
from models.release import from_release, gates_from_release, is_release_state
from models.resnet import DilatedResNet
from models.shared_paths import HardGates
from utils.checkpoint import load_checkpoint, load_gates, load_tensor_pickle, load_weights
from utils.errors import UserError

NotNegative = Annotated[int, Field(ge=0)]


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


class Facts(BaseModel):
    """What a checkpoint knows beside weights and logits; the release's know the iteration alone.

    Attributes:
        iteration: when it was saved.
        phase: the phase then.
        log_position: bytes of `metrics.jsonl` that were written by then.
        open_blocks: how many of the last blocks followed the policy.
        gates: the architecture that was trained.
        vocabulary: the words that the network has learned; None for images.
        class_names: task -> class -> name, as far as the training data told.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    iteration: NotNegative | None = Field(None, alias="iter")
    phase: str | None = None
    log_position: NotNegative = 0
    open_blocks: NotNegative | None = None
    gates: HardGates | None = None
    vocabulary: tuple[str, ...] | None = None
    class_names: dict[str, dict[int, str]] = {}

    @field_validator("vocabulary", mode="before")
    @classmethod
    def _list_to_tuple(cls, words: Any) -> Any:
        return tuple(words) if isinstance(words, list) else words


def facts_of(checkpoint: dict[str, Any], path: Path) -> Facts:
    """What a checkpoint's content says; `UserError` for what neither train.py nor re-train.py writes."""
    try:
        return Facts.model_validate(checkpoint)
    except ValidationError as error:
        wrong = ", ".join(dict.fromkeys(str(details["loc"][0]) for details in error.errors()))
        raise UserError(
            f"checkpoint {path} holds something else than train.py and re-train.py write ({wrong}); choose another."
        ) from error


def load_network(net: MultiTaskNet, path: Path) -> Facts:
    """Load weights and logits from one of our checkpoints or of the release's; returns what else it knows.

    Raises:
        UserError: no such checkpoint, or one that does not fit the network.
    """
    checkpoint = load_checkpoint(path)
    load_weights(net, our_state(checkpoint["mtl-net"], net, path), path)
    return facts_of(checkpoint, path)


def load_learned_policy(net: MultiTaskNet, path: Path) -> LearnedPolicy:
    """Load weights and logits into `net`, for sampling from its policy; raises as `load_network`."""
    facts, blocks = load_network(net, path), net.policy.num_policy_blocks
    if facts.open_blocks is not None and facts.open_blocks > blocks:
        raise UserError(
            f"checkpoint {path} says that {facts.open_blocks} blocks follow the policy, of {blocks}; choose another."
        )
    return LearnedPolicy(net.policy, facts.open_blocks, facts.vocabulary)


def load_without_policy(net: MultiTaskNet, path: Path) -> Facts:
    """As `load_network`, but keeps the logits as they are (`train.resume`)."""
    checkpoint = load_checkpoint(path)
    state = our_state(checkpoint["mtl-net"], net, path)
    weights = {key: value for key, value in state.items() if not key.startswith("policy.")}
    fresh = {key: value for key, value in net.state_dict().items() if key.startswith("policy.")}
    load_weights(net, weights | fresh, path)
    return facts_of(checkpoint, path)


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
        raise UserError(f"policy {path} does not fit the configured tasks: {str(error)[:300]}") from error


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
    facts = load_network(net, checkpoint_path)
    if facts.gates not in (None, gates):
        raise UserError(
            f"checkpoint {checkpoint_path} was trained under other gates than those sampled now: run re-train.py."
        )
    return Retrained(gates, checkpoint_path, facts.iteration, facts.vocabulary, facts.class_names)


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
