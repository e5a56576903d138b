"""How the samples of each data set are listed for a check; one's own needs nothing here."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dataloaders import open_dataset
from dataloaders.check.domain_parts import list_domainnet, list_fdu_mtl
from dataloaders.check.findings import Findings
from dataloaders.check.frame_parts import list_cityscapes, list_nyu_v2, list_taskonomy
from dataloaders.check.parts import Part, Parts, Targets
from dataloaders.check.readers import SampleReader
from dataloaders.keys import Dataset
from dataloaders.options import DataOptions
from dataloaders.splits import Splits

FORMATS: dict[str, Callable[[DataOptions, Targets, Findings], Parts]] = {
    "NYU_v2": list_nyu_v2,
    "CityScapes": list_cityscapes,
    "Taskonomy": list_taskonomy,
    "DomainNet": list_domainnet,
    "FDU_MTL": list_fdu_mtl,
}
"""Data set -> what lists its samples, file by file. Others are listed by the data sets that are opened of them."""


def list_parts(
    dataset: str, options: DataOptions, targets: Targets, splits: Sequence[str], findings: Findings
) -> Parts:
    """What there is to be checked of a data set; a list that is at fault is told, and its samples absent.

    Args:
        splits: those that must open, where the data set alone knows what they are.
    """
    if dataset in FORMATS:
        return findings.attempt(FORMATS[dataset], options, targets, findings) or {}
    return list_samples(dataset, options, targets, splits, findings)


def list_samples(
    dataset: str, options: DataOptions, targets: Targets, splits: Sequence[str], findings: Findings
) -> Parts:
    """The samples of every split that opens: those of all tasks together, or task by task."""
    options = replace(options, cache=None)  # It is the files that are to be read, and all that are bad, not the first.
    of_parts: dict[str, dict[str, Dataset]] = {}
    for split in splits:
        opened = findings.attempt(open_dataset, dataset, options, split, False)
        if opened is not None:
            for name, part in (opened if isinstance(opened, dict) else {dataset: opened}).items():
                of_parts.setdefault(name, {})[split] = part
    return {name: sample_part(name, datasets, options, targets) for name, datasets in of_parts.items()}


def sample_part(name: str, datasets: dict[str, Dataset], options: DataOptions, targets: Targets) -> Part:
    """The samples of one data set per split, each of them (split, index); what they have in common is not known."""
    members = {split: [(split, index) for index in range(len(dataset))] for split, dataset in datasets.items()}
    own = {name: targets[name]} if name in targets else targets
    return Part(Splits(options.dataroot, members), SampleReader(datasets), own)
