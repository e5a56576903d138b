"""Runs that were stopped: found in their folder, looked at closely, and gone on with as if nothing had happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from envs.data import Data
from envs.restoring import facts_of
from envs.run import Run, ScoredEvaluation
from envs.run_files import Checkpoints
from envs.run_identity import CHANGEABLE
from envs.step_reports import StepReports
from envs.training import Progress
from utils.checkpoint import load_checkpoint, load_latest, load_optimiser_state, load_weights
from utils.config import TestingConfig, flat_settings
from utils.devices import restore_random_states
from utils.errors import UserError
from utils.problems import show

NotNegative = Annotated[int, Field(ge=0)]
AnyProgress = TypeVar("AnyProgress", bound=Progress)


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, arbitrary_types_allowed=True)


class UnreportedSteps(_Plain):
    """Losses of steps since the last report, as `StepReports.unreported` returns them."""

    count: NotNegative
    sums: dict[str, Tensor]
    state: dict[str, int | float]


class TrainingState(_Plain):
    """The content of a checkpoint that a run can go on from. A file may hold anything: it is looked at here."""

    weights: dict[str, Tensor] = Field(alias="mtl-net")
    phase: Literal["warm-up", "policy", "training", "retraining"]
    iteration: NotNegative = Field(alias="iter")
    progress: dict[str, Any]
    optimisers: dict[str, dict[str, Any]]
    scaler: dict[str, float | int] = {}
    reports: dict[str, UnreportedSteps]
    random_states: dict[str, Any]
    log_position: NotNegative
    seed: NotNegative
    config: dict[str, Any]
    num_samples: dict[str, Any]
    gates: dict[str, list[int]] | None = None


@dataclass(frozen=True)
class StoppedRun:
    """A run to go on with.

    Attributes:
        path: the checkpoint.
        vocabulary: the words that its network is learning; None for images.
        notes: what the user should know about it.
    """

    path: Path
    state: TrainingState
    vocabulary: tuple[str, ...] | None
    notes: tuple[str, ...]


def stopped_run(checkpoints: Checkpoints, phases: Sequence[str], resume: bool, overwrite: bool) -> StoppedRun | None:
    """The run that left these checkpoints; None to begin one, where there is none or it is to be overwritten.

    Args:
        phases: those that it may be in.
        resume, overwrite: what shall become of it.

    Raises:
        UserError: there is one, and it was not said what shall become of it; or it cannot be gone on with.
    """
    if overwrite or not checkpoints.can_be_resumed():
        return None
    try:
        content, damage = load_latest(checkpoints.latest, checkpoints.previous)
    except UserError as fault:
        raise UserError(f"{fault} To begin anew, add --overwrite.") from fault
    path = checkpoints.previous if damage else checkpoints.latest
    if not resume:
        raise UserError(
            f"{path.parent} holds a run already, saved after iteration {facts_of(content, path).iteration} "
            f"({path.name}): add "
            "--resume to go on with it or --overwrite to begin anew, or choose another exp_name."
        )
    try:
        state = TrainingState.model_validate(content)
    except ValidationError as error:
        raise not_to_go_on_with(path, places(error)) from error
    if state.phase not in phases:
        raise not_to_go_on_with(path, f"its phase is {state.phase}, not {' or '.join(phases)}: it is")
    return StoppedRun(path, state, facts_of(content, path).vocabulary, (damage,) if damage else ())


def refuse_to_write_over(left: Sequence[Path], overwrite: bool) -> None:
    """Raise `UserError` where an earlier run left files, and nobody said that they may be replaced."""
    if left and not overwrite:
        raise UserError(
            f"{left[0]} is there already, and a new run would replace or remove it: add --overwrite if it may, or "
            "choose another exp_name."
        )


def refuse_another_run(stopped: StoppedRun, config: TestingConfig, seed: int) -> list[str]:
    """Raise `UserError` where the configuration is another one; returns a note on each changed key that may change."""
    before = stopped.state.config | {"seed of this run": stopped.state.seed}
    now = flat_settings(config) | {"seed of this run": seed}
    # A key that an earlier version did not know has not changed.
    changes = {key: (before[key], value) for key, value in now.items() if before.get(key, value) != value}
    refused = [key for key in changes if key not in CHANGEABLE]
    if refused:
        named = "; ".join(f"{key} was {show(changes[key][0])} and is {show(changes[key][1])}" for key in refused)
        raise UserError(
            f"checkpoint {stopped.path} belongs to another configuration ({named}): give these keys the values they "
            "had to go on, or begin anew with --overwrite."
        )
    return [f"{key} is now {show(now)} (it was {show(before)})" for key, (before, now) in changes.items()]


def refuse_other_data(stopped: StoppedRun, data: Data) -> None:
    """Raise `UserError` where the splits have not as many samples as they had: the order of batches would differ."""
    for split, now in data.num_samples.items():
        before = stopped.state.num_samples.get(split, now)
        if before != now:
            raise UserError(
                f"split {split!r} of the data root has {show(now)} samples, but had {show(before)} when the run of "
                f"{stopped.path} began: bring them back to go on, or begin anew with --overwrite."
            )


def restore(
    stopped: StoppedRun,
    run: Run,
    progress: type[AnyProgress],
    optimisers: Mapping[str, Optimizer],
    scaler: GradScaler,
    reports: Mapping[str, StepReports],
) -> AnyProgress:
    """Put network, optimisers, loss scale, reports and random states back; returns how far the run had come.

    The weights and the optimisers' states of `stopped` are given up: with them, a run would take more memory until it
    ends than one that was never stopped.

    Raises:
        UserError: the checkpoint holds something else than a run of this network.
    """
    state, path = stopped.state, stopped.path
    load_weights(run.net, state.weights, path)
    device = next(run.net.parameters()).device
    try:
        for name, optimiser in optimisers.items():
            load_optimiser_state(optimiser, state.optimisers[name], path)
        if state.scaler and scaler.is_enabled():  # the run may have had another precision until now
            scaler.load_state_dict(state.scaler)
        for name, reported in reports.items():
            reported.restore(dict(state.reports[name]), device)
        restore_random_states(state.random_states)
        restored = TypeAdapter(progress).validate_python(state.progress)
    except ValidationError as error:
        raise not_to_go_on_with(path, f"progress: {places(error)}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise not_to_go_on_with(path, f"{type(error).__name__}: {error}") from error
    state.weights.clear()
    state.optimisers.clear()
    restored.best = best_on_disk(run, restored)
    run.logger.message(f"going on after iteration {restored.iteration}, from {path}")
    return restored


def best_on_disk(run: Run, progress: AnyProgress) -> ScoredEvaluation | None:
    """The evaluation that the `best` on disk is of; None where there is no such file that can be read.

    After a crash it may be of iterations that were lost, and that other settings or another device would not repeat.
    """
    path = run.checkpoints.best
    if not path.exists():
        if progress.best:
            run.logger.message(f"{path} is gone, so the best evaluation from now on becomes best")
        return None
    try:
        return TypeAdapter(type(progress)).validate_python(load_checkpoint(path).get("progress")).best
    except (UserError, ValidationError) as error:
        run.logger.message(f"{path} is damaged ({error}), so the best evaluation from now on becomes best")
        return None


def not_to_go_on_with(path: Path, fault: str) -> UserError:
    """What to say of a checkpoint whose training state lacks something, or has it in another form."""
    return UserError(
        f"checkpoint {path} holds no training state to go on from ({' '.join(fault.split())} missing or damaged): "
        "begin anew with --overwrite, or choose another exp_name."
    )


def places(error: ValidationError) -> str:
    """The keys that pydantic finds wrong."""
    return ", ".join(dict.fromkeys(".".join(map(str, details["loc"])) for details in error.errors()))
