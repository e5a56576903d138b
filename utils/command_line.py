"""The command line that the scripts share."""

import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable


def script_parser(description: str) -> ArgumentParser:
    """A parser with `--config`, `--gpus` and `--set`; `description` is shown as it is laid out."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    add_configuration(parser)
    parser.add_argument(
        "--gpus",
        type=int,
        nargs="+",
        default=[0],
        metavar="N",
        help="GPU to run on; -1 asks for the CPU, which is also taken where there is no CUDA device (default: 0)",
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
        type=int,
        nargs="+",
        metavar="I",
        help=f"{purpose}; each is an index into `seed` of the configuration (default: {default})",
    )


def not_negative(text: str) -> int:
    """An argument's type: a number from 0 on."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def next_command(script: str, arguments: Namespace, exp_ids: Iterable[int]) -> str:
    """The command of the next phase, with this one's configuration, devices and overrides."""
    command = ["python", script, "--config", arguments.config, "--gpus", *map(str, arguments.gpus)]
    command += ["--exp_ids", *map(str, exp_ids)]
    if arguments.set:
        command += ["--set", *arguments.set]
    return shlex.join(command)
