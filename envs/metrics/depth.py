"""Metrics of depth: errors, relative errors, and how often the ratio to the truth is small.

All are in the unit of the batch's "depth": metres (NYU v2), inverse depth (CityScapes) or its logarithm,
0..1 (Taskonomy). A valid depth of 0, which only a logarithm has, cannot be divided by: it counts in abs_err, rms
and the ratios, where it is a miss, but not in the relative errors.
"""

import torch
from torch import Tensor

from envs.losses import Batch
from envs.metrics.metric import Metric, Sums, bilinear, nearest

DEPTH_RATIOS = {"sigma_1.25": 1.25, "sigma_1.25^2": 1.25**2, "sigma_1.25^3": 1.25**3}


def valid_depths(prediction: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Predicted (already resized) and true depths of the valid pixels, [P] each, float64."""
    valid = batch["depth_valid"]
    return prediction[valid].double(), batch["depth"][valid].double()


def depth_errors(predicted: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Absolute error per pixel [P]; relative and squared relative error per pixel whose depth is not 0 [Q]."""
    error, divisible = (predicted - depth).abs(), depth > 0
    relative_to = depth[divisible]
    return {
        "abs_err": error,
        "rel_err": error[divisible] / relative_to,
        "sq_rel_err": error[divisible].square() / relative_to,
    }


def larger_ratio(predicted: Tensor, depth: Tensor) -> Tensor:
    """max(predicted / depth, depth / predicted) per pixel [P]; negative where the prediction is."""
    return torch.maximum(predicted / depth, depth / predicted)


class Depth(Metric):
    """What both protocols share, taken over all valid pixels of the split.

    Root mean square error, and % of pixels whose ratio is below 1.25, 1.25^2 and 1.25^3.
    """

    names = ("abs_err", "rel_err", "sq_rel_err", "rms", *DEPTH_RATIOS)

    def add_pixels(self, error: Tensor, ratio: Tensor) -> None:
        """Count the valid pixels of one batch: absolute error and ratio, [P] each."""
        self.add(
            num_pixels=ratio.numel(),
            squared_error=error.square().sum(),
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

    Absolute, relative and squared relative error of each batch, averaged over the batches by their numbers of
    images. A negative depth has a negative ratio, which is below every threshold and so counts as accurate.
    """

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Depths [N, 1, h, w] against "depth" [N, 1, H, W] where "depth_valid"."""
        predicted, depth = valid_depths(nearest(prediction, batch["depth"]), batch)
        if not (depth > 0).any():
            return
        num_images = len(prediction)
        errors = depth_errors(predicted, depth)
        self.add(num_images=num_images, **{name: num_images * error.mean() for name, error in errors.items()})
        self.add_pixels(errors["abs_err"], larger_ratio(predicted, depth))

    def _summarise(self, sums: Sums) -> dict[str, float]:
        means = {name: sums[name] / sums["num_images"] for name in ("abs_err", "rel_err", "sq_rel_err")}
        return means | self.summarise_pixels(sums)


class DepthStandard(Depth):
    """Depth in the standard protocol.

    Absolute, relative and squared relative error, mean over pixels. A depth that is not positive is a miss. Where
    every valid depth is 0, the relative errors are None.
    """

    def update(self, prediction: Tensor, batch: Batch) -> None:
        """Depths [N, 1, h, w] against "depth" [N, 1, H, W] where "depth_valid"."""
        predicted, depth = valid_depths(bilinear(prediction, batch["depth"]), batch)
        if len(depth) == 0:
            return
        errors = depth_errors(predicted, depth)
        self.add(num_divisible=len(errors["rel_err"]), **{name: error.sum() for name, error in errors.items()})
        ratio = torch.where(predicted > 0, larger_ratio(predicted, depth), torch.inf)
        self.add_pixels(errors["abs_err"], ratio)

    def _summarise(self, sums: Sums) -> dict[str, Tensor | None]:
        divisible = sums["num_divisible"] > 0
        means = {
            "abs_err": sums["abs_err"] / sums["num_pixels"],
            "rel_err": sums["rel_err"] / sums["num_divisible"] if divisible else None,
            "sq_rel_err": sums["sq_rel_err"] / sums["num_divisible"] if divisible else None,
        }
        return means | self.summarise_pixels(sums)
