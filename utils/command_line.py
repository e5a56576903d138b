"""The command line that the scripts share."""

import re
import shlex
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from itertools import chain

from utils.errors import UserError

RANGE = re.compile(r"([0-9]{1,5})\.\.([0-9]{1,5})")
"""From .. to, both included."""


def script_parser(description: str) -> ArgumentParser:
    """A parser with `--config`, `--set`, `--gpus` and `--compile`; `description` is shown as it is laid out."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    add_configuration(parser)
    parser.add_argument(
        "--gpus",
        type=int,
        nargs="+",
        metavar="N",
        help="GPU to run on, or several (docs/SCALE.md); -1 asks for the CPU, which is also taken where there is no "
        "CUDA device (default: the first, or the first ones where several processes are asked for)",
    )
    parser.add_argument(
        "--compile",
        dest="set",
        action="append_const",
        const="train.compile=True",
        help="compile the network's parts with torch.compile; short for --set train.compile=True",
    )
    return parser


def add_configuration(parser: ArgumentParser) -> None:
    """Add `--config` and `--set`."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration, see yamls/")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="values that win over the file, such as train.batch_size=8 or seed=[1,2]; typed as in YAML",
    )


def add_processes(parser: ArgumentParser) -> None:
    """Add `--processes`: how many share the run; None where it is not said."""
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="processes that share the run (default: one for each of --gpus, and one on the CPU)",
    )


def add_resume(parser: ArgumentParser) -> None:
    """Add `--resume` and `--overwrite`: what shall become of a run that is found in the folder."""
    found = parser.add_mutually_exclusive_group()
    found.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run that was stopped in the folder, as if it had not been; without one, begin",
    )
    found.add_argument("--overwrite", action="store_true", help="begin anew where the folder holds a run")


def add_exp_ids(parser: ArgumentParser, default: str, purpose: str) -> None:
    """Add `--exp_ids`, indices into the configuration's seeds; None where they are not given."""
    parser.add_argument(
        "--exp_ids",
        type=exp_ids_of,
        nargs="+",
        action=_Joined,
        metavar="I",
        help=f"{purpose}; each is an index into `seed` of the configuration, or a range such as 0..7 "
        f"(default: {default})",
    )


def add_parallel(parser: ArgumentParser) -> None:
    """Add `--parallel`: how many runs at once; 0 where no number is said, None where it is not given."""
    parser.add_argument(
        "--parallel",
        type=positive,
        nargs="?",
        const=0,
        metavar="N",
        help="N at once, each in a process of its own, in turns on --gpus, by default all GPUs "
        "(N left out: one for each GPU, and on the CPU one for every two cores)",
    )


# Types of arguments


def exp_ids_of(text: str) -> Sequence[int]:
    """A number, or a range with both of its ends: `0..2` is 0, 1 and 2.

    Raises:
        UserError: neither.
    """
    ends = RANGE.fullmatch(text)
    if ends and int(ends[1]) <= int(ends[2]):
        return range(int(ends[1]), int(ends[2]) + 1)
    try:
        return [int(text)]
    except ValueError as error:
        raise UserError(
            f"--exp_ids {text[:60]}: expected numbers, or ranges from the lower to the higher; write them as in 0..3 6."
        ) from error


class _Joined(Action):
    """Keeps the items of several sequences as one list."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: object, option: str | None = None) -> None:
        setattr(namespace, self.dest, list(chain.from_iterable(values)))


def not_negative(text: str) -> int:
    """A number from 0 on."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def positive(text: str) -> int:
    """A number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# Commands


def run_options(arguments: Namespace, gpus: Iterable[int] | None, exp_ids: Iterable[int]) -> list[str]:
    """The options of a command with this one's configuration and overrides; `gpus` None leaves the default."""
    devices = [] if gpus is None else ["--gpus", *map(str, gpus)]
    options = ["--config", arguments.config, *devices, "--exp_ids", *map(str, exp_ids)]
    return [*options, "--set", *arguments.set] if arguments.set else options


def next_command(script: str, arguments: Namespace, exp_ids: Iterable[int], parallel: bool = False) -> str:
    """The command of the next phase, with this one's configuration, devices, processes and overrides.

    Args:
        parallel: whether it gives each of several GPUs an architecture of its own.
    """
    processes = ["--processes", str(arguments.processes)] if arguments.processes else []
    if parallel and len(arguments.gpus or []) > 1:
        processes = ["--parallel"]
    return shlex.join(["python", script, *run_options(arguments, arguments.gpus, exp_ids), *processes])
