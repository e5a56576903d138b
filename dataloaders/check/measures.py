"""One sample measured: its summary, and what is wrong with its targets."""

from collections.abc import Mapping

import numpy as np

from dataloaders.check.readers import Opened
from dataloaders.check.summary import Summary, Values
from dataloaders.check.targets import IGNORED_CLASS, Target


def summarise(opened: Opened, targets: Mapping[str, Target]) -> Summary:
    """The summary of one sample; what is wrong with its targets is added to its faults."""
    summary = Summary(num_samples=1, num_unknown=opened.num_unknown)
    if opened.size is not None:
        summary.sizes[opened.size] = 1
    if "img" in opened.arrays:
        summary.input_sizes[opened.arrays["img"].shape[-2:]] = opened.name
    if opened.num_words is not None:
        summary.lengths[opened.num_words] = 1
    summary.remarks = dict.fromkeys(opened.remarks, (1, opened.name))
    # Of a file that could not be read the entry is absent, and its fault is known.
    read_in_full = not opened.faults
    for task, target in targets.items():
        if target.entry in opened.arrays:
            values, faults = measure(opened, task, target)
            summary.values[task] = values
            opened.faults += faults
        elif read_in_full:
            opened.faults.append(
                f"{opened.name} has no entry {target.entry!r}, which {task} learns from, but "
                f"{', '.join(opened.arrays)}: add it to the data set's samples"
            )
    return summary


def measure(opened: Opened, task: str, target: Target) -> tuple[Values, list[str]]:
    """What a target of a sample holds, and what is wrong with it."""
    array, source = opened.arrays[target.entry], opened.source_of(target.entry)
    if array.dtype.kind in "iu":
        values = count_classes(array, target.num_channels)
        faults = unknown_classes(array, task, target.num_channels, source)
    else:
        valid = opened.arrays.get(f"{target.entry}_valid", np.ones((1, *array.shape[-2:]), dtype=bool))
        faults = wrong_shapes(opened.arrays, array, valid, target, source)
        values = Values(num_samples=1) if faults else measure_values(array, valid)
        if values.num_valid and not np.isfinite([values.lowest, values.highest]).all():
            faults.append(f"{source} holds NaN or infinity as a valid value of {task}: correct it")
    if not values.num_valid and not faults:
        faults.append(f"{source} has no valid pixel for {task}: correct it, or take its sample out of the splits")
    return values, faults


def count_classes(array: np.ndarray, num_classes: int) -> Values:
    """How often each class occurs in a map [H, W], or in one class number []."""
    known = array[(array >= 0) & (array < num_classes)]
    return Values(
        num_samples=1,
        num_values=array.size,
        num_valid=known.size,
        counts=np.bincount(known.ravel(), minlength=num_classes),
        per_pixel=array.ndim > 1,
    )


def unknown_classes(array: np.ndarray, task: str, num_classes: int, source: str) -> list[str]:
    """A sentence if there is a number that is no class; in maps, 255 means that there is none."""
    ignored = (array == IGNORED_CLASS) & (array.ndim > 1)
    unknown = array[((array < 0) | (array >= num_classes)) & ~ignored]
    if not unknown.size:
        return []
    return [
        f"{source} holds class {unknown.flat[0]}, but tasks_num_class gives {task} the classes "
        f"0..{num_classes - 1}: correct the one or the other"
    ]


def measure_values(array: np.ndarray, valid: np.ndarray) -> Values:
    """The range of the continuous values [C, H, W] where `valid` [1, H, W]."""
    chosen = array[:, valid[0]]
    return Values(
        num_samples=1,
        num_values=valid.size,
        num_valid=int(valid.sum()),
        # Of NaN and infinity, minimum and maximum are neither finite.
        lowest=float(chosen.min(initial=np.inf)),
        highest=float(chosen.max(initial=-np.inf)),
        per_pixel=True,
    )


def wrong_shapes(
    arrays: Mapping[str, np.ndarray], array: np.ndarray, valid: np.ndarray, target: Target, source: str
) -> list[str]:
    """A sentence if continuous values, or the mask of the valid ones, do not have the shape that a loss takes."""
    size = arrays["img"].shape[-2:] if "img" in arrays else array.shape[-2:]
    expected = {target.entry: (target.num_channels, *size), f"{target.entry}_valid": (1, *size)}
    found = {target.entry: array.shape, f"{target.entry}_valid": valid.shape}
    return [
        f"{source} gives {entry!r} the shape {list(found[entry])} where {list(shape)} is expected: correct the data set"
        for entry, shape in expected.items()
        if found[entry] != shape
    ]
