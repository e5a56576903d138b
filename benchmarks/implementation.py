"""What a contender of the benchmark is: one way to do the work, the release's or one of ours."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.work import Work
from models.shared_paths import HardGates
from utils.memory import return_freed_memory
from utils.precision import allow_tf32

LEARNING_RATE = 1e-5
"""Of all optimisers: hundreds of steps on noise must not lead the weights astray."""


@dataclass(frozen=True)
class Training:
    """What takes the steps of a phase.

    Attributes:
        step: called as `step(gates, batch)` to update the weights, as `step(gates, batch, regularisers=...)` to update
            the logits.
    """

    optimiser: Optimizer
    step: Callable[..., object]


class Implementation(ABC):
    """A network and its steps. The networks of all implementations hold the same weights under the same names.

    Attributes:
        name: in tables.
        rate: which of the machine's rates of matrix products its operations are held against.
        returns_memory: whether freed memory goes back to the system at once, which costs time.
        compiling_passes: the first passes, which are not timed, while its parts are being compiled.
    """

    name: str
    rate: str
    returns_memory: bool = False
    compiling_passes: int = 0

    def switch(self) -> None:
        """Set what belongs to the process instead of the network; called before every pass."""
        allow_tf32(self.rate == "tf32")
        return_freed_memory(at_once=self.returns_memory)

    @abstractmethod
    def build(self, work: Work, device: torch.device) -> nn.Module:
        """The network of the work with seeded weights; it has `num_blocks`, `backbone`, `policy` and `heads`."""

    @abstractmethod
    def prepare_test(self, net: nn.Module, gates: HardGates) -> nn.Module:
        """What a test runs under fixed gates, as `(image, gates)`; the network's mode may change."""

    @abstractmethod
    def computing(self, net: nn.Module) -> AbstractContextManager:
        """What the heads must be run in to compute as they do within the network."""

    @abstractmethod
    def full_training(self, net: nn.Module, work: Work) -> Training:
        """Of warm-up and retraining."""

    @abstractmethod
    def alternate_training(self, net: nn.Module, work: Work) -> Training:
        """Of the weights while the policy is learned."""

    @abstractmethod
    def policy_training(self, net: nn.Module, work: Work) -> Training:
        """Of the policy."""
