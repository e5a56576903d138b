"""What the tasks of each data set learn from: an entry of the sample, its unit, and its colours."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dataloaders import DATASETS
from utils.config import TestingConfig
from utils.errors import UserError
from utils.pictures import (
    RGB,
    class_picture,
    direction_picture,
    distance_picture,
    inverse_distance_picture,
    raw_direction_picture,
    response_picture,
)

IGNORED_CLASS = 255
"""Class number, in maps, of pixels without a class."""


def plain_picture(values: np.ndarray) -> RGB:
    """Values [C, H, W] of a target that nothing is known of: directions where C is 3, else the first one, lit."""
    if len(values) == 3:
        return direction_picture(values)
    return distance_picture(values[:1], farthest=float(values[0].min()), nearest=float(values[0].max()) + 1e-6)


@dataclass(frozen=True)
class Target:
    """What a task learns from: class numbers, where they are integers, or else continuous values.

    Attributes:
        entry: its key in a sample; `{entry}_valid`, where there is one, says which pixels count.
        num_channels: of the prediction, which for classes is their number.
        unit: of continuous values, in words.
        picture: continuous values [C, H, W], 0 where not valid -> colours.
    """

    entry: str
    num_channels: int = 1
    unit: str | None = None
    picture: Callable[[np.ndarray], RGB] = plain_picture

    def drawn(self, values: np.ndarray, valid: np.ndarray) -> RGB:
        """A map as colours: class numbers [H, W], or values [C, H, W] and where they are valid."""
        if values.dtype.kind in "iu":
            return class_picture(values, IGNORED_CLASS)
        return self.picture(np.where(valid, values, values.dtype.type(0)))


CLASSES = Target("seg")
UNIT_NORMALS = Target("normal", unit="component, -1..1", picture=direction_picture)
RAW_NORMALS = Target("normal", unit="pixel value, 0..255", picture=raw_direction_picture)

KNOWN_TARGETS: dict[str, dict[str, Target]] = {
    "NYU_v2": {
        "seg": CLASSES,
        "sn": RAW_NORMALS,
        "depth": Target("depth", unit="m", picture=partial(distance_picture, farthest=10.0)),
    },
    "CityScapes": {
        "seg": CLASSES,
        "depth": Target("depth", unit="inverse depth", picture=partial(inverse_distance_picture, nearest=0.25)),
    },
    "Taskonomy": {
        "seg": CLASSES,
        "sn": UNIT_NORMALS,
        "depth": Target(
            "depth", unit="log(1 + d) / log(2^16)", picture=partial(distance_picture, nearest=0.4, farthest=0.9)
        ),
        "keypoint": Target("keypoint", unit="response, 0..0.005 as -1..1", picture=response_picture),
        "edge": Target("edge", unit="response, 0..0.08 as -1..1", picture=response_picture),
    },
}
"""Data set of frames -> task -> its target."""

DOMAIN_SETS = ("DomainNet", "FDU_MTL")
"""Those of which every task is a domain, whatever its name."""


def configured_targets(config: TestingConfig) -> dict[str, Target]:
    """Task -> target, with the configured numbers of channels.

    Raises: UserError for a data set that there is not, or a task that a data set has no target for.
    """
    dataset = config.dataload.dataset
    if dataset not in DATASETS:
        raise UserError(f"dataload.dataset is {dataset!r}, which is unknown: choose one of {', '.join(DATASETS)}")
    known = KNOWN_TARGETS.get(dataset) or {task: named_target(task, dataset) for task in config.tasks}
    if dataset == "NYU_v2" and config.dataload.normals == "decoded":
        known = known | {"sn": UNIT_NORMALS}
    for task in config.tasks:
        if task not in known:
            raise UserError(f"tasks: {task!r} is not a task of {dataset}, which has {', '.join(known)}: correct it")
    return {
        task: replace(known[task], num_channels=num_channels)
        for task, num_channels in zip(config.tasks, config.tasks_num_class, strict=True)
    }


def named_target(task: str, dataset: str) -> Target:
    """The target of a domain, or of a task of one's own data set: it bears the task's name, but for normals."""
    return Target("normal" if task == "sn" and dataset not in DOMAIN_SETS else task)
