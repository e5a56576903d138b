"""What the scripts' common options mean, and the commands that they suggest."""

import shlex
from argparse import ArgumentParser, Namespace

import pytest

from utils.command_line import (
    add_exp_ids,
    add_parallel,
    add_processes,
    next_command,
    run_options,
    script_parser,
)
from utils.errors import UserError


def parsed(*arguments: str) -> Namespace:
    parser = script_parser("What it does.")
    add_exp_ids(parser, "all", "architectures")
    add_parallel(parser)
    add_processes(parser)
    return parser.parse_args(["--config", "a file.yml", *arguments])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0..7", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("0..3 6", [0, 1, 2, 3, 6]),
        ("6 0..1 12", [6, 0, 1, 12]),
        ("4..4", [4]),
        ("-1", [-1]),
    ],
)
def test_exp_ids_are_numbers_and_ranges_with_both_ends(written: str, meant: list[int]) -> None:
    assert parsed("--exp_ids", *written.split()).exp_ids == meant


@pytest.mark.parametrize("written", ["7..0", "0..", "..3", "0...3", "0..3..5", "1.5", "seven", "", "0..1000000000000"])
def test_other_exp_ids_are_refused_in_a_sentence(written: str) -> None:
    with pytest.raises(UserError, match=r"^--exp_ids .*: expected numbers, or ranges .*0\.\.3 6\.$"):
        parsed("--exp_ids", written)


@pytest.mark.parametrize(("arguments", "meant"), [([], None), (["--parallel"], 0), (["--parallel", "3"], 3)])
def test_parallel_may_leave_the_number_to_the_gpus(arguments: list[str], meant: int | None) -> None:
    assert parsed(*arguments).parallel == meant
    assert parsed(*arguments, "--exp_ids", "1").parallel == meant


@pytest.mark.parametrize("option", ["--parallel", "--processes"])
@pytest.mark.parametrize("number", ["0", "-2", "some"])
def test_at_least_one_is_asked_for(option: str, number: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed(option, number)
    assert stop.value.code == 2
    assert option in capsys.readouterr().err


def test_commands_bear_the_configuration_on() -> None:
    arguments = parsed("--gpus", "2", "3", "--processes", "2", "--set", "train.batch_size=8", "seed=[1, 2]")
    command = next_command("re-train.py", arguments, [0, 1])
    assert command.startswith("python re-train.py --config 'a file.yml' --gpus 2 3 --exp_ids 0 1 --set ")
    again = parsed(*shlex.split(command)[4:])
    assert vars(again) == vars(arguments) | {"exp_ids": [0, 1]}
    side_by_side = parsed(*shlex.split(next_command("re-train.py", arguments, [0, 1], parallel=True))[4:])
    assert vars(side_by_side) == vars(again) | {"parallel": 0, "processes": None}
    alone = parsed(*run_options(arguments, [-1], [7])[2:], "--parallel")
    assert vars(alone) == vars(arguments) | {"exp_ids": [7], "gpus": [-1], "parallel": 0, "processes": None}


def test_what_was_not_said_is_not_borne_on() -> None:
    assert next_command("test.py", parsed(), [1]) == "python test.py --config 'a file.yml' --exp_ids 1"
    assert "--parallel" not in next_command("re-train.py", parsed("--gpus", "1"), [0, 1], parallel=True)


def test_options_of_groups_can_be_added(capsys: pytest.CaptureFixture) -> None:
    parser = ArgumentParser()
    which = parser.add_mutually_exclusive_group()
    add_exp_ids(which, "0", "architectures")
    which.add_argument("--best", action="store_true")
    assert parser.parse_args(["--exp_ids", "0..1"]).exp_ids == [0, 1]
    with pytest.raises(SystemExit):
        parser.parse_args(["--exp_ids", "0..1", "--best"])
    assert "not allowed with" in capsys.readouterr().err


def test_compile_is_short_for_a_value() -> None:
    arguments = script_parser("").parse_args(["--config", "a.yml", "--compile", "--set", "train.batch_size=8"])
    assert arguments.set == ["train.compile=True", "train.batch_size=8"]
    assert script_parser("").parse_args(["--config", "a.yml"]).set == []
