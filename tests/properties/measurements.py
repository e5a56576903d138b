"""Strategies for ground truth and predictions of every task: a pixel or many, all ignored or none, tiny and huge."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from envs.losses import IGNORED_CLASS, Batch
from envs.metrics import Metric, Values
from envs.task_sets import build_tasks
from envs.tasks import Task
from tests.metric_inputs import images_of

NUM_CLASSES = 3

TASKS: dict[str, Task] = {
    "segmentation": build_tasks("NYU_v2", ["seg"], [NUM_CLASSES])["seg"],
    "CityScapes' segmentation": build_tasks("CityScapes", ["seg"], [2])["seg"],
    "Taskonomy's segmentation": build_tasks("Taskonomy", ["seg"], [17])["seg"],
    "normals": build_tasks("NYU_v2", ["sn"], [3], "decoded")["sn"],
    "Taskonomy's normals": build_tasks("Taskonomy", ["sn"], [3])["sn"],
    "depth": build_tasks("NYU_v2", ["depth"], [1])["depth"],
    "keypoints": build_tasks("Taskonomy", ["keypoint"], [1])["keypoint"],
    "classification": build_tasks("DomainNet", ["sketch"], [NUM_CLASSES])["sketch"],
}
"""Every kind of task, with both protocols, and with what data sets change of it."""

# Few values, so that ties are frequent; the largest are as large as a sum of their squares allows in float64.
predicted_numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, -1e30]) | st.floats(-20, 20, width=32)
true_numbers = st.sampled_from([0.0, 1.0, 0.5, 1e-6, 65.0]) | st.floats(0, 1, width=32)


@dataclass
class Measured:
    """Ground truth of some samples and what was predicted for them."""

    task: Task
    prediction: Tensor
    batch: Batch

    def values(self, protocol: str, split: list[list[int]] | None = None) -> Values:
        """What the task's metric says, over batches of these samples or, without a split, of all at once."""
        return measure(self.task.new_metric(protocol), self.pairs(split))

    def pairs(self, split: list[list[int]] | None) -> list[tuple[Tensor, Batch]]:
        batches = [list(range(len(self.prediction)))] if split is None else split
        parts = [images_of(self.batch, {"all": self.prediction}, chosen) for chosen in batches]
        return [(predictions["all"], batch) for batch, predictions in parts]

    def counted(self) -> Tensor:
        """Which pixels have ground truth, bool [N, H, W]; which samples, [N], where they are no maps."""
        target = self.batch[self.task.target]
        if not self.task.per_pixel:
            return torch.ones_like(target).bool()
        return target != IGNORED_CLASS if self.task.target == "seg" else self.batch[f"{self.task.target}_valid"][:, 0]


def measure(metric: Metric, pairs: list[tuple[Tensor, Batch]]) -> Values:
    """The values after these predictions and batches."""
    for prediction, batch in pairs:
        metric.update(prediction, batch)
    return metric.compute()


def tensors(draw: st.DrawFn, shape: tuple[int, ...], elements: st.SearchStrategy, dtype: type = np.float32) -> Tensor:
    return torch.from_numpy(draw(arrays.arrays(dtype, shape, elements=elements)))


def segmentation_batch(draw: st.DrawFn, shape: tuple[int, int, int], num_classes: int) -> Batch:
    seg = tensors(draw, shape, st.sampled_from([*range(num_classes), IGNORED_CLASS]), np.int64)
    factors = torch.linspace(0.5, 2, IGNORED_CLASS + 1)
    return {"seg": seg, "seg_weight": factors[seg] * (seg != IGNORED_CLASS)}


def map_batch(draw: st.DrawFn, shape: tuple[int, int, int], num_channels: int, target: str) -> Batch:
    images, height, width = shape
    truth = tensors(draw, (images, num_channels, height, width), TRUTHS[target])
    return {target: truth, f"{target}_valid": tensors(draw, (images, 1, height, width), st.booleans(), np.bool_)}


TRUTHS = {"normal": st.floats(-1, 1, width=32), "depth": true_numbers, "keypoint": st.floats(-1, 1, width=32)}


@st.composite
def measured(draw: st.DrawFn, kind: str, same_size: bool = True, max_samples: int = 4) -> Measured:
    """One to four samples of at most 3x4 pixels, with predictions of the same size or of a smaller one."""
    task = TASKS[kind]
    num_samples = draw(st.integers(1, max_samples))
    if not task.per_pixel:
        batch = {task.target: tensors(draw, (num_samples,), st.integers(0, NUM_CLASSES - 1), np.int64)}
        return Measured(task, tensors(draw, (num_samples, NUM_CLASSES), predicted_numbers), batch)
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    of_target: Callable = segmentation_batch if task.target == "seg" else partial(map_batch, target=task.target)
    batch = of_target(draw, (num_samples, height, width), task.num_channels)
    if not same_size:
        height, width = draw(st.integers(1, height)), draw(st.integers(1, width))
    return Measured(task, tensors(draw, (num_samples, task.num_channels, height, width), predicted_numbers), batch)


@st.composite
def splits(draw: st.DrawFn, num_samples: int) -> list[list[int]]:
    """All samples in some order, in some batches."""
    order = draw(st.permutations(range(num_samples)))
    cuts = draw(st.sets(st.integers(1, num_samples - 1))) if num_samples > 1 else set()
    borders = [0, *sorted(cuts), num_samples]
    return [order[start:end] for start, end in pairwise(borders)]
