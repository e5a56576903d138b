"""Metrics of semantic segmentation: mIoU, pixel accuracy, cross-entropy."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from envs.losses import IGNORED_CLASS, Batch, label_weights
from envs.metrics.metric import Metric, Resize, Sums, bilinear, nearest


def segmentation_sums(prediction: Tensor, seg: Tensor, weights: Tensor, resize: Resize) -> tuple[Tensor, Tensor]:
    """Confusion matrix and summed cross-entropy of a batch.

    Args:
        prediction: logits [N, C, h, w].
        seg: int64 [N, H, W], 255 = no label.
        weights: of the pixels in the cross-entropy, float [N, H, W].
        resize: brings the logits to [H, W].

    Returns:
        Over the labelled pixels: float64 [C, C], rows true and columns predicted, every pixel counted once; and
        a float64 scalar.
    """
    num_classes = prediction.shape[1]
    confusion = prediction.new_zeros(num_classes, num_classes, dtype=torch.float64)
    cross_entropy = prediction.new_zeros((), dtype=torch.float64)
    # Image by image, because logits at full size take 50 MB each.
    images = zip(prediction.split(1), seg.split(1), weights.split(1), strict=True)
    for image_prediction, image_seg, image_weights in images:
        logits = resize(image_prediction, image_seg)
        # `max` finds the same classes as `argmax`, in a third of the time on a CPU.
        predicted = logits.max(dim=1).indices
        labelled = image_seg != IGNORED_CLASS
        pairs = num_classes * image_seg[labelled] + predicted[labelled]
        confusion += torch.bincount(pairs, minlength=num_classes**2).view_as(confusion)
        losses = F.cross_entropy(logits, image_seg, ignore_index=IGNORED_CLASS, reduction="none")
        cross_entropy += (image_weights * losses).sum(dtype=torch.float64)
    return confusion, cross_entropy


def intersection_over_union(confusion: Tensor) -> Tensor:
    """IoU = TP / (TP + FP + FN) per class [C]; NaN for classes that neither occur nor are predicted."""
    hits = confusion.diag()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def labelled_pixels(batch: Batch) -> Tensor:
    """How many pixels of a batch have a label, a scalar."""
    return (batch["seg"] != IGNORED_CLASS).sum()


def all_pixels(batch: Batch) -> Tensor:
    """How many pixels a batch has: those without a label count as misses in the release's accuracy on CityScapes."""
    return torch.tensor(batch["seg"].numel())


class Segmentation(Metric):
    """What both protocols share: the names of the values.

    Args:
        pixel_weights: what each pixel weighs in the cross-entropy, batch -> float [N, H, W]:
            `envs.losses.label_weights` or `class_weights`. IoU and accuracy are never weighted.
    """

    names = ("mIoU", "Pixel Acc", "err")

    def __init__(self, pixel_weights: Callable[[Batch], Tensor] = label_weights) -> None:
        super().__init__()
        self.pixel_weights = pixel_weights


class SegmentationRelease(Segmentation):
    """Segmentation in the release protocol.

    mIoU (0..1) over the classes with at least one hit, 0 if there is none; pixel accuracy (0..1) and
    cross-entropy (nats, the weighted mean) of each batch, averaged over the batches by their numbers of images.

    Args:
        pixel_weights: see `Segmentation`.
        accuracy_over: how many pixels of a batch the accuracy is a share of, `labelled_pixels` or `all_pixels`.
    """

    def __init__(
        self,
        pixel_weights: Callable[[Batch], Tensor] = label_weights,
        accuracy_over: Callable[[Batch], Tensor] = labelled_pixels,
    ) -> None:
        super().__init__(pixel_weights)
        self.accuracy_over = accuracy_over

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Logits [N, C, h, w] against "seg" int64 [N, H, W], 255 = no label."""
        weights = self.pixel_weights(batch)
        confusion, cross_entropy = segmentation_sums(prediction, batch["seg"], weights, nearest)
        num_images, total_weight = len(prediction), weights.sum(dtype=torch.float64)
        if total_weight == 0:
            return
        self.add(
            num_images=num_images,
            confusion=confusion,
            accuracy=num_images * confusion.diag().sum() / self.accuracy_over(batch),
            cross_entropy=num_images * cross_entropy / total_weight,
        )

    def _summarise(self, sums: Sums) -> dict[str, float]:
        hit = sums["confusion"].diag() > 0
        return {
            "mIoU": intersection_over_union(sums["confusion"])[hit].mean() if hit.any() else 0.0,
            "Pixel Acc": sums["accuracy"] / sums["num_images"],
            "err": sums["cross_entropy"] / sums["num_images"],
        }


class SegmentationStandard(Segmentation):
    """Segmentation in the standard protocol.

    mIoU (0..1) over the classes that occur or are predicted and pixel accuracy (0..1), both from one
    confusion matrix of the whole split; cross-entropy (nats), weighted sum over the sum of weights.
    """

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Logits [N, C, h, w] against "seg" int64 [N, H, W], 255 = no label."""
        weights = self.pixel_weights(batch)
        confusion, cross_entropy = segmentation_sums(prediction, batch["seg"], weights, bilinear)
        total_weight = weights.sum(dtype=torch.float64)
        if total_weight > 0:
            self.add(confusion=confusion, cross_entropy=cross_entropy, total_weight=total_weight)

    def _summarise(self, sums: Sums) -> dict[str, float]:
        confusion = sums["confusion"]
        return {
            "mIoU": intersection_over_union(confusion).nanmean(),
            "Pixel Acc": confusion.diag().sum() / confusion.sum(),
            "err": sums["cross_entropy"] / sums["total_weight"],
        }
