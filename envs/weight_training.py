"""Training the weights under fixed gates: warm-up and retraining are this loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.optimisers import learning_rates, step_decay, warm_up_optimiser
from envs.restoring import kept_vocabulary
from envs.run import Run, ScoredEvaluation
from envs.step_reports import StepReports
from envs.steps import training_mode, weight_step
from models.shared_paths import HardGates
from utils.checkpoint import load_checkpoint, load_weights
from utils.devices import restore_random_states
from utils.errors import UserError


@dataclass
class WeightTraining:
    """What trains the weights, under which gates, and how far it has come.

    Attributes:
        iteration: the last finished one.
        best: the best evaluation so far; None before the first.
    """

    gates: HardGates
    optimiser: Optimizer
    decay: LRScheduler
    iteration: int = 0
    best: ScoredEvaluation | None = None

    @classmethod
    def start(cls, run: Run, gates: HardGates) -> "WeightTraining":
        """Adam with the rates and decays of warm-up (release: retraining has the same)."""
        settings = run.settings
        optimiser = warm_up_optimiser(run.net, settings.heads_lr, settings.backbone_lr)
        backbone_decay = (settings.decay_lr_freq, settings.decay_lr_rate)
        return cls(gates, optimiser, step_decay(optimiser, settings.heads_decay_lr, backbone_decay))

    def save(self, run: Run, label: str) -> None:
        """Save network, gates and training state under a label."""
        optimisers, decays = {"weights": self.optimiser}, {"weights": self.decay}
        temperature = run.settings.init_temp
        run.save(label, self.iteration, optimisers, decays, self.best, temp=temperature, gates=self.gates)

    def restore(self, run: Run, checkpoint: dict[str, Any], path: Path) -> None:
        """Take network and training state back from a checkpoint that `save` wrote and `read_training_state` read."""
        load_weights(run.net, checkpoint["mtl-net"], path)
        self.optimiser.load_state_dict(checkpoint["optimisers"]["weights"])
        self.decay.load_state_dict(checkpoint["decays"]["weights"])
        self.iteration = checkpoint["iter"]
        self.best = ScoredEvaluation.from_dict(checkpoint["best"]) if checkpoint["best"] else None
        restore_random_states(checkpoint["random_states"])


def read_training_state(path: Path, gates: HardGates, vocabulary: tuple[str, ...] | None) -> dict[str, Any]:
    """Read a checkpoint that `WeightTraining.restore` can go on from under these gates, and with these words.

    Raises:
        UserError: no such checkpoint, one without training state, or one of other gates or words.
    """
    checkpoint = load_checkpoint(path)
    if not {"gates", "iter", "optimisers", "decays", "best", "random_states"} <= checkpoint.keys():
        raise UserError(f"checkpoint {path} holds no training state and cannot be resumed; train anew.")
    if checkpoint["gates"] != gates:
        raise UserError(
            f"checkpoint {path} was trained under other gates than the policy gives now; train anew, "
            "without train.retrain_resume."
        )
    if kept_vocabulary(checkpoint, path) != vocabulary:
        raise UserError(
            f"checkpoint {path} has learned other words than the policy's; train anew, without train.retrain_resume."
        )
    return checkpoint


def train_weights(run: Run, training: WeightTraining, until: int, title: str, latest: str, best: str | None) -> None:
    """Train on `train` up to and including iteration `until`; evaluate every `val_freq`.

    Args:
        title: of the progress bar.
        latest, best: labels of the checkpoints saved at each evaluation, and where it is the best so far.
            Without a label for the best, none is kept.
    """
    settings = run.settings
    batches = run.data.training("train", settings.batch_size, start=training.iteration)
    reports = StepReports(run.logger, "weights", settings.print_freq, run.loss_weights)
    training_mode(run.net, run.fix_bn)
    rates: dict[str, float] = {}
    for iteration in run.logger.progress(range(training.iteration + 1, until + 1), title, until):
        losses = weight_step(run.net, training.gates, next(batches), run.tasks, run.loss_weights, training.optimiser)
        rates = learning_rates(training.optimiser)
        training.decay.step()
        training.iteration = iteration
        reports.add(iteration, losses, rates)
        if iteration % settings.val_freq == 0:
            keep_evaluated(run, training, latest, best)
    reports.report(training.iteration, rates)
    training.save(run, latest)
    if best and training.best is None:
        run.logger.message(f"no evaluation within {until} iterations, so the final state becomes {best}")
        keep_evaluated(run, training, latest, best)


def keep_evaluated(run: Run, training: WeightTraining, latest: str, best: str | None) -> None:
    """Evaluate, save as `latest`, and as `best` if nothing before scored higher."""
    scored = run.evaluate(training.gates, training.iteration)
    if best and scored.is_better_than(training.best):
        training.best = scored
        training.save(run, best)
    training.save(run, latest)
