"""One loss per kind of task, each a scalar that is averaged over the pixels with ground truth.

The losses are computed at the size of the prediction, an eighth of the image's: the ground truth is resized
to it with the nearest neighbour, as the release does. A batch without a single valid pixel has loss 0 with a
gradient of zeros, so that it neither stops nor moves the training.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Batch = dict[str, Any]
"""What a data loader hands over: "img" float32 [N, 3, H, W], one entry per target, "name" list[str]. The
targets are "seg" int64 [N, H, W]; "normal" float32 [N, 3, H, W] and "normal_valid" bool [N, 1, H, W]; "depth"
float32 [N, 1, H, W] in metres and "depth_valid" bool [N, 1, H, W]."""

IGNORED_CLASS = 255
"""The class number of pixels without a label."""


def resize_target(target: Tensor, prediction: Tensor) -> Tensor:
    """Resize a target to the height and width of the prediction, nearest neighbour.

    Args:
        target: [N, C, H, W] of any type; integers up to 2^24 survive exactly.
        prediction: [N, *, h, w].

    Returns:
        [N, C, h, w] of the target's type.
    """
    return F.interpolate(target.float(), size=prediction.shape[-2:], mode="nearest").to(target.dtype)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid values; 0, still part of the graph, where none is valid. Invalid ones may be NaN.

    Args:
        values: float [N, 1, h, w].
        valid: bool [N, 1, h, w].
    """
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def segmentation_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the labelled pixels (release).

    Args:
        prediction: logits [N, C, h, w].
        batch: "seg" int64 [N, H, W] in 0..C-1, or 255 = no label.
    """
    seg = resize_target(batch["seg"][:, None], prediction)[:, 0]
    total = F.cross_entropy(prediction.float(), seg, ignore_index=IGNORED_CLASS, reduction="sum")
    return total / (seg != IGNORED_CLASS).sum().clamp(min=1)


def normal_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """One minus the mean cosine between predicted and true normal (release).

    Args:
        prediction: [N, 3, h, w], of any length.
        batch: "normal" float [N, 3, H, W], of any length (raw pixels or decoded, as `dataload.normals` says),
            and "normal_valid" bool [N, 1, H, W].
    """
    normal = resize_target(batch["normal"], prediction)
    valid = resize_target(batch["normal_valid"], prediction)
    cosine = F.cosine_similarity(prediction.float(), normal, dim=1)[:, None]
    return masked_mean(1 - cosine, valid)


def depth_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Mean absolute difference in metres (release).

    Args:
        prediction: metres [N, 1, h, w], of either sign.
        batch: "depth" metres [N, 1, H, W] and "depth_valid" bool [N, 1, H, W].
    """
    depth = resize_target(batch["depth"], prediction)
    valid = resize_target(batch["depth_valid"], prediction)
    return masked_mean((prediction.float() - depth).abs(), valid)
