"""The images of DomainNet's domains and the reviews of FDU-MTL's, each domain listed by itself.

So what is wrong with the lists of one domain does not hide the others.
"""

import os
from functools import partial
from itertools import chain
from pathlib import Path

from dataloaders import domainnet, fdu_mtl
from dataloaders.check.findings import Findings
from dataloaders.check.parts import Part, Parts, Targets
from dataloaders.check.readers import ImageReader, TextReader
from dataloaders.domainnet import LabelledImage
from dataloaders.fdu_mtl import Review
from dataloaders.frames import refuse_no_folder
from dataloaders.options import DataOptions
from dataloaders.splits import Splits

# DomainNet


def list_domainnet(options: DataOptions, targets: Targets, findings: Findings) -> Parts:
    """The images of every domain that can be listed; UserError where there are no lists at all."""
    size = options.required_crop_size
    parts = {}
    for domain in targets:
        splits = findings.attempt(domainnet.resolve_splits, options.dataroot, [domain], options.validation)
        if splits:
            images = list(chain.from_iterable(splits[domain].members.values()))
            parts[domain] = Part(
                splits[domain],
                ImageReader(options.dataroot, domain, size),
                {domain: targets[domain]},
                identity=partial(image_file, options.dataroot),
                class_names=domainnet.folder_names(images),
            )
    return parts


def image_file(root: Path, image: LabelledImage) -> str:
    """The file of an image."""
    return os.path.abspath(os.path.join(root, image.file))


# FDU-MTL


def list_fdu_mtl(options: DataOptions, targets: Targets, findings: Findings) -> Parts:
    """The reviews of every domain that can be listed, with the vocabulary of their train splits; UserError as above."""
    refuse_no_folder(options.dataroot, "DOMAIN.task.train and DOMAIN.task.test")
    splits = {domain: own for domain in targets if (own := list_reviews(options, domain, findings))}
    vocabulary = fdu_mtl.train_vocabulary(
        [own for own in splits.values() if own.members.get("train")], options.num_words
    )
    return {
        domain: Part(
            own,
            TextReader(domain, vocabulary, options.max_tokens),
            {domain: targets[domain]},
            identity=own.identity,
            repeats_are_faults=False,
        )
        for domain, own in splits.items()
    }


def list_reviews(options: DataOptions, domain: str, findings: Findings) -> Splits[Review] | None:
    """Which reviews form which split of a domain; None if its files are at fault, train and test each by itself."""
    num_classes = options.targets[domain]
    files = [options.dataroot / f"{domain}.task.{split}" for split in fdu_mtl.LISTED]
    if None in [findings.attempt(fdu_mtl.read_reviews, file, num_classes) for file in files if file.is_file()]:
        return None
    return findings.attempt(fdu_mtl.resolve_splits, options.dataroot, domain, num_classes, options.validation)
