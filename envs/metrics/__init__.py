"""Metrics that accumulate over a split: `update(prediction, batch)` for each batch, `compute()` at the end.

Every kind of task has two metrics, one per protocol, which bear the same names for their values:

`release`   what the published numbers were computed with, kept to be comparable with the paper. Predictions
            are resized to the ground truth with the nearest neighbour. Where it flatters: classes that are
            never hit are left out of mIoU, negative depths count as accurate, some values are means of batch
            means, and normals are compared in whatever form the data set holds them, raw pixels included. Where
            it is severe: on CityScapes pixels without a label count as misses in the accuracy, and on Taskonomy
            normals count where nothing was measured.
`standard`  predictions are resized bilinearly (corners not aligned), and every valid pixel of the whole split
            weighs the same, so that neither the batch size nor the order of the images matters.

Both are computed at the size of the ground truth. Classification, which has no pixels, is measured alike in
both. Batches without a valid pixel do not count; if there was none at all, every value is None.
"""

from envs.metrics.classification import Classification
from envs.metrics.depth import DepthRelease, DepthStandard
from envs.metrics.metric import Metric, Values
from envs.metrics.normals import NormalsRelease, NormalsStandard, every_pixel
from envs.metrics.response_maps import ResponseMapRelease, ResponseMapStandard
from envs.metrics.segmentation import SegmentationRelease, SegmentationStandard, all_pixels

__all__ = [
    "Classification",
    "DepthRelease",
    "DepthStandard",
    "Metric",
    "NormalsRelease",
    "NormalsStandard",
    "ResponseMapRelease",
    "ResponseMapStandard",
    "SegmentationRelease",
    "SegmentationStandard",
    "Values",
    "all_pixels",
    "every_pixel",
]
