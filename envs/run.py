"""What the phases of a run share: its network, tasks, data, files and log."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.data import Data, EvaluationBatches
from envs.evaluation import Evaluation, evaluate
from envs.run_files import RunFiles
from envs.scoring import score
from envs.tasks import Task
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.checkpoint import save_checkpoint
from utils.config import TrainSection
from utils.devices import random_states
from utils.logger import RunLogger


@dataclass(frozen=True)
class ScoredEvaluation:
    """An evaluation with the score that chooses `best`, and the iteration it belongs to."""

    evaluation: Evaluation
    score: float
    iteration: int

    def is_better_than(self, other: "ScoredEvaluation | None") -> bool:
        """Whether the score is higher; anything is better than nothing."""
        return other is None or self.score > other.score

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ScoredEvaluation":
        """Back from `dataclasses.asdict`, as checkpoints keep it."""
        return cls(Evaluation(**values["evaluation"]), values["score"], values["iteration"])


@dataclass(frozen=True)
class Run:
    """A network, what it learns from and where its results go.

    Attributes:
        loss_weights: weight of each loss: the lambdas of the tasks, and those of "sparsity" and "sharing".
        settings: the `train` section of the configuration.
        validation: batches that choose `best`.
        fix_bn: whether BatchNorms keep to their running statistics while training.
    """

    net: MultiTaskNet
    tasks: dict[str, Task]
    loss_weights: dict[str, float]
    settings: TrainSection
    data: Data
    validation: EvaluationBatches
    files: RunFiles
    logger: RunLogger
    fix_bn: bool

    def evaluate(self, gates: Gates, iteration: int) -> ScoredEvaluation:
        """Evaluate on the validation batches, at most `eval_batches` of them (release), and log the outcome."""
        evaluation = evaluate(self.net, gates, self.validation, self.tasks, self.settings.eval_batches)
        scored = ScoredEvaluation(evaluation, score(evaluation.metrics["release"], self.tasks), iteration)
        self.logger.scalars("evaluation", iteration, {"score": scored.score, **evaluation.flat()})
        self.logger.message(f"iteration {iteration}: score {scored.score:.4f}  {evaluation.headlines(self.tasks)}")
        return scored

    def save(
        self,
        label: str,
        iteration: int,
        optimisers: Mapping[str, Optimizer],
        decays: Mapping[str, LRScheduler],
        best: ScoredEvaluation | None,
        **progress: Any,
    ) -> None:
        """Save weights and logits with all training state under a label.

        `progress` holds what else the phase counts; `temp` is the release's name for the temperature.
        """
        save_checkpoint(
            self.files.checkpoint(label),
            {
                "mtl-net": self.net.state_dict(),
                "iter": iteration,
                "optimisers": {name: optimiser.state_dict() for name, optimiser in optimisers.items()},
                "decays": {name: decay.state_dict() for name, decay in decays.items()},
                "best": asdict(best) if best else None,
                "random_states": random_states(),
                "vocabulary": self.data.vocabulary,
                "class_names": self.data.class_names,
                **progress,
            },
        )
