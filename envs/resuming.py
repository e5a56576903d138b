"""Runs that were stopped: found in their folder, looked at closely, and gone on with as if nothing had happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from envs.data import Data
from envs.restoring import kept_vocabulary
from envs.run import Run
from envs.run_files import Checkpoints
from envs.step_reports import StepReports
from envs.training import Progress
from utils.checkpoint import load_latest, load_optimiser_state, load_weights
from utils.config import TestingConfig, changed_settings
from utils.devices import restore_random_states
from utils.errors import UserError
from utils.problems import show

# What a run may be resumed with at other values: the rest of it follows them from then on. All other keys say what
# the network is, in which order it sees the data, or when which phase begins.
CHANGEABLE = frozenset(
    [
        "exp_name",
        "seed",  # a list of many; the one that counts is compared by itself
        "imagenet_weights",
        "lambdas",
        "paths.log_dir",
        "paths.result_dir",
        "paths.checkpoint_dir",
        "test.which_iter",
        "dataload.dataroot",
        "dataload.num_workers",
        *(
            f"train.{key}"
            for key in (
                "total_iters",
                "retrain_total_iters",
                "lr",
                "backbone_lr",
                "fc_lr",
                "policy_lr",
                "decay_lr_freq",
                "decay_lr_rate",
                "decay_fc_lr_freq",
                "decay_fc_lr_rate",
                "policy_decay_lr_freq",
                "policy_decay_lr_rate",
                "decay_temp",
                "decay_temp_freq",
                "reg_w",
                "reg_w_hamming",
                "print_freq",
                "val_freq",
                "eval_batches",
                "save_freq",
                "max_bad_steps",
                "resume",
                "retrain_resume",
                "policy_iter",
                "which_iter",
            )
        ),
    ]
)

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


def stopped_run(checkpoints: Checkpoints, resume: bool, overwrite: bool) -> StoppedRun | None:
    """The run that left these checkpoints; None to begin one, where there is none or it is to be overwritten.

    Raises:
        UserError: there is one, and it was not said what shall become of it; or it cannot be gone on with.
    """
    if overwrite or not checkpoints.can_be_resumed():
        return None
    content, damage = load_latest(checkpoints.latest, checkpoints.previous)
    path = checkpoints.previous if damage else checkpoints.latest
    if not resume:
        raise UserError(
            f"{path.parent} holds a run already, saved after iteration {content.get('iter')} ({path.name}): add "
            "--resume to go on with it or --overwrite to begin anew, or choose another exp_name."
        )
    try:
        state = TrainingState.model_validate(content)
    except ValidationError as error:
        raise not_to_go_on_with(path, places(error)) from error
    return StoppedRun(path, state, kept_vocabulary(content, path), (damage,) if damage else ())


def make_room(left: Sequence[Path], overwrite: bool) -> None:
    """Remove what an earlier run left, where that is wanted; else raise `UserError`."""
    if left and not overwrite:
        raise UserError(
            f"{left[0]} is there already, and a new run would write over it: add --overwrite if it may, or choose "
            "another exp_name."
        )
    for path in left:
        path.unlink()


def refuse_another_run(stopped: StoppedRun, config: TestingConfig, seed: int) -> list[str]:
    """Raise `UserError` where the configuration is another one; returns a note on each changed key that may change."""
    changes = changed_settings(stopped.state.config, config.model_dump(mode="json"))
    if stopped.state.seed != seed:
        changes["seed of this run"] = (stopped.state.seed, seed)
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
    reports: Mapping[str, StepReports],
) -> AnyProgress:
    """Put network, optimisers, reports and random states back; returns how far the run had come.

    Raises:
        UserError: the checkpoint holds something else than a run of this network.
    """
    state, path = stopped.state, stopped.path
    load_weights(run.net, state.weights, path)
    device = next(run.net.parameters()).device
    try:
        for name, optimiser in optimisers.items():
            load_optimiser_state(optimiser, state.optimisers[name], path)
        for name, reported in reports.items():
            reported.restore(dict(state.reports[name]), device)
        restore_random_states(state.random_states)
        restored = TypeAdapter(progress).validate_python(state.progress)
    except ValidationError as error:
        raise not_to_go_on_with(path, f"progress: {places(error)}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise not_to_go_on_with(path, f"{type(error).__name__}: {error}") from error
    if restored.best and not run.checkpoints.best.exists():
        run.logger.message(f"{run.checkpoints.best} is gone, so the best evaluation from now on becomes best")
        restored.best = None
    run.logger.message(f"going on after iteration {restored.iteration}, from {path}")
    return restored


def not_to_go_on_with(path: Path, fault: str) -> UserError:
    """What to say of a checkpoint whose training state lacks something, or has it in another form."""
    return UserError(
        f"checkpoint {path} holds no training state to go on from ({' '.join(fault.split())} missing or damaged): "
        "begin anew with --overwrite, or choose another exp_name."
    )


def places(error: ValidationError) -> str:
    """The keys that pydantic finds wrong."""
    return ", ".join(dict.fromkeys(".".join(map(str, details["loc"])) for details in error.errors()))
