"""Phase 3: retrain the network under an architecture sampled from the policy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from envs.data import Data
from envs.experiment import configured_network, configured_tasks, pretrained_state, sampled_architecture
from envs.pretrained import begin_with_imagenet
from envs.restoring import load_learned_policy
from envs.results import collect_retraining
from envs.resuming import StoppedRun, refuse_another_run, refuse_other_data, refuse_to_write_over, stopped_run
from envs.run import Run, ScoredEvaluation
from envs.run_files import RunFiles
from envs.tasks import Task
from envs.weight_training import WeightTraining, refuse_other_gates, train_weights
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates
from utils.config import TrainingConfig
from utils.errors import UserError


@dataclass(frozen=True)
class RetrainingPlan:
    """What is the same for all retrainings of a policy, and which are still to come.

    Attributes:
        data: with the draws of any seed.
        learned_net: the network of policy learning, on the CPU, where new ones begin with its weights; else None.
        pretrained: ImageNet's weights, where new networks begin with those; else None.
        architectures: exp_id -> gates, for every seed of the configuration.
        remaining: exp_id -> seed of those that are still to be trained.
    """

    tasks: dict[str, Task]
    data: Data
    learned_net: MultiTaskNet | None
    pretrained: dict[str, Tensor] | None
    architectures: dict[int, HardGates]
    remaining: dict[int, int]


def plan_retraining(
    config: TrainingConfig,
    files: RunFiles,
    seeds: dict[int, int],
    device: torch.device,
    resume: bool,
    overwrite: bool,
) -> RetrainingPlan:
    """Find all that can be wrong with the input before the first network trains, and what is left to be trained.

    Args:
        seeds: exp_id -> seed of those that were asked for.
        device: where batches go.
        resume, overwrite: what shall become of earlier retrainings that are found.

    Raises:
        UserError: whatever is wrong.
    """
    tasks = configured_tasks(config)
    learned_net = configured_network(config, tasks)
    learned = load_learned_policy(learned_net, files.checkpoint(config.train.policy_iter))
    architectures = {exp_id: sampled_architecture(config, learned, seed) for exp_id, seed in enumerate(config.seed)}
    data = Data(config.dataload, tasks, config.seed[0], device, ["train"], ["val"], learned.vocabulary)
    data.refuse_unequal_parts(config.train.batch_size)
    from_policy_learning = config.retrain_from_pl
    pretrained = None if from_policy_learning else pretrained_state(config)
    remaining, left = what_remains(config, files, seeds, architectures, data, resume, overwrite)
    if remaining:
        data = data.decoded()
    for path in left:  # now that nothing can go wrong any more
        path.unlink()
    return RetrainingPlan(
        tasks=tasks,
        data=data,
        learned_net=learned_net if from_policy_learning else None,
        pretrained=pretrained,
        architectures=architectures,
        remaining=remaining,
    )


def what_remains(
    config: TrainingConfig,
    files: RunFiles,
    seeds: dict[int, int],
    architectures: Mapping[int, HardGates],
    data: Data,
    resume: bool,
    overwrite: bool,
) -> tuple[dict[int, int], list[Path]]:
    """Those of the architectures, exp_id -> seed, that are still to be trained, and files that make room for them.

    Args:
        seeds: exp_id -> seed of those that were asked for.
        architectures: exp_id -> gates.
        resume, overwrite: what shall become of earlier retrainings that are found.

    Raises:
        UserError: as `stopped_retraining` and `refuse_to_write_over`.
    """
    runs = collect_retraining(files, architectures, config) if resume else []
    finished = {run["exp_id"] for run in runs if run["iterations"] >= config.train.retrain_iters}
    remaining = {exp_id: seed for exp_id, seed in seeds.items() if exp_id not in finished}
    left = []
    for exp_id, seed in remaining.items():
        of_seed, gates = data.with_seed(seed), architectures[exp_id]
        if stopped_retraining(config, files, exp_id, gates, of_seed, resume, overwrite) is None:
            left += files.left_by_retraining(exp_id, config.train.policy_iter)
    refuse_to_write_over(left, overwrite)
    return remaining, left


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
    checkpoints = files.of_retraining(exp_id, config.train.policy_iter)
    stopped = stopped_run(checkpoints, ["retraining"], resume, overwrite)
    if stopped is None:
        return None
    if stopped.vocabulary != data.vocabulary:
        raise UserError(f"checkpoint {stopped.path} has learned other words than the policy's: add --overwrite.")
    refuse_other_gates(stopped, gates)
    changes = refuse_another_run(stopped, config, data.seed)
    refuse_other_data(stopped, data)
    return replace(stopped, notes=(*stopped.notes, *changes))


def network_to_retrain(config: TrainingConfig, plan: RetrainingPlan) -> MultiTaskNet:
    """A new network, with the weights that it begins with.

    What was compiled of earlier ones is forgotten: it would count towards the variants that are compiled.
    """
    if config.train.compile:
        torch.compiler.reset()
    net = configured_network(config, plan.tasks)
    if plan.learned_net:
        net.load_state_dict(plan.learned_net.state_dict())
    elif plan.pretrained:
        begin_with_imagenet(net, plan.pretrained)
    return net


def retrain(run: Run, gates: HardGates, exp_id: int, stopped: StoppedRun | None) -> ScoredEvaluation:
    """Train `run.net` under fixed gates for `retrain_total_iters`; goes on from `stopped`.

    Returns:
        The evaluation of `best`.
    """
    training = WeightTraining.start(run, "retraining", gates, stopped)
    train_weights(run, training, run.settings.retrain_iters, f"retraining {exp_id}", keeps_best=True)
    return training.progress.best
