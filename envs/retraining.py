"""Phase 3: retrain the network under an architecture sampled from the policy."""

from typing import Any

from envs.run import Run, ScoredEvaluation
from envs.run_files import RunFiles
from envs.weight_training import WeightTraining, read_training_state, train_weights
from models.shared_paths import HardGates


def interrupted_state(
    files: RunFiles, exp_id: int, policy_iter: str, gates: HardGates, vocabulary: tuple[str, ...] | None
) -> dict[str, Any] | None:
    """What an earlier retraining of these gates, on these words, left as `latest`; None where there is nothing.

    Raises:
        UserError: there is a checkpoint, but not one to go on from.
    """
    latest = files.checkpoint(files.retrain_label(exp_id, policy_iter, "latest"))
    return read_training_state(latest, gates, vocabulary) if latest.is_file() else None


def retrain(run: Run, gates: HardGates, exp_id: int, interrupted: dict[str, Any] | None) -> ScoredEvaluation:
    """Train `run.net` under fixed gates for `retrain_total_iters`; saves `latest` and `best` under their labels.

    Args:
        interrupted: state to go on from, or None to begin.

    Returns:
        The evaluation of `best`.
    """
    settings = run.settings
    latest = run.files.retrain_label(exp_id, settings.policy_iter, "latest")
    best = run.files.retrain_label(exp_id, settings.policy_iter, "best")
    training = WeightTraining.start(run, gates)
    if interrupted:
        training.restore(run, interrupted, run.files.checkpoint(latest))
        run.logger.message(f"going on after iteration {training.iteration}")
    train_weights(run, training, settings.retrain_iters, f"retraining {exp_id}", latest, best)
    return training.best
