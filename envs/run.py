"""What the phases of a run share: its network, tasks, data, files and reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.data import Data, EvaluationBatches
from envs.evaluation import Evaluation, evaluate
from envs.tasks import Task, score
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.checkpoint import save_checkpoint
from utils.config import PathsSection, TrainSection
from utils.devices import random_states
from utils.files import write_json
from utils.logger import RunLogger, RunningMeans
from utils.pictures import save_shares


@dataclass(frozen=True)
class RunFiles:
    """Where an experiment keeps its logs, checkpoints and results; names are the release's."""

    logs: Path
    checkpoints: Path
    results: Path

    @classmethod
    def of(cls, paths: PathsSection, exp_name: str) -> "RunFiles":
        """`{log_dir}/{exp_name}` and its siblings."""
        return cls(*(Path(folder) / exp_name for folder in (paths.log_dir, paths.checkpoint_dir, paths.result_dir)))

    def checkpoint(self, label: str) -> Path:
        """Checkpoint of a label such as `warmup`, `latest`, `best` or a `retrain_label`."""
        return self.checkpoints / f"{label}_model.pth.tar"

    @staticmethod
    def retrain_label(exp_id: int, policy_iter: str, which: str) -> str:
        """Label of retraining number `exp_id`; `which` is `latest` or `best`."""
        return f"retrain{exp_id:03d}_policyIter{policy_iter}_{which}"

    def gates(self, policy_iter: str, seed: int) -> Path:
        """Sampled gates, as JSON; the release keeps a pickle of the same stem beside it."""
        return self.checkpoints / f"policyIter{policy_iter}_rs{seed:04d}.json"


@dataclass(frozen=True)
class ScoredEvaluation:
    """An evaluation with the score that chooses `best`, and the iteration it belongs to."""

    evaluation: Evaluation
    score: float
    iteration: int

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

    def write_policy(self, iteration: int) -> None:
        """Write the execution probabilities of `best`, task -> one per block, as `policy.json` and `policy.png`."""
        probabilities = self.net.policy.execution_probabilities()
        write_json(
            self.files.results / "policy.json",
            {"checkpoint": "best", "iteration": iteration, "execution_probability": probabilities},
        )
        save_shares(self.files.results / "policy.png", probabilities, f"P(execute) at iteration {iteration}")

    def save(
        self,
        label: str,
        iteration: int,
        optimisers: Mapping[str, Optimizer],
        decays: Mapping[str, LRScheduler],
        best: ScoredEvaluation | None,
        **progress: float | str,
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
                **progress,
            },
        )


class StepReports:
    """Logs the means of one kind of step's losses, raw and weighted, every `every` iterations."""

    def __init__(self, logger: RunLogger, kind: str, every: int) -> None:
        self._logger = logger
        self._kind = kind
        self._every = every
        self._means = RunningMeans()

    def report(
        self,
        iteration: int,
        losses: Mapping[str, Tensor],
        loss_weights: Mapping[str, float],
        state: Mapping[str, float],
    ) -> None:
        """Take in one step's losses, and log where a report is due.

        Args:
            losses: raw losses by name, and their weighted sum as "total"; scalars on their device.
            state: temperature, open blocks, learning rates and the like, logged as they are.
        """
        self._means.update(losses)
        if iteration % self._every:
            return
        means = self._means.pop()
        weighted = {f"weighted/{name}": loss_weights[name] * means[name] for name in means if name != "total"}
        raw = {f"loss/{name}": mean for name, mean in means.items()}
        self._logger.scalars(self._kind, iteration, {**raw, **weighted, **state})
        self._logger.show(iteration, means)
