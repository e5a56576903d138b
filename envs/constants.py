"""What to predict for a kind of task without looking at the input, learned from what is valid in a split."""

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.losses import IGNORED_CLASS, Batch


def labelled_classes(batch: Batch) -> Tensor:
    """Class numbers of all labelled pixels, int64 [M]."""
    return batch["seg"][batch["seg"] != IGNORED_CLASS]


def valid_pixels(batch: Batch, target: str) -> Tensor:
    """Values of all pixels that have one, [M, C]: of "normal", "depth", "keypoint" or "edge"."""
    return batch[target].movedim(1, -1)[batch[f"{target}_valid"][:, 0]]


def class_numbers(batch: Batch, target: str) -> Tensor:
    """Class numbers of all samples of a task of classification, int64 [N]."""
    return batch[target]


def class_frequencies(classes: Tensor, num_classes: int) -> Tensor:
    """Logits [C] of the classes' frequencies (each counted once more): best accuracy and cross-entropy."""
    return (torch.bincount(classes, minlength=num_classes) + 1.0).log()


def mean_direction(vectors: Tensor, num_channels: int) -> Tensor:
    """The direction [3] with the highest mean cosine."""
    return F.normalize(F.normalize(vectors, dim=1).mean(dim=0), dim=0)


def median(values: Tensor, num_channels: int) -> Tensor:
    """The value [C] with the smallest mean absolute difference."""
    return values.median(dim=0).values
