"""What the phases of a run share: its network, tasks, data and files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, device
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset, Sampler

from dataloaders import build_dataset
from dataloaders.loading import BatchLoader, FileOrderBatchSampler, PassBatchSampler, build_loader
from envs.evaluation import Evaluation, evaluate
from envs.losses import Batch
from envs.tasks import Task, check_classes, score
from models.multitask import MultiTaskNet
from models.shared_paths import Gates
from utils.checkpoint import save_checkpoint
from utils.config import DataloadSection, PathsSection, TrainSection
from utils.devices import random_states, to_device
from utils.files import write_json
from utils.logger import RunLogger, RunningMeans


@dataclass(frozen=True)
class RunFiles:
    """Where an experiment keeps its logs, checkpoints and results; names are the release's."""

    logs: Path
    checkpoints: Path
    results: Path

    @classmethod
    def of(cls, paths: PathsSection, exp_name: str) -> "RunFiles":
        """`{log_dir}/{exp_name}` and its siblings."""
        return cls(
            *(Path(folder) / exp_name for folder in (paths.log_dir, paths.checkpoint_dir, paths.result_dir))
        )

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


class BatchStream:
    """An endless stream of checked batches on the device; workers start with the first batch."""

    def __init__(self, loader: BatchLoader, batches_per_pass: int, prepare: "Preparation") -> None:
        self.batches_per_pass = batches_per_pass
        self._loader = loader
        self._prepare = prepare
        self._batches: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = iter(self._loader)
        return self._prepare(next(self._batches))


@dataclass(frozen=True)
class Preparation:
    """The last step of a batch before the network: class numbers checked, tensors moved to the device."""

    tasks: Mapping[str, Task]
    device: device

    def __call__(self, batch: Batch) -> Batch:
        check_classes(self.tasks, batch)
        return to_device(batch, self.device)


class Data:
    """The splits of an experiment, opened once, as streams of batches.

    Attributes:
        seed: key of every random draw of the pipeline.
        notes: what the user should know about the data root.

    Args:
        training_splits: those that will be trained on, of `train`, `train1` and `train2`.
        evaluation_splits: those whose frames are taken as they are, of `val` and `test`.

    Raises:
        UserError: whatever is wrong with the data root and these splits, before anything is computed.
    """

    def __init__(
        self,
        settings: DataloadSection,
        tasks: Mapping[str, Task],
        seed: int,
        device: device,
        training_splits: Sequence[str] = (),
        evaluation_splits: Sequence[str] = (),
    ) -> None:
        self.seed = seed
        self._num_workers = settings.num_workers
        self._prepare = Preparation(tasks, device)
        common = {
            "dataroot": settings.dataroot,
            "targets": tuple(task.target for task in tasks.values()),
            "normals": settings.normals,
            "seed": seed,
            "validation": settings.validation,
        }
        augmented = {
            "crop_size": (settings.crop_h, settings.crop_w),
            "augmentation": settings.augmentation,
        }
        self._training = {
            split: build_dataset(settings.dataset, split=split, **common, **augmented)
            for split in training_splits
        }
        self._evaluation = {
            split: build_dataset(settings.dataset, split=split, **common) for split in evaluation_splits
        }
        datasets = [*self._training.values(), *self._evaluation.values()]
        self.notes = tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes))

    def training(self, split: str, batch_size: int, start: int = 0) -> BatchStream:
        """Augmented batches, endlessly, from batch number `start` on."""
        dataset = self._training[split]
        sampler = PassBatchSampler(len(dataset), batch_size, self.seed, split, start)
        return BatchStream(self._loader(dataset, sampler), sampler.batches_per_pass, self._prepare)

    def evaluation(self, split: str, batch_size: int, whole: bool) -> "EvaluationBatches":
        """Frames as they are, in file order; `whole` keeps a last short batch."""
        dataset = self._evaluation[split]
        sampler = FileOrderBatchSampler(len(dataset), batch_size, keep_last=whole)
        return EvaluationBatches(self._loader(dataset, sampler), len(sampler), self._prepare)

    def image_size(self, split: str) -> tuple[int, int]:
        """(height, width) of the first frame of an evaluation split."""
        height, width = self._evaluation[split][0, 0]["img"].shape[-2:]
        return height, width

    def _loader(self, dataset: Dataset, sampler: Sampler) -> BatchLoader:
        return build_loader(dataset, sampler, self._num_workers, self._prepare.device.type == "cuda")


@dataclass(frozen=True)
class EvaluationBatches:
    """The batches of one evaluation; can be gone through again and again."""

    loader: BatchLoader
    num_batches: int
    prepare: Preparation

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return map(self.prepare, self.loader)


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
        loss_weights: the lambdas, task -> weight of its loss.
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
        self.logger.message(
            f"iteration {iteration}: score {scored.score:.4f}  {evaluation.headlines(self.tasks)}"
        )
        return scored

    def write_policy(self, iteration: int) -> None:
        """Write the execution probabilities of `best` as `policy.json`: task -> one probability per block."""
        probabilities = self.net.policy.execution_probabilities()
        write_json(
            self.files.results / "policy.json",
            {"checkpoint": "best", "iteration": iteration, "execution_probability": probabilities},
        )

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
    """Logs the means of the losses, raw and weighted, every `every` iterations."""

    def __init__(self, logger: RunLogger, every: int) -> None:
        self._logger = logger
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
        self._logger.scalars("train", iteration, {**raw, **weighted, **state})
        self._logger.show(iteration, means)
