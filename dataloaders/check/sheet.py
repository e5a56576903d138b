"""A sheet of pictures: a few samples of every split, image and targets, as the loaders read them."""

from pathlib import Path
from typing import Any

import numpy as np

from dataloaders import domainnet, transforms
from dataloaders.check.measures import summarise
from dataloaders.check.memberships import told_apart
from dataloaders.check.parts import Part, Parts
from dataloaders.check.readers import Opened
from dataloaders.check.targets import Target
from utils.pictures import RGB, save_sheet

NUM_EXAMPLES = 3
"""Samples of each split."""

NUM_TRIES = 5
"""Samples that are opened until one of them is sound."""

SheetRow = dict[str, RGB | None]
"""Caption -> picture."""


def save_examples(path: Path, parts: Parts, title: str) -> bool:
    """Save the sheet as a PNG; False where no sound sample has an image."""
    rows = [row for name, part in parts.items() for row in example_rows(name, part)]
    if rows:
        save_sheet(path, rows, title)
    return bool(rows)


def example_rows(name: str, part: Part) -> list[SheetRow]:
    """A row for each frame; images without any map share one."""
    examples = [(split, opened) for split in told_apart(part.splits) for opened in sound_examples(part, split)]
    rows: list[SheetRow] = []
    images: SheetRow = {}
    for split, opened in examples:
        maps = {task: target for task, target in part.targets.items() if opened.arrays[target.entry].ndim > 1}
        if maps:
            image = {caption(split, opened, part): transforms.image_from_input(opened.arrays["img"])}
            rows.append(image | {task: shown_map(opened, target) for task, target in maps.items()})
        else:
            images[caption(f"{name}, {split}", opened, part)] = domainnet.image_from_input(opened.arrays["img"])
    return [*rows, images] if images else rows


def sound_examples(part: Part, split: str) -> list[Opened]:
    """A few samples from all over a split that have an image, and no fault."""
    members = part.splits.members[split]
    step = max(1, len(members) // NUM_EXAMPLES)
    examples = []
    for first in range(0, len(members), step)[:NUM_EXAMPLES]:
        tried = (open_wholly(member, part) for member in members[first : first + min(step, NUM_TRIES)])
        sound = next((opened for opened in tried if "img" in opened.arrays and not opened.faults), None)
        examples += [sound] if sound else []
    return examples


def open_wholly(member: Any, part: Part) -> Opened:
    """A sample, with the faults of its targets among its own."""
    opened = part.reader.open(member)
    summarise(opened, part.targets)
    return opened


def caption(place: str, opened: Opened, part: Part) -> str:
    """Where a sample stands, its name, and the classes that it has as a whole."""
    labels = {task: opened.arrays[target.entry] for task, target in part.targets.items()}
    classes = [str(part.class_names.get(int(label), label)) for label in labels.values() if label.ndim == 0]
    return "\n".join([place, Path(opened.name).stem, *classes])


def shown_map(opened: Opened, target: Target) -> RGB:
    """A target of a frame as colours."""
    values = opened.arrays[target.entry]
    return target.drawn(values, opened.arrays.get(f"{target.entry}_valid", np.ones(values.shape[-2:], dtype=bool)))
