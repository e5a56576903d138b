"""Metrics of surface normals: angles between predicted and true directions."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from envs.losses import Batch
from envs.metrics.metric import Metric, Sums, bilinear, nearest

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


def pixels_with_normal(batch: Batch) -> Tensor:
    """Where a batch has a normal, bool [N, 1, H, W]."""
    return batch["normal_valid"]


def every_pixel(batch: Batch) -> Tensor:
    """True for all pixels, bool [N, 1, H, W]: what the release counts on Taskonomy, whose mask it never uses."""
    return torch.ones_like(batch["normal_valid"])


class Normals(Metric):
    """What both protocols share: all but the resizing.

    Angles in degrees between predicted and true normals, over all counted pixels of the split: mean, median,
    root mean square, and % within thresholds; and the mean of their cosines.

    Args:
        counted: the pixels to compare, batch -> bool [N, 1, H, W].
    """

    names = (
        "cosine_similarity",
        "Angle Mean",
        "Angle Median",
        "Angle RMSE",
        *(f"Angle {threshold}" for threshold in ANGLE_THRESHOLDS),
    )

    def __init__(self, counted: Callable[[Batch], Tensor] = pixels_with_normal) -> None:
        super().__init__()
        self.counted = counted

    @staticmethod
    @abstractmethod
    def resize(prediction: Tensor, target: Tensor) -> Tensor:
        """Bring [N, 3, h, w] to the target's [H, W]."""

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Vectors [N, 3, h, w] against "normal" [N, 3, H, W], both of any length."""
        counted = self.counted(batch)[:, 0]
        predicted = self.resize(prediction, batch["normal"]).movedim(1, -1)[counted]
        normal = batch["normal"].movedim(1, -1)[counted]
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

    def _summarise(self, sums: Sums) -> dict[str, float]:
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
