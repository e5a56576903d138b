"""Which data set has which tasks, and the single-task values of the paper that they are compared with.

`build_tasks` gives the records of a run. A new data set is a maker here and a line in `TASK_SETS`. All
references are the paper's single-task rows as the release has them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from envs.metrics import (
    NormalsRelease,
    NormalsStandard,
    SegmentationRelease,
    SegmentationStandard,
    all_pixels,
    every_pixel,
)
from envs.tasks import (
    CLASS_WEIGHTED_SEGMENTATION,
    DEPTH,
    EDGES,
    KEYPOINTS,
    SEGMENTATION,
    SURFACE_NORMALS,
    Task,
    classification,
)
from utils.errors import UserError
from utils.pictures import distance_picture, inverse_distance_picture, raw_direction_picture

References = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TaskOptions:
    """What a configuration says of its tasks; each data set takes what concerns it.

    Attributes:
        num_classes: name of a task -> channels of its prediction, in the order of the configuration.
        normals: NYU v2: "release" (raw pixels: no standard metrics for normals) or "decoded".
        small_res: CityScapes: images of 128x256.
    """

    num_classes: Mapping[str, int]
    normals: str
    small_res: bool


def choose_tasks(known: Mapping[str, Task], options: TaskOptions) -> dict[str, Task]:
    """The configured tasks out of the known ones, with their numbers of channels.

    Raises:
        UserError: an unknown name, or a number of channels that does not fit its task.
    """
    tasks = {}
    for name, num_channels in options.num_classes.items():
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


def with_references(tasks: Mapping[str, Task], references: References) -> dict[str, Task]:
    """The tasks, compared with these values."""
    return {name: replace(task, references=references[name]) for name, task in tasks.items()}


# ------------------------------------------------------------------------------------------------------ NYU v2

NYU_V2_TASKS = {task.name: task for task in (SEGMENTATION, SURFACE_NORMALS, DEPTH)}

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


def nyu_v2_tasks(options: TaskOptions) -> dict[str, Task]:
    """The records of a run on NYU v2.

    Their references are those of the paper's two-task setting for exactly seg and sn, and those of its
    three-task setting for any other set.

    Raises:
        UserError: a name that is no task of NYU v2, or a number of channels that does not fit its task.
    """
    two_tasks = set(options.num_classes) == set(NYU_V2_TWO_TASK_REFERENCES)
    references = NYU_V2_TWO_TASK_REFERENCES if two_tasks else NYU_V2_THREE_TASK_REFERENCES
    tasks = with_references(choose_tasks(NYU_V2_TASKS, options), references)
    if "sn" in tasks and options.normals == "release":
        tasks["sn"] = replace(
            tasks["sn"],
            picture=raw_direction_picture,
            missing_protocols={"standard": RAW_NORMALS_HAVE_NO_ANGLES},
        )
    return tasks


# -------------------------------------------------------------------------------------------------- CityScapes

SHARES_IN_PERCENT = {"sigma_1.25": "%", "sigma_1.25^2": "%", "sigma_1.25^3": "%"}

CITYSCAPES_SEGMENTATION = replace(
    SEGMENTATION,
    # The release's accuracy is a share of all pixels, those without a label included; the standard's of the labelled.
    metrics={
        "release": partial(SegmentationRelease, accuracy_over=all_pixels),
        "standard": SegmentationStandard,
    },
)
INVERSE_DEPTH = replace(
    DEPTH,
    title="inverse depth",
    # Brightest where nearer than 4 m.
    picture=partial(inverse_distance_picture, nearest=0.25),
    units=SHARES_IN_PERCENT,
)
CITYSCAPES_TASKS = {task.name: task for task in (CITYSCAPES_SEGMENTATION, INVERSE_DEPTH)}

CITYSCAPES_DEPTH_REFERENCES = {
    "abs_err": 0.017,
    "rel_err": 0.33,
    "sigma_1.25": 70.3,
    "sigma_1.25^2": 86.3,
    "sigma_1.25^3": 93.3,
}
CITYSCAPES_19_CLASSES = {"mIoU": 0.402, "Pixel Acc": 0.747}
CITYSCAPES_7_CLASSES = {"mIoU": 0.644, "Pixel Acc": 0.778}
CITYSCAPES_7_CLASSES_SMALL = {"mIoU": 0.519, "Pixel Acc": 0.722}


def cityscapes_tasks(options: TaskOptions) -> dict[str, Task]:
    """The records of a run on CityScapes, with 2, 7 or 19 classes.

    The paper has no values for 2 classes, which are compared with those for 7, nor for 19 classes at
    `small_res`, which are compared with those at full resolution.

    Raises:
        UserError: a name that is no task of CityScapes, or a number of classes without labels.
    """
    tasks = choose_tasks(CITYSCAPES_TASKS, options)
    seven_classes = CITYSCAPES_7_CLASSES_SMALL if options.small_res else CITYSCAPES_7_CLASSES
    of_classes = {2: seven_classes, 7: seven_classes, 19: CITYSCAPES_19_CLASSES}
    references: References = {"depth": CITYSCAPES_DEPTH_REFERENCES}
    if "seg" in tasks:
        num_classes = tasks["seg"].num_channels
        if num_classes not in of_classes:
            raise UserError(
                f"tasks_num_class: CityScapes has no labels of {num_classes} classes for seg; write 2, 7 or 19."
            )
        references["seg"] = of_classes[num_classes]
    return with_references(tasks, references)


# ---------------------------------------------------------------------------------------------- Tiny-Taskonomy

TASKONOMY_SEGMENTATION = replace(CLASS_WEIGHTED_SEGMENTATION, num_channels=17)
TASKONOMY_NORMALS = replace(
    SURFACE_NORMALS,
    # The release counts every pixel, those where nothing was measured included; the standard only those with depth.
    metrics={"release": partial(NormalsRelease, counted=every_pixel), "standard": NormalsStandard},
    headline="cosine_similarity",
)
LOG_DEPTH = replace(
    DEPTH,
    title="logarithmic depth",
    # About 0.2 m to 40 m, in units of 1/512 m.
    picture=partial(distance_picture, nearest=0.4, farthest=0.9),
    units=SHARES_IN_PERCENT,
)
TASKONOMY_TASKS = {task.name: task for task in (TASKONOMY_SEGMENTATION, TASKONOMY_NORMALS, LOG_DEPTH, KEYPOINTS, EDGES)}

TASKONOMY_REFERENCES: References = {
    "seg": {"err": 0.517},
    "sn": {"cosine_similarity": 0.716},
    "depth": {"abs_err": 0.021},
    "keypoint": {"err": 0.197},
    "edge": {"err": 0.212},
}


def taskonomy_tasks(options: TaskOptions) -> dict[str, Task]:
    """The records of a run on Tiny-Taskonomy.

    Raises:
        UserError: a name that is no task of Taskonomy, or a number of channels that does not fit its task.
    """
    return with_references(choose_tasks(TASKONOMY_TASKS, options), TASKONOMY_REFERENCES)


# ------------------------------------------------------------------------------------------ DomainNet, FDU-MTL

OTHER_MEANINGS = ("img", "text", "name", "total", "sparsity", "sharing")
"""Entries of a batch that are no target, and losses that are no task's: no domain can bear their names."""


def domain_tasks(options: TaskOptions) -> dict[str, Task]:
    """One record of classification per domain, of images or of texts; any name is a domain.

    They are compared with an accuracy of 1 (release).

    Raises:
        UserError: fewer than two classes, or a name that a batch uses for something else.
    """
    # Not of the classes alone: an attribute such as `training` is made with the instance.
    taken = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
    for name, num_classes in options.num_classes.items():
        if name in OTHER_MEANINGS or name in taken or "." in name:
            raise UserError(f"tasks: a domain cannot be called {name!r}, which means something else here; rename it.")
        if num_classes < 2:
            raise UserError(
                f"tasks_num_class: {name} is classified into {num_classes} class(es), but there are at least 2; "
                "write how many."
            )
    return {name: classification(name, num_classes) for name, num_classes in options.num_classes.items()}


# ----------------------------------------------------------------------------------------------- all data sets

TASK_SETS: dict[str, Callable[[TaskOptions], dict[str, Task]]] = {
    "NYU_v2": nyu_v2_tasks,
    "CityScapes": cityscapes_tasks,
    "Taskonomy": taskonomy_tasks,
    "DomainNet": domain_tasks,
    "FDU_MTL": domain_tasks,
}
"""Data set, as in the configuration -> maker of its records."""


def build_tasks(
    dataset: str,
    names: Sequence[str],
    num_classes: Sequence[int],
    normals: str = "release",
    small_res: bool = False,
) -> dict[str, Task]:
    """The records of a run, in the order of the names.

    Args:
        dataset: as in the configuration.
        names: of the tasks.
        num_classes: channels of each task's prediction, as many as names.
        normals, small_res: see `TaskOptions`.

    Raises:
        UserError: a data set or task that is not known, or a number of channels that does not fit its task.
    """
    if dataset not in TASK_SETS:
        raise UserError(f"dataload.dataset: {dataset!r} has no tasks here; choose one of {', '.join(TASK_SETS)}.")
    options = TaskOptions(dict(zip(names, num_classes, strict=True)), normals, small_res)
    return TASK_SETS[dataset](options)
