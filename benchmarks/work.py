"""The work that is measured: the paper's configurations, on images and with weights that come from seeds alone."""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.settings import TINY_NETWORK, TINY_SIZE, Settings
from envs.experiment import configured_tasks
from envs.losses import Batch
from envs.tasks import Task
from models.shared_paths import HardGates
from utils.config import NUM_BLOCKS, TrainingConfig, load_config
from utils.devices import to_device

CONFIGURATIONS = Path(__file__).parents[1] / "yamls" / "adashare"

HEADLINE = "nyu_v2_3task"
"""The configuration that the promises are about."""

OTHERS = ("nyu_v2_2task", "cityscapes_2task", "taskonomy_5task")

TEST_SIZES = {"NYU_v2": (480, 640), "CityScapes": (256, 512), "Taskonomy": (256, 256)}
"""Data set -> height and width of the images that the network is tested on, one by one."""

VALID_SHARE = 0.9
"""Of the pixels of a target."""


@dataclass(frozen=True)
class Work:
    """A network to train and to test, and what on; who computes it, and how, is another matter.

    Attributes:
        configuration: name of a file in yamls/adashare.
        values: what wins over it, as `--set` takes it.
        test_size: height and width of the one image of a test.
    """

    configuration: str
    values: tuple[str, ...]
    test_size: tuple[int, int]

    @cached_property
    def config(self) -> TrainingConfig:
        """The configuration with its values."""
        return load_config(CONFIGURATIONS / f"{self.configuration}.yml", self.values)

    @property
    def tasks(self) -> dict[str, Task]:
        """The records of its tasks, whose losses are the real ones."""
        return configured_tasks(self.config)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of the tasks and of the regularisers."""
        config = self.config
        regularisers = {"sparsity": config.train.reg_w, "sharing": config.train.reg_w_hamming}
        return {**dict(zip(config.tasks, config.lambdas, strict=True)), **regularisers}

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks that a path executes or skips."""
        return NUM_BLOCKS[self.config.backbone]

    def with_values(self, *values: str) -> "Work":
        """The same work under values that win over its own."""
        return replace(self, values=(*self.values, *values))

    def gates(self) -> HardGates:
        """The fixed gates of retraining and test: each task executes about 7 of 10 blocks."""
        return dict(zip(self.tasks, policies(7, len(self.tasks), self.num_blocks), strict=True))

    def batch(self, device: torch.device) -> Batch:
        """A training batch of noise: images as the network sees them, classes, directions, other values."""
        config = self.config
        shape = (config.train.batch_size, config.dataload.crop_h, config.dataload.crop_w)
        random = torch.Generator().manual_seed(0)
        batch: Batch = {"img": noise_image(*shape, random)}
        for task in self.tasks.values():
            batch |= noise_target(task, *shape, random)
        return to_device(batch, device)

    def test_image(self, device: torch.device) -> Tensor:
        """[1, 3, H, W] of `test_size`."""
        return noise_image(1, *self.test_size, torch.Generator().manual_seed(1)).to(device)


def paper_work(configuration: str, settings: Settings) -> Work:
    """A configuration of the paper, in batches and images of the size that the settings ask for."""
    height, width = f"dataload.crop_h={settings.size}", f"dataload.crop_w={settings.size}"
    values = (f"train.batch_size={settings.batch_size}", height, width)
    work = Work(configuration, values, test_size=(TINY_SIZE, TINY_SIZE))
    if settings.tiny:
        return work.with_values(*TINY_NETWORK)
    return replace(work, test_size=TEST_SIZES[work.config.dataload.dataset])


def policies(seed: int, num_tasks: int, num_blocks: int, keep: float = 0.7) -> list[list[int]]:
    """Random hard gates [num_tasks][num_blocks]: 1 (execute) with probability `keep`, else 0 (skip)."""
    random = np.random.RandomState(seed)
    return [(random.rand(num_blocks) < keep).astype(int).tolist() for _ in range(num_tasks)]


def noise_image(num_images: int, height: int, width: int, random: torch.Generator) -> Tensor:
    """float32 [N, 3, H, W], of about the mean and deviation of BGR in 0..255 minus the mean."""
    return 60 * torch.randn(num_images, 3, height, width, generator=random)


def noise_target(task: Task, num_images: int, height: int, width: int, random: torch.Generator) -> Batch:
    """What a task of maps learns from, under the names and in the shapes of `envs.losses.Batch`."""
    if task.target == "seg":
        shape = (num_images, height, width)
        classes = torch.randint(task.num_channels, shape, generator=random)
        return {"seg": classes, "seg_weight": torch.ones(shape)}
    values = torch.randn(num_images, task.num_channels, height, width, generator=random)
    if task.target == "normal":
        values = F.normalize(values, dim=1)
    valid = torch.rand(num_images, 1, height, width, generator=random) < VALID_SHARE
    return {task.target: values, f"{task.target}_valid": valid}


@torch.no_grad()
def seed_weights(net: nn.Module) -> nn.Module:
    """Give every weight and running statistic a value that its name determines; returns the network.

    So that networks with the same names compute the same, however they keep and use their weights.
    """
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            value.copy_(noise_weight(name, value.shape, random))
    return net


def noise_weight(name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    """Values under which activations keep their size: weights of variance 1 / fan-in, BatchNorms that matter."""
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=random)
    noise = torch.randn(shape, generator=random)
    if len(shape) == 1:
        return 0.3 + 0.05 * noise if name.endswith("weight") else 0.1 * noise
    return noise if "logits" in name else noise / shape[1:].numel() ** 0.5
