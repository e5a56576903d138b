"""The frames of NYU v2, CityScapes and Tiny-Taskonomy, listed and opened file by file.

`dataloaders.frames.FrameDataset` refuses a split of which a single file is missing; here the same lists, readers and
encoders serve to find every such file.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders import cityscapes, nyu_v2, taskonomy
from dataloaders.check.findings import Findings
from dataloaders.check.parts import Part, Parts, Targets
from dataloaders.check.readers import FrameReader
from dataloaders.frames import Row, encode_classes, find_file, read_split_file
from dataloaders.options import DataOptions
from dataloaders.splits import Splits, complete_splits
from dataloaders.transforms import Sample, resize, resize_nearest

Encoded = dict[str, np.ndarray]
"""Entries of a batch, without its first axis."""


def frame_part(splits: Splits[Row], reader: FrameReader, targets: Targets) -> Part:
    """The frames of a data root, told apart by their images."""
    return Part(splits, reader, targets, identity=partial(image_file, reader.root))


def image_file(root: Path, row: Row) -> str:
    """The image of a row, which stands first."""
    return os.path.abspath(os.path.join(root, row[0]))


def encode_each(encoders: Mapping[str, Callable[[np.ndarray], Encoded]], sample: Sample) -> Encoded:
    """Every array encoded by itself."""
    return {entry: array for name in sample for entry, array in encoders[name](sample[name]).items()}


# NYU v2


def list_nyu_v2(options: DataOptions, targets: Targets, findings: Findings) -> Parts:
    """The frames of NYU v2; UserError where they cannot be listed."""
    names = ("img", *options.targets)
    splits = nyu_v2.resolve_splits(options.dataroot, names, options.validation)
    encoders = nyu_v2.ENCODERS | {"normal": nyu_v2.NORMAL_ENCODERS[options.normals]}
    reader = FrameReader(options.dataroot, names, nyu_v2.READERS, partial(encode_each, encoders), resizes=False)
    # A bare folder is train and test at once, which its notes tell.
    listed = (options.dataroot / nyu_v2.SPLIT_FILE).is_file()
    return {"NYU_v2": replace(frame_part(splits, reader, targets), repeats_are_faults=listed)}


# CityScapes


def list_cityscapes(options: DataOptions, targets: Targets, findings: Findings) -> Parts:
    """The frames of CityScapes, with the labels of as many classes as are asked for; UserError as above."""
    num_classes = options.targets.get("seg")
    names = ("img", *options.targets)
    columns = [cityscapes.choose_labels(num_classes) if name == "seg" else name for name in names]
    split_file = find_file(options.dataroot, cityscapes.SPLIT_FILE)
    splits = complete_splits(read_split_file(split_file, cityscapes.FILES_OF_A_FRAME, columns), options.validation)
    readers = cityscapes.READERS | {"seg": partial(cityscapes.read_classes, num_classes=num_classes)}
    encode = encode_small_cityscapes if options.small_res else partial(encode_each, cityscapes.ENCODERS)
    reader = FrameReader(options.dataroot, names, readers, encode, resizes=options.small_res)
    return {"CityScapes": frame_part(splits, reader, targets)}


def encode_small_cityscapes(sample: Sample) -> Encoded:
    """The arrays of a frame, brought to 128x256 and encoded."""
    return encode_each(cityscapes.ENCODERS, resize(sample, cityscapes.SMALL_SIZE))


# Tiny-Taskonomy


def list_taskonomy(options: DataOptions, targets: Targets, findings: Findings) -> Parts:
    """The frames of Tiny-Taskonomy, whose class weights are read at once; UserError as above."""
    names = ["img", *options.targets]
    if "normal" in names and "depth" not in names:
        names.append("depth")  # It tells which normals are valid.
    split_file = find_file(options.dataroot, taskonomy.SPLIT_FILE)
    splits = complete_splits(read_split_file(split_file, taskonomy.FILES_OF_A_FRAME, names), options.validation)
    if "seg" in names:
        findings.attempt(read_taskonomy_weights, options.dataroot)
    encode = partial(encode_taskonomy, tuple(options.targets))
    reader = FrameReader(options.dataroot, names, taskonomy.READERS, encode, resizes=True)
    return {"Taskonomy": frame_part(splits, reader, targets)}


def read_taskonomy_weights(dataroot: Path) -> np.ndarray:
    """The weights of the classes; UserError if they are missing or not of their form."""
    return taskonomy.read_class_weights(find_file(dataroot, taskonomy.CLASS_WEIGHTS_FILE))


def encode_taskonomy(targets: tuple[str, ...], sample: Sample) -> Encoded:
    """Those entries of a frame whose files could be read, 256x256; the weights of its classes are left out."""
    sample = {name: resize_nearest(array, taskonomy.SIZE) for name, array in sample.items()}
    known = [name for name in ("img", *targets) if name in sample and (name != "normal" or "depth" in sample)]
    sample["inside"] = np.ones(taskonomy.SIZE, dtype=np.uint8)
    if "depth" in sample:
        sample["depth_valid"] = (sample["depth"] < taskonomy.UNMEASURED_DEPTH).astype(np.uint8)
    encoders = taskonomy.ENCODERS | {"seg": encode_unweighted_classes}
    return {entry: array for name in known for entry, array in encoders[name](sample).items()}


def encode_unweighted_classes(sample: Sample) -> Encoded:
    """Class numbers alone."""
    return encode_classes(sample["seg"])
