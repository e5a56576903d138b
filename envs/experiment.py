"""From a configuration to the parts that a script runs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from envs.data import Data
from envs.policy_learning import Regularisers
from envs.run import Run, RunFiles
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
from models.release import from_release, gates_from_release, is_release_state
from models.shared_paths import all_blocks
from utils.checkpoint import load_checkpoint, load_gates, load_tensor_pickle, load_weights
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
    """A freshly initialised network of the configured shape."""
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


def exp_seed(config: TestingConfig, exp_id: int) -> int:
    """The seed of architecture number `exp_id`.

    Raises:
        UserError: there is no such seed.
    """
    if not 0 <= exp_id < len(config.seed):
        raise UserError(
            f"--exp_ids {exp_id}: the configuration has {len(config.seed)} seeds, so exp_ids run from 0 to "
            f"{len(config.seed) - 1}; choose among them or add seeds."
        )
    return config.seed[exp_id]


def load_network(net: MultiTaskNet, path: Path) -> dict:
    """Load weights and logits from one of our checkpoints or of the release's; returns what else it holds.

    Raises:
        UserError: no such checkpoint, or one that does not fit the network.
    """
    checkpoint = load_checkpoint(path)
    state = checkpoint["mtl-net"]
    load_weights(net, from_release(state, net) if is_release_state(state) else state, path)
    return {key: value for key, value in checkpoint.items() if key != "mtl-net"}


def load_without_logits(net: MultiTaskNet, path: Path) -> None:
    """Load the weights of a checkpoint, and keep the policy as it is (`train.resume`, `retrain_from_pl`)."""
    logits = {task: values.clone() for task, values in net.policy.state_dict().items()}
    load_network(net, path)
    net.policy.load_state_dict(logits)


def sampled_architecture(config: TestingConfig, net: MultiTaskNet, seed: int) -> dict[str, list[int]]:
    """Gates drawn from the learned policy by a seed; every block for every task where there is no policy."""
    if config.policy:
        return net.policy.sample_architecture(seed)
    return all_blocks(config.tasks, net.num_blocks)


def load_architecture(net: MultiTaskNet, path: Path) -> dict[str, list[int]]:
    """Gates sampled before: our JSON at `path`, else the release's pickle of the same stem beside it.

    Raises:
        UserError: neither file exists, or the gates do not fit the network's tasks and blocks.
    """
    pickled = path.with_suffix(".pickle")
    if path.is_file():
        gates = load_gates(path)
    elif pickled.is_file():
        path, gates = pickled, load_release_gates(pickled, list(net.heads))
    else:
        raise UserError(f"sampled gates {path} (or {pickled.name}) do not exist: run re-train.py first.")
    expected = dict.fromkeys(net.heads, net.num_blocks)
    found = {task: len(path_gates) for task, path_gates in gates.items()}
    if found != expected:
        raise UserError(f"gates {path} are for {found} (task: blocks), the network has {expected}.")
    return gates


def load_release_gates(path: Path, tasks: Sequence[str]) -> dict[str, list[int]]:
    """The gates of one of the release's pickles.

    Raises:
        UserError: the file holds anything but one one-hot tensor per task.
    """
    policies = load_tensor_pickle(path)
    try:
        return gates_from_release(policies, tasks)
    except ValueError as error:
        raise UserError(f"policy {path} does not fit the configured tasks: {error}") from error


def curriculum(config: TestingConfig, policy: Policy) -> Curriculum:
    """The configured curriculum over the blocks that have logits."""
    return Curriculum(policy.num_policy_blocks, config.curriculum_speed if config.is_curriculum else None)


def regularisers(config: TestingConfig, policy: Policy) -> Regularisers:
    """The losses on the logits that are switched on, in the configured form."""
    blocks = policy.num_policy_blocks
    sparsity_weights = release_sparsity_weights(blocks, config.diff_sparsity_weights, config.is_sharing)
    sharing_weights = release_sharing_weights(blocks, config.diff_sparsity_weights)
    sparsity_forms = {
        "release": partial(release_sparsity, block_weights=sparsity_weights),
        "paper": paper_sparsity,
    }
    sharing_forms = {
        "release": partial(release_sharing, block_weights=sharing_weights),
        "paper": partial(paper_sharing, block_weights=paper_sharing_weights(blocks)),
    }

    def losses(logits: dict[str, Tensor], num_open: int) -> dict[str, Tensor]:
        switched_on = {}
        if config.is_sparse:
            switched_on["sparsity"] = sparsity_forms[config.sparsity_loss](logits, num_open)
        if config.is_sharing:
            switched_on["sharing"] = sharing_forms[config.sharing_loss](logits)
        return switched_on

    return losses
