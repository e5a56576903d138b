"""Phase 3: retrain the network under an architecture sampled from the policy."""

from envs.run import Run, ScoredEvaluation
from envs.run_files import RunFiles
from envs.weight_training import HardGates, WeightTraining, train_weights
from utils.checkpoint import load_checkpoint


def finished_iterations(files: RunFiles, exp_id: int, policy_iter: str) -> int:
    """How far an earlier retraining came by its `latest` checkpoint; 0 where there is none."""
    latest = files.checkpoint(files.retrain_label(exp_id, policy_iter, "latest"))
    return load_checkpoint(latest).get("iter", 0) if latest.is_file() else 0


def retrain(run: Run, gates: HardGates, exp_id: int, resume: bool) -> ScoredEvaluation:
    """Train `run.net` under fixed gates for `retrain_total_iters`; saves `latest` and `best` under their labels.

    Args:
        resume: go on from `latest`.

    Returns:
        The evaluation of `best`.
    """
    settings = run.settings
    latest = run.files.retrain_label(exp_id, settings.policy_iter, "latest")
    best = run.files.retrain_label(exp_id, settings.policy_iter, "best")
    training = WeightTraining.start(run, gates)
    if resume:
        training.restore(run, run.files.checkpoint(latest))
    train_weights(run, training, settings.retrain_iters, f"retraining {exp_id}", latest, best)
    return training.best
