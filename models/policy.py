"""The learned policy: which task executes which block.

Logits [L, 2] per task (index 0 = execute, 1 = skip) give P = softmax(logits). While learning, gates are drawn with
Gumbel-Softmax so that the losses reach the logits (paper section 3.1); afterwards architectures are sampled from P.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from models.shared_paths import Gates, HardGates
from utils.errors import UserError

T = TypeVar("T")

Noise = Callable[[Tensor], Tensor]
"""Logits -> noise of their shape."""

EXECUTE, SKIP = 0, 1


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise, -log(-log U), of the shape of `like` (-log U is exponential)."""
    return -torch.empty_like(like).exponential_().log()


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """softmax((logits + noise) / temperature) over the last axis: [..., 2] -> [..., 2].

    The temperature is at least 0; where it has decayed to next to nothing, the larger entry is 1 and the other 0.
    """
    perturbed = logits + noise
    # A common shift changes no softmax. Without this one, small temperatures lead to infinity minus infinity.
    behind = perturbed - perturbed.detach().amax(dim=-1, keepdim=True)
    return torch.softmax(behind / max(temperature, torch.finfo(behind.dtype).tiny), dim=-1)


def straight_through(probabilities: Tensor) -> Tensor:
    """One-hot at the larger entry of the last axis, with the gradient of `probabilities`."""
    one_hot = torch.zeros_like(probabilities).scatter_(-1, probabilities.argmax(-1, keepdim=True), 1.0)
    # The bracket is exactly 0, so that the values stay exactly 0 and 1.
    return one_hot + (probabilities - probabilities.detach())


def initial_logits(method: str, num_blocks: int, init_neg_logits: float | None) -> Tensor:
    """Logits [L, 2] by the release's `init_method`: `equal`, `random` or `all_chosen`."""
    if method == "equal":
        return torch.full((num_blocks, 2), 0.5)
    if method == "random":
        return 1e-3 * torch.randn(num_blocks, 2)
    if method == "all_chosen":
        return torch.tensor([0.0, init_neg_logits]).repeat(num_blocks, 1)
    raise ValueError(f"init_method is equal, random or all_chosen, not {method!r}")


@dataclass(frozen=True)
class Curriculum:
    """How many of the last blocks follow the policy; the earlier ones are executed by all (paper section 3.3).

    Attributes:
        num_blocks: blocks that have logits.
        speed: policy periods until one more block opens; None opens all from the start.
    """

    num_blocks: int
    speed: int | None

    def num_open(self, period: int) -> int:
        """Open blocks in policy period p, counted from 0: p // speed + 1."""
        if self.speed is None:
            return self.num_blocks
        return min(period // self.speed + 1, self.num_blocks)

    @property
    def periods(self) -> int:
        """Policy periods until the curriculum is over and a checkpoint may be `best` (release)."""
        return 0 if self.speed is None else self.num_blocks * self.speed


class Policy(nn.Module):
    """Execution logits per task, for all blocks but the first `skip_layer`, which every task always executes.

    `num_blocks` is L, the number of the backbone's blocks; `num_policy_blocks` = L - skip_layer have logits.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        num_blocks: int,
        init_method: str = "equal",
        init_neg_logits: float | None = None,
        skip_layer: int = 0,
    ) -> None:
        super().__init__()
        self.num_blocks = num_blocks
        self.num_policy_blocks = num_blocks - skip_layer
        self.logits = nn.ParameterDict()
        # One by one, since ParameterDict sorts a dict, and architectures are sampled in the order of the tasks.
        for task in tasks:
            self.logits[task] = initial_logits(init_method, self.num_policy_blocks, init_neg_logits)

    def draw_gates(self, temperature: float, num_open: int, noise: Noise = gumbel_noise) -> Gates:
        """Soft gates of one training step, differentiable in the logits.

        Curriculum (section 3.3): only the last `num_open` blocks follow the policy, the earlier ones are executed.
        """
        drawn = self._draw(temperature, noise)
        return {
            task: self._behind_executed(probabilities[:, EXECUTE].unbind(), num_open)
            for task, probabilities in drawn.items()
        }

    def draw_hard_gates(self, temperature: float, num_open: int, noise: Noise = gumbel_noise) -> Gates:
        """As `draw_gates`, but with values of 0 or 1 (`hard_sampling`); the gradients are the soft gates'."""
        drawn = self._draw(temperature, noise)
        return {
            task: self._behind_executed(straight_through(probabilities)[:, EXECUTE].unbind(), num_open)
            for task, probabilities in drawn.items()
        }

    def _draw(self, temperature: float, noise: Noise) -> dict[str, Tensor]:
        """task -> Gumbel-Softmax of its logits [L, 2]."""
        return {task: gumbel_softmax(logits, noise(logits), temperature) for task, logits in self.logits.items()}

    def _behind_executed(self, of_policy: Sequence[T], num_open: int) -> list[T | int]:
        """One value per block: 1 for the closed ones, then those of the last `num_open` blocks with logits."""
        if not 0 <= num_open <= self.num_policy_blocks:
            raise ValueError(f"0 to {self.num_policy_blocks} blocks can be open, not {num_open}")
        return [1] * (self.num_blocks - num_open) + list(of_policy[self.num_policy_blocks - num_open :])

    @torch.no_grad()
    def _probabilities(self) -> dict[str, np.ndarray]:
        """task -> P, float64 [L, 2]; on the CPU, so that every device gives the same to the last bit."""
        probabilities = {
            task: torch.softmax(logits.cpu().double(), dim=-1).numpy() for task, logits in self.logits.items()
        }
        for task, of_task in probabilities.items():
            if not np.isfinite(of_task).all():
                raise UserError(
                    f"The policy of {task} has logits that are NaN or infinite, so it says nothing: lower policy_lr "
                    "or use an earlier checkpoint."
                )
        return probabilities

    def execution_probabilities(self, num_open: int | None = None) -> dict[str, list[float]]:
        """P(execute) per task and block, in [0, 1]; 1 for blocks without logits and those not among the last open.

        Raises:
            UserError: logits are NaN or infinite.
        """
        num_open = self.num_policy_blocks if num_open is None else num_open
        return {
            task: [float(share) for share in self._behind_executed(probabilities[:, EXECUTE], num_open)]
            for task, probabilities in self._probabilities().items()
        }

    def sample_architecture(self, seed: int, num_open: int | None = None) -> HardGates:
        """Hard gates drawn from P, task by task and block by block; the same seed gives the same architecture.

        The draws are the release's (NumPy's legacy `RandomState`), so that its seeds give its architectures. With
        `num_open`, only the last blocks follow the policy, as in the curriculum.

        Raises:
            UserError: logits are NaN or infinite.
        """
        num_open = self.num_policy_blocks if num_open is None else num_open
        random = np.random.RandomState(seed)
        # All blocks are drawn, the closed ones too, so that opening a block changes no other.
        sampled = {
            task: [int(random.choice((1, 0), p=row)) for row in probabilities]
            for task, probabilities in self._probabilities().items()
        }
        return {task: self._behind_executed(gates, num_open) for task, gates in sampled.items()}
