"""Training the weights under fixed gates: warm-up and retraining are this loop."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from envs.optimisers import StepDecay, learning_rates, loss_scaler, warm_up_optimiser
from envs.resuming import StoppedRun, restore
from envs.run import Run
from envs.step_reports import StepReports
from envs.steps import training_mode, weight_step
from envs.training import Progress, Training, attempt, saved_when_interrupted
from envs.updates import Update, net_and_update
from models.replication import uses_all_weights
from models.shared_paths import HardGates
from utils.errors import UserError


@dataclass
class WeightTraining(Training):
    """What trains the weights, under which gates, and how far it has come.

    Attributes:
        phase: "warm-up", "training" (without a policy) or "retraining".
        net, update: the run's network as weight steps call it, and what they end with.
    """

    phase: str
    gates: HardGates
    net: nn.Module
    update: Update
    optimiser: Optimizer
    decay: StepDecay
    scaler: GradScaler
    reports: StepReports
    progress: Progress

    @classmethod
    def start(cls, run: Run, phase: str, gates: HardGates, stopped: StoppedRun | None = None) -> "WeightTraining":
        """Adam with the rates and decays of warm-up (release: retraining has the same); goes on from `stopped`.

        Raises:
            UserError: the stopped run is not of this network, or was trained under other gates.
        """
        settings = run.settings
        optimiser = warm_up_optimiser(run.net, settings.heads_lr, settings.backbone_lr)
        scaler = loss_scaler(run.net)
        reports = StepReports(run.logger, "weights", settings.print_freq, run.loss_weights)
        progress = Progress()
        if stopped:
            refuse_other_gates(stopped, gates)
            progress = restore(stopped, run, Progress, {"weights": optimiser}, scaler, {"weights": reports})
        backbone_decay = (settings.decay_lr_freq, settings.decay_lr_rate)
        decay = StepDecay(optimiser, settings.heads_decay_lr, backbone_decay, progress.iteration)
        net, update = net_and_update(run.net, uses_all_weights(run.net, gates), settings.step_in_backward)
        return cls(phase, gates, net, update, optimiser, decay, scaler, reports, progress)

    def state(self, run: Run) -> dict[str, Any]:
        """Gates and all that training needs; `temp` is the release's name for the temperature."""
        return {
            "optimisers": {"weights": self.optimiser.state_dict()},
            "scaler": self.scaler.state_dict(),
            "reports": {"weights": self.reports.unreported()},
            "gates": self.gates,
            "temp": run.settings.init_temp,
        }


def refuse_other_gates(stopped: StoppedRun, gates: HardGates) -> None:
    """Raise `UserError` where a stopped run was trained under other gates than those to go on with."""
    if stopped.state.gates != gates:
        raise UserError(
            f"checkpoint {stopped.path} was trained under other gates than the policy gives now: train anew with "
            "--overwrite."
        )


def train_weights(run: Run, training: WeightTraining, until: int, title: str, keeps_best: bool) -> None:
    """Train on `train` up to and including iteration `until`; evaluate every `val_freq`, save every `save_freq`.

    Args:
        title: of the progress bar.
        keeps_best: whether the best evaluation's state is saved as `best`; without an evaluation, the final one's.
    """
    settings, progress = run.settings, training.progress
    batches = run.data.training("train", settings.batch_size, start=progress.iteration)
    step = partial(
        weight_step,
        training.net,
        training.gates,
        tasks=run.tasks,
        loss_weights=run.loss_weights,
        optimiser=training.optimiser,
        scaler=training.scaler,
        update=training.update,
    )
    training_mode(run.net, run.fix_bn)
    with saved_when_interrupted(run, training):
        if progress.iteration == 0:
            training.save_latest(run)  # a disk that has no room for it is found now, not in an hour
        evaluate_where_due(run, training, keeps_best)
        for _ in run.logger.progress(range(progress.iteration + 1, until + 1), title, until):
            rates = learning_rates(training.optimiser)
            losses = attempt(run, progress, next(batches), step)
            training.decay.step()
            if losses:
                training.reports.add(progress.iteration, losses, rates)
            run.interruption.check()
            evaluate_where_due(run, training, keeps_best)
            training.save_now_and_then(run)
        training.reports.report(progress.iteration)
        if keeps_best and progress.lacks_best:
            run.logger.message(f"no evaluation within {until} iterations, so the final state becomes best")
            evaluate_weights(run, training, keeps_best)
        training.save_latest(run)


def evaluate_where_due(run: Run, training: WeightTraining, keeps_best: bool) -> None:
    """Evaluate after every `val_freq` iterations, unless that was done before a stop."""
    progress = training.progress
    if progress.iteration and progress.iteration % run.settings.val_freq == 0 and not progress.is_evaluated:
        evaluate_weights(run, training, keeps_best)


def evaluate_weights(run: Run, training: WeightTraining, keeps_best: bool) -> None:
    """Evaluate, and save as `best` if nothing before scored higher."""
    progress = training.progress
    progress.evaluated = run.evaluate(training.gates, progress.iteration)
    if keeps_best and progress.evaluated.is_better_than(progress.best):
        progress.best = progress.evaluated
        training.save(run, run.checkpoints.best)
