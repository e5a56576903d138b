"""Runs that take a second: five small frames, a narrow network, settings to be changed one by one."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.data import Data
from envs.run import Run
from envs.run_files import RunFiles
from envs.task_sets import build_tasks
from envs.tasks import Task
from models.multitask import MultiTaskNet, build_network
from models.shared_paths import all_blocks
from tests.test_nyu_v2 import make_root
from utils.checkpoint import load_checkpoint
from utils.config import DataloadSection, TrainSection
from utils.interruption import Interrupted, Interruption
from utils.logger import RunLogger

CPU = torch.device("cpu")
TASKS = build_tasks("NYU_v2", ["seg", "depth"], [40, 1])
ALL_BLOCKS = all_blocks(TASKS, 8)
LOSS_WEIGHTS = {"seg": 1.0, "depth": 3.0, "sparsity": 0.5, "sharing": 0.25}
SETTINGS = {
    "batch_size": 2,
    "total_iters": 8,
    "warm_up_iters": 2,
    "lr": 0.001,
    "backbone_lr": 0.001,
    "decay_lr_freq": 2,
    "decay_lr_rate": 0.5,
    "weight_iter_alternate": 2,
    "alpha_iter_alternate": 2,
    "reg_w": 0.5,
    "reg_w_hamming": 0.25,
    "print_freq": 1,
    "val_freq": 2,
    "eval_batches": 1,
}


def small_frames(folder: Path) -> DataloadSection:
    """Five frames of 32x48, a to e, in a bare folder, which makes them train and test; crops of 16x24."""
    make_root(folder, list("abcde"), height=32, width=48)
    return DataloadSection(dataset="NYU_v2", dataroot=str(folder), crop_h=16, crop_w=24, num_workers=0)


def small_data(folder: Path, training_splits: Sequence[str] = ("train",), tasks: dict[str, Task] = TASKS) -> Data:
    """The small frames as streams of batches."""
    return Data(small_frames(folder), tasks, 88, CPU, training_splits, ["val", "test"])


def small_net(tasks: Sequence[str] = ("seg", "depth"), skip_layer: int = 0) -> MultiTaskNet:
    """A ResNet18 of 8 blocks, an eighth as wide as the shipped ones."""
    outputs = {task: {"seg": 40, "sn": 3, "depth": 1}[task] for task in tasks}
    return build_network(
        backbone="ResNet18", num_outputs=outputs, backbone_width=8, head_width=8, skip_layer=skip_layer
    )


def run_files(folder: Path) -> RunFiles:
    """The three folders of a run, side by side."""
    return RunFiles(folder / "logs", folder / "checkpoints", folder / "results")


def small_run(
    folder: Path, data: Data, logger: RunLogger, interruption: Interruption | None = None, **settings: object
) -> Run:
    """A run below `folder` with a new network; `settings` replace those of the `train` section."""
    train = TrainSection(**{**SETTINGS, **settings})
    return Run(
        net=small_net(),
        tasks=TASKS,
        loss_weights=LOSS_WEIGHTS,
        settings=train,
        configuration={},
        data=data,
        validation=data.evaluation("val", 2, whole=False, most=train.eval_batches),
        files=run_files(folder),
        checkpoints=run_files(folder).of_training(),
        logger=logger,
        interruption=interruption or Interruption(),
        fix_bn=False,
    )


def logged(folder: Path) -> list[dict]:
    """The lines of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class StopAtCheck(Interruption):
    """A stop that is requested just before the run looks for the `number`-th time whether there is one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._checks_left = number

    def check(self) -> None:
        self._checks_left -= 1
        if self._checks_left == 0:
            raise Interrupted(signal.SIGTERM)


def kept(folder: Path, label: str) -> dict[str, Any]:
    """The content of a checkpoint below `folder`."""
    return load_checkpoint(run_files(folder).checkpoint(label))


def same(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are equal to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
