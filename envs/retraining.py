"""Phase 3: retrain the network under an architecture sampled from the policy."""

from envs.run import Run, ScoredEvaluation
from envs.weight_training import WeightTraining, train_weights
from models.shared_paths import Gates


def retrain(run: Run, gates: Gates, exp_id: int) -> ScoredEvaluation:
    """Train `run.net` under fixed gates for `retrain_total_iters`; saves `latest` and `best` under their labels.

    With `retrain_resume` it goes on from `latest`, if there is one.

    Returns:
        The evaluation of `best`.
    """
    settings = run.settings
    latest = run.files.retrain_label(exp_id, settings.policy_iter, "latest")
    best = run.files.retrain_label(exp_id, settings.policy_iter, "best")
    training = WeightTraining.start(run)
    if settings.retrain_resume and run.files.checkpoint(latest).is_file():
        training.restore(run, run.files.checkpoint(latest))
    train_weights(run, training, gates, settings.retrain_iters, f"retraining {exp_id}", latest, best)
    return training.best
