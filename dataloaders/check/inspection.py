"""Every sample of a data set opened once, by several processes, in summaries split by split."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
from torch.utils.data import DataLoader, Dataset

from dataloaders.check.findings import Findings
from dataloaders.check.measures import summarise
from dataloaders.check.memberships import SPLITS
from dataloaders.check.parts import Parts
from dataloaders.check.summary import Summary
from dataloaders.splits import Splits
from utils.progress import progress_bar

CHUNK = 32
"""Samples that a process takes at a time."""

Summaries = dict[str, dict[str, Summary]]
"""Part -> split -> what its samples are like."""


class Chunk(NamedTuple):
    """Samples of one part that are members of the same splits."""

    part: str
    splits: tuple[str, ...]
    members: list[Any]


class Inspected(NamedTuple):
    """What has come of a chunk."""

    part: str
    splits: tuple[str, ...]
    summary: Summary
    faults: list[str]


class ChunkInspection(Dataset):
    """Chunks, which a `DataLoader` has inspected by its workers."""

    def __init__(self, parts: Parts) -> None:
        self.readers = {name: (part.reader, part.targets) for name, part in parts.items()}
        self.chunks = [chunk for name, part in parts.items() for chunk in chunks_of(name, part.splits)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Inspected:
        part, splits, members = self.chunks[index]
        reader, targets = self.readers[part]
        summary, faults = Summary(), []
        for member in members:
            opened = reader.open(member)
            summary.add(summarise(opened, targets))
            faults += opened.faults
        return Inspected(part, splits, summary, faults)


def chunks_of(part: str, splits: Splits) -> Iterator[Chunk]:
    """The members of all splits, each once, in chunks whose members stand in the same splits."""
    splits_of: dict[Any, list[str]] = defaultdict(list)
    for split in SPLITS:
        for member in dict.fromkeys(splits.members.get(split, ())):
            splits_of[member].append(split)
    groups: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for member, names in splits_of.items():
        groups[tuple(names)].append(member)
    for names, members in groups.items():
        for first in range(0, len(members), CHUNK):
            yield Chunk(part, names, members[first : first + CHUNK])


def inspect(parts: Parts, num_workers: int, findings: Findings) -> Summaries:
    """Open every sample, tell its faults, and sum it up in each of its splits.

    Args:
        num_workers: processes; 0 opens all in this one.
    """
    summaries: Summaries = {
        name: {split: Summary() for split in SPLITS if split in part.splits.members} for name, part in parts.items()
    }
    inspection = ChunkInspection(parts)
    loader = DataLoader(
        inspection,
        batch_size=None,
        # Without it, arrays would become tensors.
        collate_fn=_unchanged,
        num_workers=min(num_workers, len(inspection)),
        worker_init_fn=_start_worker,
    )
    for part, splits, summary, faults in progress_bar(loader, "checking", total=len(inspection)):
        findings.add_faults(faults)
        for split in splits:
            summaries[part][split].add(summary)
    return summaries


def _unchanged(inspected: Inspected) -> Inspected:
    return inspected


def _start_worker(worker: int) -> None:
    # The processes share the cores already.
    cv2.setNumThreads(0)
