"""Tiny-Taskonomy: the pictures stay where they are; made are `taskonomy.json` and the weights of the classes.

A download has one folder for each kind of picture, and in it, at any depth, one folder for each building:
{kind}/{building}/point_{i}_view_{j}_domain_{kind}.png.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.prepare.output import (
    MOST_SOURCE_BYTES,
    Prepared,
    array_file,
    claim_folder,
    digest_of,
    place_of,
    refuse_no_raw_folder,
    way_to,
    write_if_new,
    write_index,
)
from dataloaders.processes import carry_out
from dataloaders.reading import read_file
from dataloaders.splits import TRAIN2_SHARE, divide
from dataloaders.taskonomy import (
    CLASS_WEIGHTS_FILE,
    FILES_OF_A_FRAME,
    NUM_CLASSES,
    SPLIT_FILE,
    count_class_pixels,
    prior_factor,
)
from utils.errors import UserError
from utils.files import read_json, write_json

COUNTS_FOLDER = "semseg_counts"

FOLDERS: dict[str, tuple[str, ...]] = {
    "img": ("rgb",),
    "seg": ("segment_semantic", "segmentsemantic", "semseg"),
    "normal": ("normal",),
    "depth": ("depth_zbuffer",),
    "keypoint": ("keypoints2d",),
    "edge": ("edge_texture",),
}
"""File of a frame -> the names that its folder may have."""

SPLITS = ("train", "val", "test")
"""To which the buildings belong, whole."""

VAL_SHARE = TEST_SHARE = 0.1
"""Of the buildings, where no file says to which split they belong."""

MOST_SMALL_TEST_VIEWS = 1000
"""Of test_small, which stands for test while training."""


class Place(NamedTuple):
    """Where one view is, below the folder of each kind of picture."""

    folder: str  # its last part is the building
    view: str  # "point_12_view_3"

    @property
    def building(self) -> str:
        """The building that the view belongs to."""
        return os.path.basename(self.folder)


Row = list[str]
"""The six pictures of a view, relative to the index."""


def prepare_taskonomy(raw: Path, output: Path, buildings: Path | None, num_workers: int) -> Prepared:
    """Write `taskonomy.json` and `semseg_prior_factor.npy`.

    Args:
        raw: folder that holds rgb/, segment_semantic/ and so on; only read, unless it is the output folder too.
        output: the folder of the index; `raw` itself, or another one, from which the paths then lead to `raw`.
        buildings: file that says which building belongs to which split (`read_building_splits`); without it they
            are divided at random, always alike: 80 % train, a tenth each val and test.

    Raises: UserError for sources that are missing, damaged or not of their form, and for an output folder that
    holds files of these names already.
    """
    refuse_no_raw_folder(raw, f"Tiny-Taskonomy's {', '.join(names[0] for names in FOLDERS.values())}")
    rows, incomplete = list_views(raw, output)
    of_buildings = group_by_building(rows)
    names = sorted(of_buildings)
    splits = read_building_splits(buildings, names) if buildings else divide_buildings(names, raw)
    sources = {
        "raw": place_of(raw, output),
        "buildings": digest_of(buildings) if buildings else "divided at random",
    }
    claim_folder(output, [SPLIT_FILE, CLASS_WEIGHTS_FILE, COUNTS_FOLDER], sources)

    counts = count_buildings(output, {name: of_buildings[name] for name in splits["train"]}, num_workers)
    write_if_new(output / CLASS_WEIGHTS_FILE, array_file(prior_factor(counts)))
    members = split_views({split: [row for name in own for row in of_buildings[name]] for split, own in splits.items()})
    write_index(output / SPLIT_FILE, members)
    note = f"{incomplete} views of {raw} lack one of the {len(FOLDERS)} pictures and are left out"
    sizes = {split: len(own) for split, own in members.items()}
    return Prepared(output / SPLIT_FILE, sizes, (note,) if incomplete else ())


# Which views there are


def list_views(raw: Path, output: Path) -> tuple[dict[Place, Row], int]:
    """The views of which all pictures are there, in the order of their names, and how many lack some.

    Raises: UserError if a kind of picture is missing, or no view has all.
    """
    pictures = [list_pictures(raw, find_folder(raw, kind)) for kind in FILES_OF_A_FRAME]
    common = sorted(set.intersection(*map(set, pictures)))
    if not common:
        raise UserError(
            f"{raw} has no view of which all {len(FOLDERS)} pictures are there: unpack the same buildings of every kind"
        )
    way = way_to(raw, output)
    rows = {place: [way + own[place] for own in pictures] for place in common}
    return rows, len(set.union(*map(set, pictures))) - len(common)


def find_folder(raw: Path, kind: str) -> str:
    """The name of the folder of a kind of picture; UserError if there is none."""
    for name in FOLDERS[kind]:
        if (raw / name).is_dir():
            return name
    raise UserError(f"{raw} has no folder {' or '.join(FOLDERS[kind])}: give the one that holds all six kinds")


def list_pictures(raw: Path, folder: str) -> dict[Place, str]:
    """The pictures anywhere below a folder, by place; paths relative to `raw`, as text because there are millions."""
    found = {}
    for parent, folders, files in os.walk(raw / folder, followlinks=True):
        # Names with a dot before them are not the data set's: macOS leaves such beside files that it packs.
        folders[:] = [name for name in folders if not name.startswith(".")]
        building = os.path.relpath(parent, raw / folder)
        for file in files:
            view, domain, _ = file.partition("_domain_")
            if domain and file.endswith(".png") and not file.startswith("."):
                found[Place(building, view)] = os.path.join(folder, building, file)
    return found


def group_by_building(rows: Mapping[Place, Row]) -> dict[str, list[Row]]:
    """Building -> its views."""
    buildings: dict[str, list[Row]] = {}
    for place, row in rows.items():
        buildings.setdefault(place.building, []).append(row)
    return buildings


# Which of them form a split


def read_building_splits(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Split ("train", "val", "test") -> its buildings, as a file lists them.

    The file is Taskonomy's own, "id,train,val,test" with a 1 in the column of the split, or has lines
    "building,split" (a blank or a tab serves as well as the comma). It may list more buildings than there are.

    Raises: UserError if it cannot be read, puts a building into two splits or leaves one out, or leaves train or
    test without any.
    """
    try:
        lines = read_file(path, MOST_SOURCE_BYTES).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read ({error}): give a file with lines 'building,split'") from error
    split_of: dict[str, str] = {}
    for building, split in parse_building_lines(lines):
        if split_of.setdefault(building, split) != split:
            raise UserError(
                f"{path} puts building {building} into {split_of[building]} and into {split}: leave it in one of them"
            )
    unknown = [name for name in names if split_of.get(name) not in SPLITS]
    if unknown:
        raise UserError(
            f"{path} gives no split train, val or test for building {', '.join(unknown[:3])}"
            f"{', ...' if len(unknown) > 3 else ''}: add a line 'building,split'"
        )
    splits = {split: [name for name in names if split_of[name] == split] for split in SPLITS}
    if not splits["train"] or not splits["test"]:
        raise UserError(f"{path} leaves train or test without any building that is there: it needs one for each")
    return splits


def parse_building_lines(lines: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (building, split) of the lines of a file, as often as it names them."""
    table = [line.replace(",", " ").split() for line in lines]
    if ["id", *SPLITS] in table:
        return [
            (line[0], split) for line in table for split, flag in zip(SPLITS, line[1:], strict=False) if flag == "1"
        ]
    return [(line[0], line[1]) for line in table if len(line) == 2]


def divide_buildings(names: Sequence[str], raw: Path) -> dict[str, list[str]]:
    """Split -> buildings, at random, always alike; UserError if there are too few for three splits."""
    if len(names) < 3:
        raise UserError(
            f"{raw} has views of {', '.join(names)} alone, but train, val and test need a building each: add more, or "
            "divide those with --buildings"
        )
    others, test = divide(names, TEST_SHARE)
    train, val = divide(others, VAL_SHARE * len(names) / len(others))
    return {"train": train, "val": val, "test": test}


def split_views(splits: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Complete the splits by train1 and train2, 80 % and 20 % of train, and test_small; without val if it is empty."""
    train1, train2 = divide(splits["train"], TRAIN2_SHARE)
    test = splits["test"]
    few = len(test) <= MOST_SMALL_TEST_VIEWS
    test_small = test if few else divide(test, MOST_SMALL_TEST_VIEWS / len(test))[1]
    completed = {**splits, "train1": train1, "train2": train2, "test_small": test_small}
    return {split: rows for split, rows in completed.items() if rows}


# How frequent the classes are


def count_buildings(output: Path, buildings: Mapping[str, list[Row]], num_workers: int) -> np.ndarray:
    """Pixels of each class in the pictures of the buildings, [17] int.

    Each building's are kept in a file of their own: what was counted once is not counted again.
    """
    unfinished = [
        (name, rows) for name, rows in buildings.items() if not _is_counted(_counts_file(output, name), len(rows))
    ]
    carry_out(partial(count_building, output), unfinished, num_workers, "buildings")
    return np.sum([read_counts(_counts_file(output, name))["pixels"] for name in buildings], axis=0)


def count_building(output: Path, building: tuple[str, list[Row]]) -> None:
    """Write the counts of a building, given its name and its views: {"views": how many, "pixels": of each class}."""
    name, rows = building
    pixels = count_class_pixels(output / row[FILES_OF_A_FRAME.index("seg")] for row in rows)
    write_json(_counts_file(output, name), {"views": len(rows), "pixels": pixels.tolist()})


def _counts_file(output: Path, building: str) -> Path:
    return output / COUNTS_FOLDER / f"{building}.json"


def _is_counted(path: Path, num_views: int) -> bool:
    return path.is_file() and read_counts(path)["views"] == num_views


def read_counts(path: Path) -> dict[str, Any]:
    """What `count_building` wrote; UserError for anything else."""
    counts = read_json(path)
    pixels = counts.get("pixels") if isinstance(counts, dict) else None
    if not isinstance(pixels, list) or len(pixels) != NUM_CLASSES or not all(isinstance(n, int) for n in pixels):
        raise UserError(f"{path} does not hold a building's counts of {NUM_CLASSES} classes: remove it, and run again")
    return {"views": counts.get("views"), "pixels": pixels}
