"""Training the weights under fixed gates: warm-up and retraining are this loop."""

from dataclasses import dataclass
from pathlib import Path

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from envs.optimisers import learning_rates, step_decay, warm_up_optimiser
from envs.run import Run, ScoredEvaluation, StepReports
from envs.steps import training_mode, weight_step
from models.shared_paths import Gates
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UserError


@dataclass
class WeightTraining:
    """What trains the weights, and how far it has come.

    Attributes:
        iteration: the last finished one.
        best: the best evaluation so far; None before the first.
    """

    optimiser: Optimizer
    decay: LRScheduler
    iteration: int = 0
    best: ScoredEvaluation | None = None

    @classmethod
    def start(cls, run: Run) -> "WeightTraining":
        """Adam with the rates and decays of warm-up (release: retraining has the same)."""
        settings = run.settings
        optimiser = warm_up_optimiser(run.net, settings.heads_lr, settings.backbone_lr)
        backbone_decay = (settings.decay_lr_freq, settings.decay_lr_rate)
        return cls(optimiser, step_decay(optimiser, settings.heads_decay_lr, backbone_decay))

    def save(self, run: Run, label: str) -> None:
        """Save network and training state under a label."""
        optimisers, decays = {"weights": self.optimiser}, {"weights": self.decay}
        run.save(label, self.iteration, optimisers, decays, self.best, temp=run.settings.init_temp)

    def restore(self, run: Run, path: Path) -> None:
        """Take network and training state back from a checkpoint that `save` wrote.

        Raises:
            UserError: no such checkpoint, or one that does not fit the network or holds no training state.
        """
        checkpoint = load_checkpoint(path)
        load_weights(run.net, checkpoint["mtl-net"], path)
        if "optimisers" not in checkpoint:
            raise UserError(f"checkpoint {path} holds weights only and cannot be resumed; train anew.")
        self.optimiser.load_state_dict(checkpoint["optimisers"]["weights"])
        self.decay.load_state_dict(checkpoint["decays"]["weights"])
        self.iteration = checkpoint["iter"]
        self.best = ScoredEvaluation.from_dict(checkpoint["best"]) if checkpoint["best"] else None


def train_weights(
    run: Run, training: WeightTraining, gates: Gates, until: int, title: str, latest: str, best: str | None
) -> None:
    """Train on `train` under fixed gates up to and including iteration `until`; evaluate every `val_freq`.

    Args:
        title: of the progress bar.
        latest, best: labels of the checkpoints saved at each evaluation, and where it is the best so far.
            Without a label for the best, none is kept.
    """
    settings = run.settings
    batches = run.data.training("train", settings.batch_size, start=training.iteration)
    reports = StepReports(run.logger, "weights", settings.print_freq)
    training_mode(run.net, run.fix_bn)
    first = training.iteration + 1
    for iteration in run.logger.progress(range(first, until + 1), title, until):
        losses = weight_step(run.net, gates, next(batches), run.tasks, run.loss_weights, training.optimiser)
        rates = learning_rates(training.optimiser)
        training.decay.step()
        training.iteration = iteration
        reports.report(iteration, losses, run.loss_weights, rates)
        if iteration % settings.val_freq == 0:
            keep_evaluated(run, training, gates, latest, best)
    training.save(run, latest)
    if best and training.best is None:
        run.logger.message(f"no evaluation within {until} iterations, so the final state becomes {best}")
        keep_evaluated(run, training, gates, latest, best)


def keep_evaluated(run: Run, training: WeightTraining, gates: Gates, latest: str, best: str | None) -> None:
    """Evaluate, save as `latest`, and as `best` if nothing before scored higher."""
    scored = run.evaluate(gates, training.iteration)
    is_best = best is not None and (training.best is None or scored.score > training.best.score)
    if is_best:
        training.best = scored
        training.save(run, best)
    training.save(run, latest)
