"""The tasks: one record each, with its target, its loss, its metrics and how good they are.

`build_tasks` gives the records of a data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor

from envs.constants import (
    class_frequencies,
    labelled_classes,
    mean_direction,
    median,
    valid_metres,
    valid_normals,
)
from envs.losses import IGNORED_CLASS, Batch, depth_loss, normal_loss, segmentation_loss
from envs.metrics import (
    DepthRelease,
    DepthStandard,
    Metric,
    NormalsRelease,
    NormalsStandard,
    SegmentationRelease,
    SegmentationStandard,
)
from utils.errors import UserError
from utils.pictures import (
    RGB,
    class_picture,
    direction_picture,
    distance_picture,
    raw_direction_picture,
)

PROTOCOLS = ("release", "standard")
"""Ways to measure, see `envs.metrics`. The release's is comparable with the paper, and what `score` reads."""

References = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Task:
    """All that training and evaluation need to know of a task.

    To add one, write its record here and list it in the tasks of its data set.
    """

    name: str
    """As in the configuration's `tasks`."""
    title: str
    """As in tables and pictures."""
    target: str
    """The entry of the batch that it learns from."""
    num_channels: int | None
    """Channels of the prediction; None where the configuration decides: one per class."""
    loss: Callable[[Tensor, Batch], Tensor]
    """(prediction [N, C, h, w], batch) -> scalar."""
    metrics: Mapping[str, Callable[[], Metric]]
    """Protocol -> maker of an empty metric."""
    headline: str
    """The one metric to show where there is room for one."""
    lower_is_better: frozenset[str]
    """Metrics to minimise; all others are to be maximised."""
    valid_values: Callable[[Batch], Tensor]
    """The target of all pixels that have one: class numbers [M] or vectors [M, C]."""
    constant: Callable[[Tensor, int], Tensor]
    """(valid values, channels) -> the best prediction [C] that does not look at the image."""
    picture: Callable[[np.ndarray], RGB]
    """Values in the form of the target, without the batch axis -> colours."""
    units: Mapping[str, str]
    """Metric -> unit; metrics without one are plain numbers (mIoU and Pixel Acc between 0 and 1)."""
    to_target: Callable[[Tensor], Tensor] = lambda prediction: prediction
    """Prediction [N, C, h, w] -> values in the form of the target."""
    missing_protocols: Mapping[str, str] = field(default_factory=dict)
    """Protocol -> why this run has no metrics of the task under it, in words for the tables."""
    references: Mapping[str, float] = field(default_factory=dict)
    """Metric, of those that the paper reports -> the single-task value that `score` compares with."""

    def new_metric(self, protocol: str) -> Metric | None:
        """An empty metric, or None where `missing_protocols` says why there is none."""
        return None if protocol in self.missing_protocols else self.metrics[protocol]()


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
    to_target=lambda prediction: prediction.argmax(dim=1),
    units={"err": "nats"},
)

SURFACE_NORMALS = Task(
    name="sn",
    title="surface normals",
    target="normal",
    num_channels=3,
    loss=normal_loss,
    metrics={"release": NormalsRelease, "standard": NormalsStandard},
    headline="Angle Mean",
    lower_is_better=frozenset({"Angle Mean", "Angle Median", "Angle RMSE"}),
    valid_values=valid_normals,
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
    loss=depth_loss,
    metrics={"release": DepthRelease, "standard": DepthStandard},
    headline="abs_err",
    lower_is_better=frozenset({"abs_err", "rel_err", "sq_rel_err", "rms"}),
    valid_values=valid_metres,
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

# ----------------------------------------------------------------------------------------- tasks per data set

NYU_V2_TASKS = {task.name: task for task in (SEGMENTATION, SURFACE_NORMALS, DEPTH)}

# The paper's single-task rows (release).
NYU_V2_TWO_TASK_REFERENCES: References = {
    "seg": {"mIoU": 0.413, "Pixel Acc": 0.691},
    "sn": {
        "Angle Mean": 15.0,
        "Angle Median": 11.5,
        "Angle 11.25": 49.2,
        "Angle 22.5": 76.7,
        "Angle 30": 86.8,
    },
}
NYU_V2_THREE_TASK_REFERENCES: References = {
    "seg": {"mIoU": 0.275, "Pixel Acc": 0.589},
    "sn": {
        "Angle Mean": 17.5,
        "Angle Median": 14.2,
        "Angle 11.25": 34.9,
        "Angle 22.5": 73.3,
        "Angle 30": 85.7,
    },
    "depth": {
        "abs_err": 0.62,
        "rel_err": 0.25,
        "sigma_1.25": 57.9,
        "sigma_1.25^2": 85.8,
        "sigma_1.25^3": 95.7,
    },
}

RAW_NORMALS_HAVE_NO_ANGLES = (
    "trained on raw 0..255 normals, whose direction does not determine the normal; "
    "`dataload.normals: decoded` gives true angles"
)


def nyu_v2_tasks(names: Sequence[str], num_classes: Sequence[int], normals: str) -> dict[str, Task]:
    """The records of a run on NYU v2.

    Args:
        names: of the tasks, in order.
        num_classes: channels of each task's prediction.
        normals: "release" (raw pixels: no standard metrics for normals) or "decoded".

    Returns:
        {name: record} in the order of the names, with the references of the paper's two-task setting for
        exactly seg and sn, and those of its three-task setting for any other set.

    Raises:
        UserError: a name that is no task of NYU v2, or a number of channels that does not fit its task.
    """
    two_tasks = set(names) == set(NYU_V2_TWO_TASK_REFERENCES)
    references = NYU_V2_TWO_TASK_REFERENCES if two_tasks else NYU_V2_THREE_TASK_REFERENCES
    tasks = choose_tasks(NYU_V2_TASKS, names, num_classes)
    tasks = {name: replace(task, references=references[name]) for name, task in tasks.items()}
    if "sn" in tasks and normals == "release":
        tasks["sn"] = replace(
            tasks["sn"],
            picture=raw_direction_picture,
            missing_protocols={"standard": RAW_NORMALS_HAVE_NO_ANGLES},
        )
    return tasks


def choose_tasks(known: Mapping[str, Task], names: Sequence[str], num_classes: Sequence[int]) -> dict[str, Task]:
    """The named records out of the known ones, with the configured numbers of channels.

    Raises:
        UserError: an unknown name, or a number of channels that does not fit its task.
    """
    tasks = {}
    for name, num_channels in zip(names, num_classes, strict=True):
        if name not in known:
            raise UserError(f"tasks: {name!r} is not a task of this data set; it has {', '.join(known)}.")
        task = known[name]
        if task.num_channels not in (None, num_channels):
            raise UserError(
                f"tasks_num_class: {name} ({task.title}) predicts {task.num_channels} channel(s), "
                f"but {num_channels} are given; write {task.num_channels}."
            )
        tasks[name] = replace(task, num_channels=num_channels)
    return tasks


TASKS: dict[str, Callable[[Sequence[str], Sequence[int], str], dict[str, Task]]] = {"NYU_v2": nyu_v2_tasks}
"""Data set -> maker of its records."""


def build_tasks(
    dataset: str, names: Sequence[str], num_classes: Sequence[int], normals: str = "release"
) -> dict[str, Task]:
    """The records of a run, in the order of the names; arguments as in `nyu_v2_tasks`.

    Raises:
        UserError: a data set or task that is not known, or a number of channels that does not fit its task.
    """
    if dataset not in TASKS:
        raise UserError(f"dataload.dataset: {dataset!r} has no tasks here; choose one of {', '.join(TASKS)}.")
    return TASKS[dataset](names, num_classes, normals)


def check_classes(tasks: Mapping[str, Task], batch: Batch) -> None:
    """Refuse class numbers that a segmentation head does not have; on a GPU they would end in a device error.

    Cheap while the batch is still on the CPU.

    Raises:
        UserError: "seg" holds a number that is neither below the task's number of channels nor 255.
    """
    for task in tasks.values():
        if task.target != "seg":
            continue
        seg, last_class = batch["seg"], task.num_channels - 1
        unknown = (seg != IGNORED_CLASS) & ((seg < 0) | (seg > last_class))
        if unknown.any():
            image, pixel_class = int(unknown.nonzero()[0, 0]), int(seg[unknown][0])
            raise UserError(
                f"{batch['name'][image]}: a pixel holds class {pixel_class}, but {task.name} has the classes "
                f"0..{last_class} (and {IGNORED_CLASS}); correct tasks_num_class or the labels."
            )
