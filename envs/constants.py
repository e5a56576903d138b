"""What to predict for a kind of task without looking at the image, learned from the valid pixels of a split."""

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.losses import IGNORED_CLASS, Batch


def labelled_classes(batch: Batch) -> Tensor:
    """Class numbers of all labelled pixels, int64 [M]."""
    return batch["seg"][batch["seg"] != IGNORED_CLASS]


def valid_normals(batch: Batch) -> Tensor:
    """Vectors of all pixels with a normal, [M, 3]."""
    return batch["normal"].movedim(1, -1)[batch["normal_valid"][:, 0]]


def valid_metres(batch: Batch) -> Tensor:
    """Metres of all pixels with a depth, [M, 1]."""
    return batch["depth"].movedim(1, -1)[batch["depth_valid"][:, 0]]


def class_frequencies(classes: Tensor, num_classes: int) -> Tensor:
    """Logits [C] of the classes' frequencies (each counted once more): best accuracy and cross-entropy."""
    return (torch.bincount(classes, minlength=num_classes) + 1.0).log()


def mean_direction(vectors: Tensor, num_channels: int) -> Tensor:
    """The direction [3] with the highest mean cosine."""
    return F.normalize(F.normalize(vectors, dim=1).mean(dim=0), dim=0)


def median(values: Tensor, num_channels: int) -> Tensor:
    """The value [C] with the smallest mean absolute difference."""
    return values.median(dim=0).values
