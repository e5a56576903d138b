"""The command line of `dataloaders.rendered`: a format, a folder, and how much of what to write there."""

import argparse
import time

from dataloaders.rendered import WRITERS, write_samples
from utils.errors import exit_on_user_error

PICTURE_SIZES = {
    "nyu_v2": (240, 320),
    "cityscapes": (256, 512),
    "taskonomy": (256, 256),
    "domainnet": (128, 128),
}
"""Default height and width of the formats that hold pictures."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line: a format, or "samples", then a folder and what to render."""
    parser = argparse.ArgumentParser(
        prog="python -m dataloaders.rendered", description="Make a multi-task data set without any download."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join([*WRITERS, "samples"]))
    for name in WRITERS:
        command = commands.add_parser(name, help=f"a data set with splits in the format of {name}")
        add_set_arguments(command)
        if name in PICTURE_SIZES:
            add_picture_arguments(command, *PICTURE_SIZES[name])
            command.add_argument("--workers", type=int, default=2, help="processes that render (default: 2)")
    samples = commands.add_parser("samples", help="a few frames of NYU v2's format without a list of splits")
    samples.add_argument("folder", metavar="FOLDER", help="where to write; made if missing")
    samples.add_argument("--count", type=int, default=4, help="frames (default: 4)")
    samples.add_argument("--seed", type=int, default=0, help="which rooms; 0 or more (default: 0)")
    add_picture_arguments(samples, height=480, width=640)
    return parser.parse_args(arguments)


def add_set_arguments(command: argparse.ArgumentParser) -> None:
    """What every data set asks for: folder, split sizes, seed."""
    command.add_argument("folder", metavar="FOLDER", help="where to write; made if missing")
    command.add_argument("--train", type=int, default=400, help="training samples, of each domain (default: 400)")
    command.add_argument("--test", type=int, default=80, help="test samples, of each domain (default: 80)")
    command.add_argument("--seed", type=int, default=0, help="which samples; 0 or more (default: 0)")


def add_picture_arguments(command: argparse.ArgumentParser, height: int, width: int) -> None:
    """The size of pictures, with these defaults."""
    command.add_argument("--height", type=int, default=height, help=f"pixels (default: {height})")
    command.add_argument("--width", type=int, default=width, help=f"pixels (default: {width})")


def write_set(options: argparse.Namespace) -> None:
    """Write the data set that the options name, and say where and in what time."""
    pictures = {}
    if options.command in PICTURE_SIZES:
        pictures = {"height": options.height, "width": options.width, "num_workers": options.workers}
    started = time.perf_counter()
    sizes = {"train": options.train, "test": options.test}
    written = WRITERS[options.command](options.folder, sizes, seed=options.seed, **pictures)
    seconds = time.perf_counter() - started
    print(f"{written}: train {options.train}, test {options.test}, written in {seconds:.1f} s")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line; bad input ends with one sentence and exit code 2."""
    options = parse_arguments(arguments)
    with exit_on_user_error():
        if options.command == "samples":
            write_samples(options.folder, options.count, options.height, options.width, options.seed)
        else:
            write_set(options)


if __name__ == "__main__":
    main()
