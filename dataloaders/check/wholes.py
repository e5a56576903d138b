"""What only all samples together show: splits without a valid value, mixed sizes, missing classes."""

from collections.abc import Iterator, Mapping

import numpy as np

from dataloaders.check.findings import Findings, first_ones
from dataloaders.check.inspection import Summaries
from dataloaders.check.memberships import told_apart
from dataloaders.check.parts import Part, Parts
from dataloaders.check.summary import Summary


def check_wholes(parts: Parts, summaries: Summaries, batch_size: int | None, findings: Findings) -> None:
    """Look for what is wrong with whole splits, and for what is worth a note.

    Args:
        batch_size: of evaluation while training; None where nothing is trained.
    """
    for name, part in parts.items():
        for split, summary in summaries[name].items():
            findings.add_faults(without_values(name, split, summary))
        for split in told_apart(part.splits):
            findings.add_notes(remarked(name, split, summaries[name][split]))
        if batch_size and batch_size > 1 and "val" in summaries[name]:
            findings.add_faults(mixed_sizes(name, summaries[name]["val"], batch_size))
    for split in ("train", "test"):
        findings.add_notes(
            missing_classes(parts, split, {name: own[split] for name, own in summaries.items() if split in own})
        )


def without_values(name: str, split: str, summary: Summary) -> Iterator[str]:
    """A sentence for each task that no sample of a split has a valid value of."""
    for task, values in summary.values.items():
        if not values.num_valid:
            yield f"split {split!r} of {name} has no valid value of {task}: correct its files, or leave the task out"


def remarked(name: str, split: str, summary: Summary) -> Iterator[str]:
    """A sentence for each remark on samples of a split."""
    for remark, (count, first) in summary.remarks.items():
        yield f"{name}, {count} of the {summary.num_samples} samples of {split}: {remark} (the first is {first})"


def mixed_sizes(name: str, summary: Summary, batch_size: int) -> Iterator[str]:
    """A sentence if images that are evaluated in batches differ in size."""
    if len(summary.input_sizes) > 1:
        images = [f"{image} is {height}x{width}" for (height, width), image in summary.input_sizes.items()]
        yield (
            f"images of split 'val' of {name} differ in size ({first_ones(images)}) and cannot share the batches of "
            f"{batch_size} of an evaluation: bring all to one size, or use train.batch_size=1"
        )


def missing_classes(parts: Mapping[str, Part], split: str, summaries: Mapping[str, Summary]) -> Iterator[str]:
    """A sentence for each domain that lacks classes which others have samples of."""
    occurring = {
        name: set(np.flatnonzero(summary.values[name].counts).tolist())
        for name, summary in summaries.items()
        if name in summary.values and summary.values[name].counts is not None
    }
    everywhere = set().union(*occurring.values())
    for name, classes in occurring.items():
        missing = [str(parts[name].class_names.get(label, label)) for label in sorted(everywhere - classes)]
        if missing:
            yield (
                f"{name} has no sample of {len(missing)} classes in {split} that other domains have there "
                f"({first_ones(missing)})"
            )
