"""From a configuration to the parts that a script runs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dataloaders import TEXT_DATASETS
from envs.data import Data
from envs.policy_learning import Regularisers
from envs.pretrained import imagenet_state
from envs.restoring import LearnedPolicy
from envs.run import Run
from envs.run_files import Checkpoints, RunFiles
from envs.task_sets import build_tasks
from envs.tasks import Task
from models.compiling import compile_parts
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
from models.resnet import LAYOUTS as IMAGE_BACKBONES
from models.shared_paths import HardGates, all_blocks
from models.synchronised import synchronise_norms
from models.text_cnn import LAYOUTS as TEXT_BACKBONES
from utils.config import TestingConfig, TrainingConfig, TrainSection, flat_settings
from utils.errors import UserError
from utils.interruption import Interruption
from utils.logger import RunLogger
from utils.memory import leave_out_triton, return_freed_memory
from utils.precision import allow_tf32

BEST_CHOSEN_ON = {
    "test": "test data (the release's protocol; `dataload.validation: held_out` avoids it)",
    "held_out": "a validation split held out from train",
}


def configured_tasks(config: TestingConfig) -> dict[str, Task]:
    """The records of the configured tasks."""
    data = config.dataload
    return build_tasks(data.dataset, config.tasks, config.tasks_num_class, data.normals, data.small_res)


def prepare_to_train(settings: TrainSection, device: torch.device) -> None:
    """Set what belongs to the process, not to a network: TF32, and where memory is to be saved, how it is returned."""
    allow_tf32(settings.tf32)
    if settings.checkpointing:
        return_freed_memory()
        if device.type == "cpu":
            leave_out_triton()


def configured_network(config: TestingConfig, tasks: Mapping[str, Task]) -> MultiTaskNet:
    """A freshly initialised network of the configured shape.

    Raises:
        UserError: the configuration asks for a variant that does not exist here, or for a backbone that does not
            take the inputs of the data set; or to be compiled where that cannot be.
    """
    if config.policy_model == "instance-specific":
        raise UserError("policy_model: instance-specific is not available in this version; choose task-specific.")
    net = build_network(
        kind=network_kind(config, tasks),
        backbone=config.backbone,
        backbone_width=config.backbone_width,
        head_width=config.head_width,
        num_words=config.dataload.num_words,
        num_outputs=dict(zip(config.tasks, config.tasks_num_class, strict=True)),
        task_bn=config.task_bn,
        init_method=config.train.init_method,
        init_neg_logits=config.init_neg_logits,
        skip_layer=config.skip_layer,
        execution=config.execution,
        precision=config.train.precision,
        checkpointing=config.train.checkpointing,
    )
    if config.train.sync_bn:
        synchronise_norms(net)
    if config.train.compile:
        if config.train.checkpointing and torch.__version__.startswith("2.4."):
            raise UserError(
                "train.compile and train.checkpointing do not go together in PyTorch 2.4: take a newer one or set one "
                "of them to False."
            )
        compile_parts(net)
    return net


def network_kind(config: TestingConfig, tasks: Mapping[str, Task]) -> str:
    """What `build_network` calls "dense", "classification" or "text"; UserError for a backbone of the other sort."""
    reads_texts = config.dataload.dataset in TEXT_DATASETS
    if reads_texts != (config.backbone in TEXT_BACKBONES):
        inputs, fitting = ("texts", TEXT_BACKBONES) if reads_texts else ("images", IMAGE_BACKBONES)
        raise UserError(
            f"backbone: {config.backbone} does not fit {config.dataload.dataset}, which holds {inputs}; "
            f"choose one of {', '.join(fitting)}."
        )
    if reads_texts:
        return "text"
    kinds = {"dense" if task.per_pixel else "classification" for task in tasks.values()}
    if len(kinds) > 1:
        raise UserError("tasks: some are maps and some classes of whole images, but a network is for one kind; choose.")
    return kinds.pop()


def pretrained_state(config: TestingConfig) -> dict[str, Tensor] | None:
    """ImageNet's weights where the configuration wants them, from its file or torchvision's download."""
    if not config.imagenet_pretrain:
        return None
    return imagenet_state(config.backbone, Path(config.imagenet_weights) if config.imagenet_weights else None)


def configured_run(
    config: TrainingConfig,
    net: MultiTaskNet,
    tasks: dict[str, Task],
    data: Data,
    files: RunFiles,
    checkpoints: Checkpoints,
    logger: RunLogger,
    interruption: Interruption,
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
        configuration=flat_settings(config),
        data=data,
        validation=data.evaluation("val", batch_size, whole=batches is None, most=batches),
        files=files,
        checkpoints=checkpoints,
        logger=logger,
        interruption=interruption,
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
