"""DomainNet: the images stay where they are; made are train.txt, test.txt and `DomainNet.json`.

A download has one folder for each domain and beside them the lists {domain}_train.txt and {domain}_test.txt, with
lines "path class", paths relative to where the lists are.
"""

from collections.abc import Mapping
from pathlib import Path

from dataloaders.domainnet import SPLIT_FILE, LabelledImage, read_list
from dataloaders.prepare.output import (
    Prepared,
    claim_folder,
    place_of,
    refuse_missing_sources,
    refuse_no_raw_folder,
    way_to,
    write_if_new,
    write_index,
)
from dataloaders.splits import TRAIN2_SHARE, divide
from utils.errors import UserError

Lists = dict[str, list[LabelledImage]]
"""Domain -> the images of one of its lists."""


def prepare_domainnet(raw: Path, output: Path) -> Prepared:
    """Write train.txt and test.txt, the lists of all domains one after the other, and `DomainNet.json`.

    Args:
        raw: folder that holds the domains and their lists; only read, unless it is the output folder too.
        output: the folder of what is made; `raw` itself, or another one, from which the paths then lead to `raw`.

    Raises: UserError for lists that are missing or not of their form, images that do not exist, and an output folder
    that holds files of these names already.
    """
    domains = find_domains(raw)
    train: Lists = {domain: read_list(raw / f"{domain}_train.txt") for domain in domains}
    test: Lists = {domain: read_list(raw / f"{domain}_test.txt") for domain in domains}
    images = [image.file for lists in (train, test) for own in lists.values() for image in own]
    refuse_missing_sources([raw / image for image in images], f"unpack all domains, whole, into {raw}")
    claim_folder(output, [SPLIT_FILE, "train.txt", "test.txt"], {"raw": place_of(raw, output)})

    for name, lists in {"train.txt": train, "test.txt": test}.items():
        write_if_new(output / name, joined_lines(lists, raw, output).encode())
    index = number_lines(train, test)
    write_index(output / SPLIT_FILE, index)
    return Prepared(output / SPLIT_FILE, {split: sum(map(len, own.values())) for split, own in index.items()})


def find_domains(raw: Path) -> list[str]:
    """The domains that have a list for training; UserError if there is none."""
    refuse_no_raw_folder(raw, "DomainNet's domains and their lists, {domain}_train.txt and {domain}_test.txt")
    domains = sorted(path.name.removesuffix("_train.txt") for path in raw.glob("[!.]*_train.txt"))
    if not domains:
        raise UserError(f"{raw} holds no {{domain}}_train.txt: put the lists of the download beside its domains")
    return domains


def joined_lines(lists: Lists, raw: Path, output: Path) -> str:
    """The lines "path class" of all domains, paths relative to the output folder."""
    way = way_to(raw, output)
    return "".join(f"{way}{file} {label}\n" for own in lists.values() for file, label in own)


def number_lines(train: Lists, test: Lists) -> dict[str, dict[str, list[int]]]:
    """Split -> domain -> numbers of its lines, from 0: those of train.txt for train, train1 and train2, of test.txt
    for val and test, which are the same in the release."""
    numbers = {"train": _consecutive(train), "test": _consecutive(test)}
    parts = {domain: divide(own, TRAIN2_SHARE) for domain, own in numbers["train"].items()}
    return {
        "train": numbers["train"],
        "train1": {domain: train1 for domain, (train1, _) in parts.items()},
        "train2": {domain: train2 for domain, (_, train2) in parts.items()},
        "val": numbers["test"],
        "test": numbers["test"],
    }


def _consecutive(lists: Mapping[str, list[LabelledImage]]) -> dict[str, list[int]]:
    first, numbers = 0, {}
    for domain, own in lists.items():
        numbers[domain] = list(range(first, first + len(own)))
        first += len(own)
    return numbers
