"""Phase 3: retrain the network under an architecture sampled from the policy."""

from dataclasses import replace

from envs.data import Data
from envs.resuming import StoppedRun, refuse_another_run, refuse_other_data, stopped_run
from envs.run import Run, ScoredEvaluation
from envs.run_files import RunFiles
from envs.weight_training import WeightTraining, refuse_other_gates, train_weights
from models.shared_paths import HardGates
from utils.config import TrainingConfig
from utils.errors import UserError


def stopped_retraining(
    config: TrainingConfig,
    files: RunFiles,
    exp_id: int,
    gates: HardGates,
    data: Data,
    resume: bool,
    overwrite: bool,
) -> StoppedRun | None:
    """The retraining of this number that was stopped; None to begin one.

    Args:
        data: of this retraining's seed.
        resume, overwrite: what shall become of one that is found.

    Raises:
        UserError: there is one that nothing was said about, or one of another configuration, of other gates, words or
            data.
    """
    stopped = stopped_run(files.of_retraining(exp_id, config.train.policy_iter), resume, overwrite)
    if stopped is None:
        return None
    if stopped.vocabulary != data.vocabulary:
        raise UserError(f"checkpoint {stopped.path} has learned other words than the policy's: add --overwrite.")
    refuse_other_gates(stopped, gates)
    changes = refuse_another_run(stopped, config, data.seed)
    refuse_other_data(stopped, data)
    return replace(stopped, notes=(*stopped.notes, *changes))


def retrain(run: Run, gates: HardGates, exp_id: int, stopped: StoppedRun | None) -> ScoredEvaluation:
    """Train `run.net` under fixed gates for `retrain_total_iters`; goes on from `stopped`.

    Returns:
        The evaluation of `best`.
    """
    training = WeightTraining.start(run, "retraining", gates, stopped)
    train_weights(run, training, run.settings.retrain_iters, f"retraining {exp_id}", keeps_best=True)
    return training.progress.best
