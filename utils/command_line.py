"""The command line that the scripts share."""

import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable


def script_parser(description: str) -> ArgumentParser:
    """A parser with `--config`, `--gpus` and `--set`; `description` is shown as it is laid out."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration, see yamls/")
    parser.add_argument(
        "--gpus",
        type=int,
        nargs="+",
        default=[0],
        metavar="N",
        help="GPU to run on; -1 asks for the CPU, which is also taken where there is no CUDA device (default: 0)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="values that win over the file, such as train.batch_size=8 or seed=[1,2]; typed as in YAML",
    )
    return parser


def add_exp_ids(parser: ArgumentParser, default: list[int], purpose: str) -> None:
    """Add `--exp_ids`, indices into the configuration's seeds."""
    parser.add_argument(
        "--exp_ids",
        type=int,
        nargs="+",
        default=default,
        metavar="I",
        help=f"{purpose}; each is an index into `seed` of the configuration (default: {default})",
    )


def next_command(script: str, arguments: Namespace, exp_ids: Iterable[int]) -> str:
    """The command of the next phase, with this one's configuration, devices and overrides."""
    command = ["python", script, "--config", arguments.config, "--gpus", *map(str, arguments.gpus)]
    command += ["--exp_ids", *map(str, exp_ids)]
    if arguments.set:
        command += ["--set", *arguments.set]
    return shlex.join(command)
