"""What every phase of a run is: something that learns step by step, is saved, and goes on after a stop."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.batches import names_of
from envs.losses import Batch
from envs.run import Run, ScoredEvaluation
from envs.updates import NotFinite, PartlyNotFinite, ScaledTooMuch
from utils.checkpoint import load_checkpoint, save_checkpoint, save_latest
from utils.distributed import all_gather_object, done_by_first
from utils.errors import UserError
from utils.interruption import Interrupted


@dataclass
class Progress:
    """How far a phase has come. Plain values, which a checkpoint keeps as they are.

    Attributes:
        iteration: the last finished one.
        evaluated: the last evaluation.
        best: the best of those that may become `best`.
        bad_steps: steps in a row, up to now, that were left out, or some weights in them, since a value was not finite.
    """

    iteration: int = 0
    evaluated: ScoredEvaluation | None = None
    best: ScoredEvaluation | None = None
    bad_steps: int = 0

    @property
    def is_evaluated(self) -> bool:
        """Whether the last evaluation was after the last iteration."""
        return self.evaluated is not None and self.evaluated.iteration == self.iteration

    @property
    def lacks_best(self) -> bool:
        """Whether nothing is best, or only this very iteration, which a crash has undone since."""
        return self.best is None or (self.best.iteration == self.iteration and not self.is_evaluated)


class Training(ABC):
    """A phase of a run: what updates which parameters, and how far it has come."""

    phase: str
    progress: Progress
    saved_at: int = 0
    """The last iteration that is in `latest`, as far as this process knows."""

    @abstractmethod
    def state(self, run: Run) -> dict[str, Any]:
        """What a checkpoint must keep of this phase beside network and progress."""

    def saved_state(self, run: Run) -> dict[str, Any]:
        """The whole content of a checkpoint; `iter` is the release's name for the iteration."""
        progress = self.progress
        return {
            **run.state(),
            **self.state(run),
            "phase": self.phase,
            "iter": progress.iteration,
            "progress": asdict(progress),
        }

    def save(self, run: Run, path: Path) -> None:
        """Save the network with everything that a run needs to go on from here.

        Raises:
            UserError: it is not worth keeping, since a value of the network is not finite; or it cannot be written.
        """
        state = self.saved_state(run)
        refuse_not_finite(run, self.progress)
        done_by_first(save_checkpoint, path, state)

    def save_latest(self, run: Run) -> None:
        """Save as `latest`; what was `latest` becomes `previous`. Raises as `save`."""
        state = self.saved_state(run)
        refuse_not_finite(run, self.progress)
        done_by_first(save_latest, run.checkpoints.latest, run.checkpoints.previous, state)
        self.saved_at = self.progress.iteration

    def save_now_and_then(self, run: Run) -> None:
        """Save as `latest` every `save_freq` iterations, but amid steps that are left out not before a good one."""
        every, iteration = run.settings.save_freq, self.progress.iteration
        if iteration // every > self.saved_at // every and not self.progress.bad_steps:
            self.save_latest(run)


@contextmanager
def saved_when_interrupted(run: Run, training: Training) -> Iterator[None]:
    """Save as `latest` when the block is left because a stop was requested, and say how to go on."""
    try:
        yield
    except Interrupted as interrupted:
        training.save_latest(run)
        run.logger.message(
            f"stopped by {interrupted.signal_name} after iteration {training.progress.iteration}, saved "
            f"{run.checkpoints.latest}: go on with --resume"
        )
        raise


def attempt(
    run: Run, progress: Progress, batch: Batch, step: Callable[[Batch], Mapping[str, Tensor]]
) -> Mapping[str, Tensor] | None:
    """Take the step of the iteration that follows; None where it, or a part of it, was left out, which is logged.

    Raises:
        UserError: `max_bad_steps` in a row were left out.
    """
    progress.iteration += 1
    try:
        losses = step(batch)
    except ScaledTooMuch as fault:
        run.logger.line("scaled_step", progress.iteration, scale=fault.scale, samples=names_of_all(batch))
        run.logger.message(
            f"iteration {progress.iteration}: left out, since a gradient is too large for float16; the loss is scaled "
            f"by {fault.scale:g} from now on"
        )
        return None
    except NotFinite as fault:
        progress.bad_steps += 1
        names = names_of_all(batch)
        left_out = f"left out for {fault.num_weights} weights" if isinstance(fault, PartlyNotFinite) else "left out"
        run.logger.line("bad_step", progress.iteration, not_finite=fault.names, samples=names)
        run.logger.message(
            f"iteration {progress.iteration}: {left_out}, since {' and '.join(fault.names)} "
            f"{'is' if len(fault.names) == 1 else 'are'} not finite (samples {', '.join(names)})"
        )
        if progress.bad_steps >= run.settings.max_bad_steps:
            raise diverged(run, progress) from fault
        return None
    progress.bad_steps = 0
    return losses


def names_of_all(batch: Batch) -> list[str]:
    """Names of the samples of the whole batch."""
    return [name for names in all_gather_object(names_of(batch)) for name in names]


def refuse_not_finite(run: Run, progress: Progress) -> None:
    """Raise `UserError` where a value of the network is not finite: what it was before is the better checkpoint."""
    values = [value for value in run.net.state_dict().values() if value.is_floating_point()]
    if not torch.stack([value.sum() for value in values]).isfinite().all():
        raise diverged(run, progress)


def diverged(run: Run, progress: Progress) -> UserError:
    """What to say where training has diverged, and from where to go on."""
    last_good = done_by_first(go_back_before, run, progress.iteration - progress.bad_steps)
    in_float16 = "set train.precision to bf16 or fp32, whose numbers reach further than float16's, or "
    return UserError(
        f"training has diverged: at iteration {progress.iteration}, after {progress.bad_steps} steps in a row that "
        f"were left out, losses, gradients or weights are not finite (see {run.logger.folder / 'log.txt'}); "
        f"{in_float16 if run.net.precision == torch.float16 else ''}lower "
        "train.lr, train.backbone_lr or train.policy_lr and go on with --resume, which takes up the run "
        f"{last_good}, or look for faults in the data with python -m dataloaders.check."
    )


def go_back_before(run: Run, iteration: int) -> str:
    """Let `previous` be `latest` where this one holds what the iteration has led to; says what `latest` is then."""
    latest, previous = run.checkpoints.latest, run.checkpoints.previous
    if latest.exists() and load_checkpoint(latest)["iter"] >= iteration and previous.exists():
        os.replace(previous, latest)
    return f"after iteration {load_checkpoint(latest)['iter']}" if latest.exists() else "from the start"
