"""Metrics that accumulate over a split: `update(prediction, batch)` for each batch, `compute()` at the end.

Every kind of task has two metrics, one per protocol, which bear the same names for their values:

`release`   what the published numbers were computed with, kept to be comparable with the paper. Predictions
            are resized to the ground truth with the nearest neighbour. Where it flatters: classes that are
            never hit are left out of mIoU, negative depths count as accurate, some values are means of batch
            means, and normals are compared in whatever form the data set holds them, raw pixels included.
`standard`  predictions are resized bilinearly (corners not aligned), and every valid pixel of the whole split
            weighs the same, so that neither the batch size nor the order of the images matters.

Both are computed at the size of the ground truth. Batches without a valid pixel do not count; if there was
none at all, every value is None. Sums are kept in float64 on the device of the predictions, and read once, by
`compute()`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from envs.losses import IGNORED_CLASS, Batch
from utils.errors import UserError

Sums = dict[str, Tensor]
Values = dict[str, float | None]
Resize = Callable[[Tensor, Tensor], Tensor]


class Metric(ABC):
    """The values of one task under one protocol, over all batches seen so far."""

    names: ClassVar[tuple[str, ...]]
    """The values that `compute()` returns, in the order of the tables."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    @abstractmethod
    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Take one batch into account.

        Args:
            prediction: the task's output [N, C, h, w].
            batch: ground truth of N images [*, H, W], as `envs.losses.Batch` describes it.
        """

    @abstractmethod
    def summarise(self, sums: Sums) -> dict[str, float]:
        """The values, from the sums over all batches (float64, on the CPU); at least one batch counted."""

    def add(self, **terms: Tensor | float) -> None:
        """Add each term to the sum of its name."""
        for name, term in terms.items():
            term = torch.as_tensor(term).detach().double()
            self._sums[name] = self._sums[name] + term if name in self._sums else term

    def compute(self) -> Values:
        """The values over all batches so far; all None if no batch had a valid pixel.

        Raises:
            UserError: a prediction was NaN or infinite.
        """
        if not self._sums:
            return dict.fromkeys(self.names)
        sums = {name: value.cpu() for name, value in self._sums.items()}
        if not all(value.isfinite().all() for value in sums.values()):
            raise UserError(
                f"The predictions behind {self.names[0]} hold NaN or infinite values, so there is nothing to "
                "measure: lower the learning rates or use an earlier checkpoint."
            )
        values = self.summarise(sums)
        return {name: float(values[name]) for name in self.names}


def nearest(prediction: Tensor, target: Tensor) -> Tensor:
    """Resize [N, C, h, w] to the target's [H, W] as the release does: nearest neighbour."""
    return F.interpolate(prediction.float(), size=target.shape[-2:], mode="nearest")


def bilinear(prediction: Tensor, target: Tensor) -> Tensor:
    """Resize [N, C, h, w] to the target's [H, W] as the standard protocol does: bilinear."""
    return F.interpolate(prediction.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)


# -------------------------------------------------------------------------------------- semantic segmentation

SEGMENTATION_NAMES = ("mIoU", "Pixel Acc", "err")


def segmentation_sums(prediction: Tensor, seg: Tensor, resize: Resize) -> tuple[Tensor, Tensor]:
    """Confusion matrix and summed cross-entropy of a batch.

    Args:
        prediction: logits [N, C, h, w].
        seg: int64 [N, H, W], 255 = no label.
        resize: brings the logits to [H, W].

    Returns:
        Over the labelled pixels: float64 [C, C], rows true and columns predicted, and a float64 scalar.
    """
    num_classes = prediction.shape[1]
    confusion = prediction.new_zeros(num_classes, num_classes, dtype=torch.float64)
    cross_entropy = prediction.new_zeros((), dtype=torch.float64)
    # Image by image, because logits at full size take 50 MB each.
    for image_prediction, image_seg in zip(prediction.split(1), seg.split(1), strict=True):
        logits = resize(image_prediction, image_seg)
        # `max` finds the same classes as `argmax`, in a third of the time on a CPU.
        predicted = logits.max(dim=1).indices
        labelled = image_seg != IGNORED_CLASS
        pairs = num_classes * image_seg[labelled] + predicted[labelled]
        confusion += torch.bincount(pairs, minlength=num_classes**2).view_as(confusion)
        losses = F.cross_entropy(logits, image_seg, ignore_index=IGNORED_CLASS, reduction="none")
        cross_entropy += losses.sum(dtype=torch.float64)
    return confusion, cross_entropy


def intersection_over_union(confusion: Tensor) -> Tensor:
    """IoU = TP / (TP + FP + FN) per class [C]; NaN for classes that neither occur nor are predicted."""
    hits = confusion.diag()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


class SegmentationRelease(Metric):
    """Segmentation in the release protocol.

    mIoU (0..1) over the classes with at least one hit, 0 if there is none; pixel accuracy (0..1) and
    cross-entropy (nats) of each batch, averaged over the batches by their numbers of images.
    """

    names = SEGMENTATION_NAMES

    def update(self, prediction: Tensor, batch: Batch) -> None:
        confusion, cross_entropy = segmentation_sums(prediction, batch["seg"], nearest)
        num_images, num_pixels = len(prediction), confusion.sum()
        if num_pixels == 0:
            return
        self.add(
            num_images=num_images,
            confusion=confusion,
            accuracy=num_images * confusion.diag().sum() / num_pixels,
            cross_entropy=num_images * cross_entropy / num_pixels,
        )

    def summarise(self, sums: Sums) -> dict[str, float]:
        hit = sums["confusion"].diag() > 0
        return {
            "mIoU": intersection_over_union(sums["confusion"])[hit].mean() if hit.any() else 0.0,
            "Pixel Acc": sums["accuracy"] / sums["num_images"],
            "err": sums["cross_entropy"] / sums["num_images"],
        }


class SegmentationStandard(Metric):
    """Segmentation in the standard protocol.

    mIoU (0..1) over the classes that occur or are predicted and pixel accuracy (0..1), both from one
    confusion matrix of the whole split; cross-entropy (nats), mean over pixels.
    """

    names = SEGMENTATION_NAMES

    def update(self, prediction: Tensor, batch: Batch) -> None:
        confusion, cross_entropy = segmentation_sums(prediction, batch["seg"], bilinear)
        if confusion.any():
            self.add(confusion=confusion, cross_entropy=cross_entropy)

    def summarise(self, sums: Sums) -> dict[str, float]:
        confusion = sums["confusion"]
        return {
            "mIoU": intersection_over_union(confusion).nanmean(),
            "Pixel Acc": confusion.diag().sum() / confusion.sum(),
            "err": sums["cross_entropy"] / confusion.sum(),
        }


# -------------------------------------------------------------------------------------------- surface normals

ANGLE_THRESHOLDS = (11.25, 22.5, 30, 45)
ANGLE_BIN = 0.001
"""Width in degrees of the bins that the median is read from. Its error is at most half a bin: 200 million
angles (the test split of NYU v2) need 1.4 MB instead of 1.6 GB."""


def angle_histogram(angles: Tensor) -> Tensor:
    """Number of angles per bin of `ANGLE_BIN` degrees from 0 to 180.

    Args:
        angles: degrees [P].

    Returns:
        int64 [180000].
    """
    num_bins = round(180 / ANGLE_BIN)
    bins = (angles / ANGLE_BIN).nan_to_num().long().clamp(max=num_bins - 1)
    return torch.bincount(bins, minlength=num_bins)


def histogram_median(histogram: Tensor) -> Tensor:
    """Median in degrees, to half a bin; of an even number of angles the mean of the two in the middle."""
    count_up_to = histogram.cumsum(0)
    total = count_up_to[-1]
    middle_ranks = torch.stack([torch.floor((total - 1) / 2), torch.floor(total / 2)])
    bins = torch.searchsorted(count_up_to, middle_ranks, right=True)
    return (bins.double() + 0.5).mean() * ANGLE_BIN


class Normals(Metric):
    """What both protocols share: all but the resizing.

    Angles in degrees between predicted and true normals, over all valid pixels of the split: mean, median,
    root mean square, and % within thresholds; and the mean of their cosines.
    """

    names = (
        "cosine_similarity",
        "Angle Mean",
        "Angle Median",
        "Angle RMSE",
        *(f"Angle {threshold}" for threshold in ANGLE_THRESHOLDS),
    )

    @staticmethod
    @abstractmethod
    def resize(prediction: Tensor, target: Tensor) -> Tensor:
        """Bring [N, 3, h, w] to the target's [H, W]."""

    def update(self, prediction: Tensor, batch: Batch) -> None:
        valid = batch["normal_valid"][:, 0]
        predicted = self.resize(prediction, batch["normal"]).movedim(1, -1)[valid]
        normal = batch["normal"].movedim(1, -1)[valid]
        if len(normal) == 0:
            return

        # In float32 the arc cosine near 1 is off by up to 0.03 degrees.
        cosine = F.cosine_similarity(predicted.double(), normal.double(), dim=-1)
        angles = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        self.add(
            num_pixels=len(normal),
            cosine=cosine.sum(),
            angle=angles.sum(),
            squared_angle=angles.square().sum(),
            histogram=angle_histogram(angles),
            within=torch.stack([(angles < threshold).sum() for threshold in ANGLE_THRESHOLDS]),
        )

    def summarise(self, sums: Sums) -> dict[str, float]:
        num_pixels = sums["num_pixels"]
        within = 100 * sums["within"] / num_pixels
        return {
            "cosine_similarity": sums["cosine"] / num_pixels,
            "Angle Mean": sums["angle"] / num_pixels,
            "Angle Median": histogram_median(sums["histogram"]),
            "Angle RMSE": (sums["squared_angle"] / num_pixels).sqrt(),
            **{f"Angle {t}": share for t, share in zip(ANGLE_THRESHOLDS, within, strict=True)},
        }


class NormalsRelease(Normals):
    """Surface normals in the release protocol: angles between vectors in the form that the batch holds.

    With `dataload.normals: release` these are raw pixels, 0..255, all in one octant, where angles come out
    far too small.
    """

    resize = staticmethod(nearest)


class NormalsStandard(Normals):
    """Surface normals in the standard protocol: angles between directions, so for decoded normals only."""

    resize = staticmethod(bilinear)


# ------------------------------------------------------------------------------------------------------ depth

DEPTH_RATIOS = {"sigma_1.25": 1.25, "sigma_1.25^2": 1.25**2, "sigma_1.25^3": 1.25**3}


def valid_depths(prediction: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Predicted (already resized) and true metres of the valid pixels, [P] each, float64."""
    valid = batch["depth_valid"]
    return prediction[valid].double(), batch["depth"][valid].double()


def depth_errors(predicted: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Per pixel [P]: absolute (m), relative, and squared relative (m) error."""
    error = (predicted - depth).abs()
    return {"abs_err": error, "rel_err": error / depth, "sq_rel_err": error.square() / depth}


def larger_ratio(predicted: Tensor, depth: Tensor) -> Tensor:
    """max(predicted / depth, depth / predicted) per pixel [P]; negative where the prediction is."""
    return torch.maximum(predicted / depth, depth / predicted)


class Depth(Metric):
    """What both protocols share, taken over all valid pixels of the split.

    Root mean square error (m), and % of pixels whose ratio is below 1.25, 1.25^2 and 1.25^3.
    """

    names = ("abs_err", "rel_err", "sq_rel_err", "rms", *DEPTH_RATIOS)

    def add_pixels(self, squared_error: Tensor, ratio: Tensor) -> None:
        """Count the valid pixels of one batch: squared error (m^2) and ratio, [P] each."""
        self.add(
            num_pixels=ratio.numel(),
            squared_error=squared_error.sum(),
            accurate=torch.stack([(ratio < limit).sum() for limit in DEPTH_RATIOS.values()]),
        )

    @staticmethod
    def summarise_pixels(sums: Sums) -> dict[str, float]:
        """The values that come from `add_pixels`."""
        accurate = 100 * sums["accurate"] / sums["num_pixels"]
        return {
            "rms": (sums["squared_error"] / sums["num_pixels"]).sqrt(),
            **dict(zip(DEPTH_RATIOS, accurate, strict=True)),
        }


class DepthRelease(Depth):
    """Depth in the release protocol.

    Absolute (m), relative and squared relative (m) error of each batch, averaged over the batches by their
    numbers of images. A negative depth has a negative ratio, which is below every threshold and so counts as
    accurate.
    """

    def update(self, prediction: Tensor, batch: Batch) -> None:
        predicted, depth = valid_depths(nearest(prediction, batch["depth"]), batch)
        if len(depth) == 0:
            return
        num_images = len(prediction)
        errors = depth_errors(predicted, depth)
        self.add(num_images=num_images, **{name: num_images * error.mean() for name, error in errors.items()})
        self.add_pixels(errors["abs_err"].square(), larger_ratio(predicted, depth))

    def summarise(self, sums: Sums) -> dict[str, float]:
        means = {name: sums[name] / sums["num_images"] for name in ("abs_err", "rel_err", "sq_rel_err")}
        return means | self.summarise_pixels(sums)


class DepthStandard(Depth):
    """Depth in the standard protocol.

    Absolute (m), relative and squared relative (m) error, mean over pixels. A depth that is not positive is a
    miss.
    """

    def update(self, prediction: Tensor, batch: Batch) -> None:
        predicted, depth = valid_depths(bilinear(prediction, batch["depth"]), batch)
        if len(depth) == 0:
            return
        errors = depth_errors(predicted, depth)
        self.add(**{name: error.sum() for name, error in errors.items()})
        ratio = torch.where(predicted > 0, larger_ratio(predicted, depth), torch.inf)
        self.add_pixels(errors["abs_err"].square(), ratio)

    def summarise(self, sums: Sums) -> dict[str, float]:
        means = {name: sums[name] / sums["num_pixels"] for name in ("abs_err", "rel_err", "sq_rel_err")}
        return means | self.summarise_pixels(sums)
