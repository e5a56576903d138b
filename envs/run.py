"""What the phases of a run share: its network, tasks, data, files and log."""

from dataclasses import dataclass
from typing import Any

from envs.data import Data, EvaluationBatches
from envs.evaluation import Evaluation, evaluate
from envs.run_files import Checkpoints, RunFiles
from envs.scoring import score
from envs.tasks import Task
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from models.synchronised import average_statistics
from utils.config import TrainSection
from utils.devices import random_states
from utils.interruption import Interruption
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


@dataclass(frozen=True)
class Run:
    """A network, what it learns from and where its results go.

    Attributes:
        loss_weights: weight of each loss: the lambdas of the tasks, and those of "sparsity" and "sharing".
        settings: the `train` section of the configuration.
        configuration: dotted key -> plain value, as checkpoints keep it.
        validation: batches that choose `best` (release: 11 of them).
        checkpoints: where this training is saved.
        interruption: asked after each step and before each evaluated batch whether to stop.
        fix_bn: whether BatchNorms keep to their running statistics while training.
    """

    net: MultiTaskNet
    tasks: dict[str, Task]
    loss_weights: dict[str, float]
    settings: TrainSection
    configuration: dict[str, Any]
    data: Data
    validation: EvaluationBatches
    files: RunFiles
    checkpoints: Checkpoints
    logger: RunLogger
    interruption: Interruption
    fix_bn: bool

    def evaluate(self, gates: Gates, iteration: int) -> ScoredEvaluation:
        """Evaluate on the validation batches, and log the outcome."""
        average_statistics(self.net)
        evaluation = evaluate(self.net, gates, self.validation, self.tasks, before_each=self.interruption.check)
        scored = ScoredEvaluation(evaluation, score(evaluation.metrics["release"], self.tasks), iteration)
        self.logger.scalars("evaluation", iteration, {"score": scored.score, **evaluation.flat()})
        self.logger.message(f"iteration {iteration}: score {scored.score:.4f}  {evaluation.headlines(self.tasks)}")
        return scored

    def state(self) -> dict[str, Any]:
        """What every checkpoint keeps, whatever the phase: weights, logits, random states and what they belong to.

        Processes call it together; they have all of it in common.
        """
        average_statistics(self.net)
        return {
            "mtl-net": self.net.state_dict(),
            "random_states": random_states(),
            "log_position": self.logger.position(),
            "seed": self.data.seed,
            "config": self.configuration,
            "num_samples": self.data.num_samples,
            "vocabulary": self.data.vocabulary,
            "class_names": self.data.class_names,
        }
