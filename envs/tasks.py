"""The tasks: one record each, with its target, its loss, its metrics and how good they are.

`envs.task_sets` says which data set has which of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.constants import (
    class_frequencies,
    class_numbers,
    labelled_classes,
    mean_direction,
    median,
    valid_pixels,
)
from envs.losses import (
    IGNORED_CLASS,
    Batch,
    Mean,
    absolute_loss,
    class_weighted_segmentation_loss,
    class_weights,
    classification_loss,
    normal_loss,
    segmentation_loss,
)
from envs.metrics import (
    Classification,
    DepthRelease,
    DepthStandard,
    Metric,
    NormalsRelease,
    NormalsStandard,
    ResponseMapRelease,
    ResponseMapStandard,
    SegmentationRelease,
    SegmentationStandard,
)
from utils.errors import UserError
from utils.pictures import RGB, class_picture, direction_picture, distance_picture, response_picture

PROTOCOLS = ("release", "standard")
"""Ways to measure, see `envs.metrics`. The release's is comparable with the paper, and what `score` reads."""


@dataclass(frozen=True)
class Task:
    """All that training and evaluation need to know of a task.

    To add one, write its record here and list it in the tasks of its data set, in `envs.task_sets`.
    """

    name: str
    """As in the configuration's `tasks`."""
    title: str
    """As in tables and pictures."""
    target: str
    """The entry of the batch that it learns from."""
    num_channels: int | None
    """Channels of the prediction; None where the configuration decides: one per class."""
    loss: Callable[[Tensor, Batch], Mean]
    """(prediction [N, C, h, w], or [N, C] where not `per_pixel`; batch) -> mean over what is valid."""
    metrics: Mapping[str, Callable[[], Metric]]
    """Protocol -> maker of an empty metric."""
    headline: str
    """The one metric to show where there is room for one."""
    lower_is_better: frozenset[str]
    """Metrics to minimise; all others are to be maximised."""
    valid_values: Callable[[Batch], Tensor]
    """The target of all pixels (or samples) that have one: class numbers [M] or vectors [M, C]."""
    constant: Callable[[Tensor, int], Tensor]
    """(valid values, channels) -> the best prediction [C] that does not look at the input."""
    picture: Callable[[np.ndarray], RGB] | None
    """Values in the form of the target, without the batch axis -> colours; None where there is nothing to draw."""
    units: Mapping[str, str]
    """Metric -> unit; metrics without one are plain numbers (mIoU, Pixel Acc and accuracy between 0 and 1)."""
    to_target: Callable[[Tensor], Tensor] = lambda prediction: prediction
    """Prediction -> values in the form of the target."""
    per_pixel: bool = True
    """Whether it predicts a map; False where it predicts one class for the whole input."""
    missing_protocols: Mapping[str, str] = field(default_factory=dict)
    """Protocol -> why this run has no metrics of the task under it, in words for the tables."""
    references: Mapping[str, float] = field(default_factory=dict)
    """Metric, of those that the paper reports -> the single-task value that `score` compares with."""

    def new_metric(self, protocol: str) -> Metric | None:
        """An empty metric, or None where `missing_protocols` says why there is none."""
        return None if protocol in self.missing_protocols else self.metrics[protocol]()


def most_likely_class(prediction: Tensor) -> Tensor:
    """Logits [N, C, ...] -> class numbers int64 [N, ...]."""
    return prediction.argmax(dim=1)


# --------------------------------------------------------------------------------------------- maps of classes

SEGMENTATION = Task(
    name="seg",
    title="semantic segmentation",
    target="seg",
    num_channels=None,
    loss=segmentation_loss,
    metrics={"release": SegmentationRelease, "standard": SegmentationStandard},
    headline="mIoU",
    lower_is_better=frozenset({"err"}),
    valid_values=labelled_classes,
    constant=class_frequencies,
    picture=partial(class_picture, ignored=IGNORED_CLASS),
    to_target=most_likely_class,
    units={"err": "nats"},
)

CLASS_WEIGHTED_SEGMENTATION = replace(
    SEGMENTATION,
    loss=class_weighted_segmentation_loss,
    metrics={
        "release": partial(SegmentationRelease, pixel_weights=class_weights),
        "standard": partial(SegmentationStandard, pixel_weights=class_weights),
    },
    headline="err",
)

# ----------------------------------------------------------------------------------- maps of continuous values

SURFACE_NORMALS = Task(
    name="sn",
    title="surface normals",
    target="normal",
    num_channels=3,
    loss=normal_loss,
    metrics={"release": NormalsRelease, "standard": NormalsStandard},
    headline="Angle Mean",
    lower_is_better=frozenset({"Angle Mean", "Angle Median", "Angle RMSE"}),
    valid_values=partial(valid_pixels, target="normal"),
    constant=mean_direction,
    picture=direction_picture,
    units={
        "Angle Mean": "degrees",
        "Angle Median": "degrees",
        "Angle RMSE": "degrees",
        "Angle 11.25": "%",
        "Angle 22.5": "%",
        "Angle 30": "%",
        "Angle 45": "%",
    },
)

DEPTH = Task(
    name="depth",
    title="depth",
    target="depth",
    num_channels=1,
    loss=partial(absolute_loss, target="depth"),
    metrics={"release": DepthRelease, "standard": DepthStandard},
    headline="abs_err",
    lower_is_better=frozenset({"abs_err", "rel_err", "sq_rel_err", "rms"}),
    valid_values=partial(valid_pixels, target="depth"),
    constant=median,
    picture=partial(distance_picture, farthest=10.0),
    units={
        "abs_err": "m",
        "sq_rel_err": "m",
        "rms": "m",
        "sigma_1.25": "%",
        "sigma_1.25^2": "%",
        "sigma_1.25^3": "%",
    },
)


def response_map(name: str, title: str) -> Task:
    """The record of predicting how strongly a detector responds at each pixel, -1..1; target and name are one."""
    return Task(
        name=name,
        title=title,
        target=name,
        num_channels=1,
        loss=partial(absolute_loss, target=name),
        metrics={
            "release": partial(ResponseMapRelease, target=name),
            "standard": partial(ResponseMapStandard, target=name),
        },
        headline="err",
        lower_is_better=frozenset({"err"}),
        valid_values=partial(valid_pixels, target=name),
        constant=median,
        picture=response_picture,
        units={},
    )


KEYPOINTS = response_map("keypoint", "keypoints")
EDGES = response_map("edge", "edges")

# -------------------------------------------------------------------------------------- one class for an input


def classification(domain: str, num_classes: int) -> Task:
    """The record of classifying the images or texts of one domain, whose name is the target's too."""
    metric = partial(Classification, target=domain)
    return Task(
        name=domain,
        title=domain,
        target=domain,
        num_channels=num_classes,
        loss=partial(classification_loss, target=domain),
        metrics={"release": metric, "standard": metric},
        headline="accuracy",
        lower_is_better=frozenset({"err"}),
        valid_values=partial(class_numbers, target=domain),
        constant=class_frequencies,
        picture=None,
        to_target=most_likely_class,
        units={"err": "nats"},
        per_pixel=False,
        references={"accuracy": 1.0},
    )


# ----------------------------------------------------------------------------------------------- class numbers


class KnownClasses(NamedTuple):
    """The class numbers of one task: all that the processes that make batches need of its record.

    Attributes:
        target: the entry of the batch that holds them.
        number: they are below it.
        per_pixel: whether it is a map, where 255 (no label) may occur too.
    """

    target: str
    number: int
    per_pixel: bool


def known_classes(tasks: Mapping[str, Task]) -> dict[str, KnownClasses]:
    """The classes that the tasks' heads have."""
    return {name: KnownClasses(task.target, task.num_channels, task.per_pixel) for name, task in tasks.items()}


def check_classes(known: Mapping[str, KnownClasses], batch: Batch) -> None:
    """Refuse class numbers that a head does not have; on a GPU they would end in a device error.

    Meant for where the batch is made: on the CPU, beside the training. Tasks that the batch does not serve are skipped.

    Raises:
        UserError: a target of integers holds another number.
    """
    for name, (target, number, per_pixel) in known.items():
        classes = batch.get(target)
        if classes is None or torch.is_floating_point(classes):
            continue
        unknown = (classes < 0) | (classes >= number)
        if per_pixel:
            unknown &= classes != IGNORED_CLASS
        if unknown.any():
            sample, class_number = int(unknown.nonzero()[0, 0]), int(classes[unknown][0])
            names = batch["name"][name] if isinstance(batch["name"], Mapping) else batch["name"]
            all_known = f"0..{number - 1}" + (f" (and {IGNORED_CLASS})" if per_pixel else "")
            raise UserError(
                f"{names[sample]}: class {class_number} occurs, but {name} has the classes {all_known}; correct "
                "tasks_num_class or the labels."
            )
