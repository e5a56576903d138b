"""Prepare a data set: a raw download -> the format that it is read from.

Sources are only read. A second run goes on where the first one stopped.
"""

import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dataloaders.prepare.cityscapes import prepare_cityscapes
from dataloaders.prepare.domainnet import prepare_domainnet
from dataloaders.prepare.nyu_v2 import prepare_nyu_v2
from dataloaders.prepare.output import Prepared
from dataloaders.prepare.taskonomy import prepare_taskonomy
from utils.children import num_cores
from utils.command_line import not_negative
from utils.errors import exit_on_user_error


class Preparation(NamedTuple):
    """A data set on the command line."""

    help: str
    add_arguments: Callable[[ArgumentParser], None]
    prepare: Callable[[Namespace], Prepared]
    config: str  # the configuration that reads what is made


def add_nyu_v2_arguments(command: ArgumentParser) -> None:
    """Three files, which come from three places, and the folder to write."""
    command.add_argument("--labeled", type=Path, required=True, metavar="FILE", help="nyu_depth_v2_labeled.mat")
    command.add_argument("--splits", type=Path, required=True, metavar="FILE", help="splits.mat, the official one")
    command.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classMapping40.mat, 894 -> 40")
    command.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write; made if missing")
    add_workers(command)


def add_cityscapes_arguments(command: ArgumentParser) -> None:
    """The unpacked download and the folder to write."""
    command.add_argument("raw", type=Path, metavar="RAW", help="holds leftImg8bit/, gtFine/ and disparity/")
    command.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write; made if missing")
    add_workers(command)


def add_taskonomy_arguments(command: ArgumentParser) -> None:
    """The unpacked download, the folder of the index, and which building belongs to which split."""
    command.add_argument(
        "raw", type=Path, metavar="RAW", help="holds rgb/, segment_semantic/, ..., and in each a folder per building"
    )
    add_index_folder(command)
    command.add_argument(
        "--buildings",
        type=Path,
        metavar="FILE",
        help="Taskonomy's csv 'id,train,val,test', or lines 'building,split' (default: divided at random)",
    )
    add_workers(command)


def add_domainnet_arguments(command: ArgumentParser) -> None:
    """The unpacked download and the folder of the lists."""
    command.add_argument("raw", type=Path, metavar="RAW", help="holds the domains and {domain}_{train,test}.txt")
    add_index_folder(command)


def add_index_folder(command: ArgumentParser) -> None:
    """Where the index of files that stay in place is written."""
    command.add_argument(
        "output", type=Path, nargs="?", metavar="OUTPUT", help="folder of the index (default: beside the files, in RAW)"
    )


def add_workers(command: ArgumentParser) -> None:
    """How many processes share the work."""
    command.add_argument(
        "--workers", type=not_negative, default=num_cores(), metavar="N", help="processes (default: one per core)"
    )


SETS: dict[str, Preparation] = {
    "nyu_v2": Preparation(
        "NYU v2 from its labeled frames; normals are fitted to depth",
        add_nyu_v2_arguments,
        lambda given: prepare_nyu_v2(given.labeled, given.splits, given.classes, given.output, given.workers),
        "yamls/adashare/nyu_v2_3task.yml",
    ),
    "cityscapes": Preparation(
        "CityScapes from leftImg8bit, gtFine and disparity, at 256x512",
        add_cityscapes_arguments,
        lambda given: prepare_cityscapes(given.raw, given.output, given.workers),
        "yamls/adashare/cityscapes_2task.yml",
    ),
    "taskonomy": Preparation(
        "Tiny-Taskonomy's list of splits and class weights; its pictures stay in place",
        add_taskonomy_arguments,
        lambda given: prepare_taskonomy(given.raw, given.output or given.raw, given.buildings, given.workers),
        "yamls/adashare/taskonomy_5task.yml",
    ),
    "domainnet": Preparation(
        "DomainNet's lists of all domains; its images stay in place",
        add_domainnet_arguments,
        lambda given: prepare_domainnet(given.raw, given.output or given.raw),
        "yamls/adashare/domainnet.yml",
    ),
}
"""Name on the command line -> its preparation."""


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    """The command line: a data set, its sources, and the folder to write."""
    parser = ArgumentParser(
        prog="python -m dataloaders.prepare", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="set", required=True, metavar="|".join(SETS))
    for name, preparation in SETS.items():
        preparation.add_arguments(commands.add_parser(name, help=preparation.help, description=preparation.help))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line; bad input ends with one sentence and exit code 2."""
    given = parse_arguments(arguments)
    preparation = SETS[given.set]
    with exit_on_user_error():
        prepared = preparation.prepare(given)
        for note in prepared.notes:
            print(note)
        sizes = ", ".join(f"{split} {size}" for split, size in prepared.split_sizes.items())
        dataroot = shlex.quote(f"dataload.dataroot={prepared.index.parent}")
        print(f"{prepared.index}: {sizes}")
        print(f"next     python -m dataloaders.check --config {preparation.config} --set {dataroot}")


if __name__ == "__main__":
    main()
