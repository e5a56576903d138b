"""Check a data set: open every file that a configuration names, and tell all that is wrong at once.

Exit code 0 where nothing is wrong, 2 where something is.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from dataloaders.check.findings import Findings
from dataloaders.check.formats import list_parts
from dataloaders.check.inspection import inspect
from dataloaders.check.memberships import SPLITS, assumptions, check_memberships
from dataloaders.check.parts import Parts
from dataloaders.check.sheet import save_examples
from dataloaders.check.tables import format_summaries, sample_texts
from dataloaders.check.targets import configured_targets
from dataloaders.check.wholes import check_wholes
from dataloaders.options import DataOptions
from utils.children import num_cores
from utils.command_line import add_configuration, not_negative
from utils.config import TestingConfig, load_config
from utils.errors import UserError, exit_on_user_error


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    """The command line: a configuration, what wins over it, and how to work."""
    parser = ArgumentParser(
        prog="python -m dataloaders.check", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    add_configuration(parser)
    parser.add_argument(
        "--workers", type=not_negative, default=num_cores(), metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="FILE", help="sheet of examples, a PNG (default: runs/check/{exp_name}.png)"
    )
    return parser.parse_args(arguments)


def check(config: TestingConfig, num_workers: int, pictures: Path) -> None:
    """Check the data set of a configuration, and print what it holds.

    Args:
        num_workers: processes that open files; 0 opens all in this one.
        pictures: where the sheet of examples goes.

    Raises: UserError that lists the faults, if there are any.
    """
    findings = Findings()
    targets = configured_targets(config)
    options = DataOptions.of(
        config.dataload, {target.entry: target.num_channels for target in targets.values()}, seed=0
    )
    parts = list_parts(config.dataload.dataset, options, targets, needed_splits(config), findings)
    for part in parts.values():
        check_memberships(part, needed_splits(config), findings)
    summaries = inspect(parts, num_workers, findings)
    check_wholes(parts, summaries, config.train.batch_size, findings)
    if parts:
        findings.add_notes(assumptions(parts))
        for note in findings.notes:
            print(f"note     {note}")
        print(f"\n{format_summaries(parts, summaries)}\n")
        show_examples(parts, pictures, config.exp_name)
    if findings.num_faults:
        raise UserError(f"{config.dataload.dataroot}: {findings.report()}")
    print(f"checked  {config.dataload.dataroot}: nothing is wrong")


def needed_splits(config: TestingConfig) -> tuple[str, ...]:
    """The splits that the scripts open: test alone for a file of test.py, all for one of training."""
    return ("test",) if config.train.total_iters is None else SPLITS


def show_examples(parts: Parts, pictures: Path, title: str) -> None:
    """Print the beginnings of some texts, or save a sheet of pictures and print where."""
    for text in sample_texts(parts):
        print(f"text     {text}")
    if save_examples(pictures, parts, title):
        print(f"pictures {pictures}")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line; faults, listed on standard error, end with exit code 2."""
    given = parse_arguments(arguments)
    with exit_on_user_error():
        config = load_config(given.config, given.set, TestingConfig)
        check(config, given.workers, given.pictures or Path("runs/check") / f"{config.exp_name}.png")


if __name__ == "__main__":
    main()
