"""One loss per kind of task, each a mean over the pixels with ground truth.

The losses are computed at the size of the prediction, an eighth of the image's: the ground truth is resized
to it with the nearest neighbour, as the release does. A batch without a single valid pixel has loss 0 with a
gradient of zeros, so that it neither stops nor moves the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.collectives import sum_over_processes

Batch = dict[str, Any]
"""What a data loader hands over. Where all tasks share each sample's image: "img" float32 [N, 3, H, W], "name"
list[str] and one entry per target, those of maps with their valid pixels, bool [N, 1, H, W], beside them:

- "seg"       int64 [N, H, W], 255 = no label; Taskonomy: "seg_weight" float32 [N, H, W], the factor of the pixel's
              class, 0 = no label
- "normal"    float32 [N, 3, H, W] and "normal_valid"
- "depth"     float32 [N, 1, H, W], metres (NYU v2), inverse depth (CityScapes) or log(1 + d) / log(2^16)
              (Taskonomy), and "depth_valid"
- "keypoint"  float32 [N, 1, H, W] in [-1, 1] and "keypoint_valid"
- "edge"      float32 [N, 1, H, W] in [-1, 1] and "edge_valid"

Where tasks have inputs of their own: "img" or "text" {task: Tensor}, "name" {task: list[str]}, and class numbers
int64 [N] under each task's name."""

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


@dataclass(frozen=True)
class Mean:
    """A weighted mean, in two parts: several processes have each a part of a batch, and their parts can be added up.

    Attributes:
        total: sum of weight * value, a scalar that is part of the graph.
        weight: sum of the weights, a scalar.
    """

    total: Tensor
    weight: Tensor

    @property
    def value(self) -> Tensor:
        """The mean; 0, still part of the graph, where nothing has a weight."""
        return self.total / torch.where(self.weight > 0, self.weight, 1.0)


def means_of_whole_batch(parts: Mapping[str, Mean]) -> dict[str, Mean]:
    """The means over what all processes have of a batch, from those over this process's part."""
    sums = sum_over_processes(torch.stack([term for part in parts.values() for term in (part.total, part.weight)]))
    return {name: Mean(total, weight) for name, (total, weight) in zip(parts, sums.view(-1, 2), strict=True)}


def masked_mean(values: Tensor, valid: Tensor) -> Mean:
    """Mean of the valid values; invalid ones may be NaN.

    Args:
        values: float [N, 1, h, w].
        valid: bool [N, 1, h, w].
    """
    return Mean(torch.where(valid, values, 0.0).sum(), valid.sum())


# --------------------------------------------------------------------------------------- semantic segmentation


def label_weights(batch: Batch) -> Tensor:
    """1 for pixels with a label, 0 for those without, float32 [N, H, W]."""
    return (batch["seg"] != IGNORED_CLASS).float()


def class_weights(batch: Batch) -> Tensor:
    """The factor of each pixel's class, 0 for pixels without a label, float32 [N, H, W] (Taskonomy)."""
    return batch["seg_weight"]


def weighted_cross_entropy(prediction: Tensor, seg: Tensor, weights: Tensor) -> Mean:
    """Cross-entropy of the pixels, weighted sum over the sum of weights.

    Args:
        prediction: logits [N, C, h, w].
        seg: int64 [N, H, W] in 0..C-1, or 255 = no label.
        weights: float [N, H, W], 0 where there is no label.
    """
    seg = resize_target(seg[:, None], prediction)[:, 0]
    weights = resize_target(weights[:, None], prediction)[:, 0]
    cross_entropy = F.cross_entropy(prediction.float(), seg, ignore_index=IGNORED_CLASS, reduction="none")
    return Mean((weights * cross_entropy).sum(), weights.sum())


def segmentation_loss(prediction: Tensor, batch: Batch) -> Mean:
    """Cross-entropy of the labelled pixels (release).

    Args:
        prediction: logits [N, C, h, w].
        batch: "seg" int64 [N, H, W] in 0..C-1, or 255 = no label.
    """
    return weighted_cross_entropy(prediction, batch["seg"], label_weights(batch))


def class_weighted_segmentation_loss(prediction: Tensor, batch: Batch) -> Mean:
    """Cross-entropy of the labelled pixels, weighted by the prior factors of their classes (release, Taskonomy).

    Args:
        prediction: logits [N, C, h, w].
        batch: "seg" int64 [N, H, W] in 0..C-1, or 255 = no label; "seg_weight" float32 [N, H, W].
    """
    return weighted_cross_entropy(prediction, batch["seg"], class_weights(batch))


# ------------------------------------------------------------------------------- normals, depth, response maps


def normal_loss(prediction: Tensor, batch: Batch) -> Mean:
    """One minus the mean cosine between predicted and true normal.

    The release never applies Taskonomy's mask, and learns the arbitrary normals of what was not measured; here
    pixels without a normal are left out of every data set. With a mask that is True throughout both are equal.

    Args:
        prediction: [N, 3, h, w], of any length.
        batch: "normal" float [N, 3, H, W], of any length (raw pixels or decoded, as `dataload.normals` says),
            and "normal_valid" bool [N, 1, H, W].
    """
    normal = resize_target(batch["normal"], prediction)
    valid = resize_target(batch["normal_valid"], prediction)
    cosine = F.cosine_similarity(prediction.float(), normal, dim=1)[:, None]
    return masked_mean(1 - cosine, valid)


def absolute_loss(prediction: Tensor, batch: Batch, target: str) -> Mean:
    """Mean absolute difference, in the unit of the target (release: depth, keypoints and edges).

    Args:
        prediction: [N, 1, h, w], of either sign.
        batch: the target [N, 1, H, W], and "{target}_valid" bool [N, 1, H, W].
        target: "depth", "keypoint" or "edge".
    """
    truth = resize_target(batch[target], prediction)
    valid = resize_target(batch[f"{target}_valid"], prediction)
    return masked_mean((prediction.float() - truth).abs(), valid)


# ---------------------------------------------------------------------------------------------- classification


def classification_loss(prediction: Tensor, batch: Batch, target: str) -> Mean:
    """Mean cross-entropy (release, DomainNet).

    Args:
        prediction: logits [N, C].
        batch: class numbers int64 [N] in 0..C-1; no number is ignored.
        target: their entry of the batch.
    """
    classes = batch[target]
    return Mean(F.cross_entropy(prediction.float(), classes, reduction="sum"), prediction.new_full((), len(classes)))
