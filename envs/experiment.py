"""From a configuration to the parts that a script runs."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from envs.data import Data
from envs.policy_learning import Regularisers
from envs.restoring import LearnedPolicy
from envs.run import Run
from envs.run_files import RunFiles
from envs.tasks import Task, build_tasks
from models.multitask import MultiTaskNet, build_network
from models.policy import Curriculum, Policy
from models.regularisers import (
    paper_sharing,
    paper_sharing_weights,
    paper_sparsity,
    release_sharing,
    release_sharing_weights,
    release_sparsity,
    release_sparsity_weights,
)
from models.shared_paths import HardGates, all_blocks
from utils.config import TestingConfig, TrainingConfig
from utils.errors import UserError
from utils.logger import RunLogger

BEST_CHOSEN_ON = {
    "test": "test data (the release's protocol; `dataload.validation: held_out` avoids it)",
    "held_out": "a validation split held out from train",
}


def configured_tasks(config: TestingConfig) -> dict[str, Task]:
    """The records of the configured tasks."""
    return build_tasks(config.dataload.dataset, config.tasks, config.tasks_num_class, config.dataload.normals)


def configured_network(config: TestingConfig) -> MultiTaskNet:
    """A freshly initialised network of the configured shape.

    Raises:
        UserError: the configuration asks for a variant that does not exist here.
    """
    refuse_unknown_variants(config)
    return build_network(
        backbone=config.backbone,
        backbone_width=config.backbone_width,
        head_width=config.head_width,
        num_outputs=dict(zip(config.tasks, config.tasks_num_class, strict=True)),
        init_method=config.train.init_method,
        init_neg_logits=config.init_neg_logits,
        skip_layer=config.skip_layer,
        execution=config.execution,
    )


def refuse_unknown_variants(config: TestingConfig) -> None:
    """Keys of the release that are understood but whose variants do not exist here must not be ignored.

    Raises:
        UserError: one is set.
    """
    unchanged = {
        "policy_model": (config.policy_model, "task-specific"),
        "imagenet_pretrain": (config.imagenet_pretrain, False),
        "task_bn": (config.task_bn, False),
        "dataload.small_res": (config.dataload.small_res, False),
    }
    for key, (value, known) in unchanged.items():
        if value != known:
            raise UserError(f"{key}: {value} is not available in this version; leave it at {known}.")


def configured_run(
    config: TrainingConfig,
    net: MultiTaskNet,
    tasks: dict[str, Task],
    data: Data,
    files: RunFiles,
    logger: RunLogger,
) -> Run:
    """The parts of a training run put together; says on which frames `best` will be chosen."""
    batches, batch_size = config.train.eval_batches, config.train.batch_size
    logger.message(
        f"best is chosen on {BEST_CHOSEN_ON[config.dataload.validation]}, "
        f"{'all batches' if batches is None else f'the first {batches} batches'} of {batch_size}"
    )
    return Run(
        net=net,
        tasks=tasks,
        loss_weights={
            **dict(zip(config.tasks, config.lambdas, strict=True)),
            "sparsity": config.train.reg_w,
            "sharing": config.train.reg_w_hamming,
        },
        settings=config.train,
        data=data,
        validation=data.evaluation("val", batch_size, whole=batches is None),
        files=files,
        logger=logger,
        fix_bn=config.fix_BN,
    )


def exp_seeds(config: TestingConfig, exp_ids: Sequence[int] | None) -> dict[int, int]:
    """exp_id -> the seed of that architecture; without exp_ids the first eight, as in the paper.

    Raises:
        UserError: an exp_id without a seed.
    """
    for exp_id in exp_ids or ():
        if not 0 <= exp_id < len(config.seed):
            raise UserError(
                f"--exp_ids {exp_id}: the configuration has {len(config.seed)} seeds, so exp_ids run from 0 to "
                f"{len(config.seed) - 1}; choose among them or add seeds."
            )
    return {exp_id: config.seed[exp_id] for exp_id in exp_ids or range(min(8, len(config.seed)))}


def sampled_architecture(config: TestingConfig, learned: LearnedPolicy, seed: int) -> HardGates:
    """Gates drawn from the learned policy by a seed; every block for every task where there is no policy."""
    if config.policy:
        return learned.policy.sample_architecture(seed, learned.num_open)
    return all_blocks(config.tasks, learned.policy.num_blocks)


def curriculum(config: TestingConfig, policy: Policy) -> Curriculum:
    """The configured curriculum over the blocks that have logits."""
    return Curriculum(policy.num_policy_blocks, config.curriculum_speed if config.is_curriculum else None)


def regularisers(config: TestingConfig, policy: Policy) -> Regularisers:
    """The losses on the logits that are switched on, in the configured form."""
    blocks = policy.num_policy_blocks
    device = next(policy.parameters()).device
    sparsity_weights = release_sparsity_weights(blocks, config.diff_sparsity_weights, config.is_sharing).to(device)
    sharing_weights = release_sharing_weights(blocks, config.diff_sparsity_weights).to(device)
    sparsity_forms = {
        "release": partial(release_sparsity, block_weights=sparsity_weights),
        "paper": paper_sparsity,
    }
    sharing_forms = {
        "release": partial(release_sharing, block_weights=sharing_weights),
        "paper": partial(paper_sharing, block_weights=paper_sharing_weights(blocks).to(device)),
    }

    def losses(logits: dict[str, Tensor], num_open: int) -> dict[str, Tensor]:
        switched_on = {}
        if config.is_sparse:
            switched_on["sparsity"] = sparsity_forms[config.sparsity_loss](logits, num_open)
        if config.is_sharing:
            switched_on["sharing"] = sharing_forms[config.sharing_loss](logits)
        return switched_on

    return losses
