"""How a script ends: bad input, Ctrl+C, a reader that has gone; and folders that cannot be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.errors import UserError, exit_on_user_error
from utils.files import make_folder

ROOT = Path(__file__).parents[1]


def test_a_user_error_becomes_its_sentence_and_exit_code_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise UserError("the data root is missing: give another.")
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the data root is missing: give another.\n"
    assert captured.out == ""


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(KeyError, match="seg"), exit_on_user_error():
        raise KeyError("seg")


def test_without_an_error_the_script_ends_as_it_is() -> None:
    with exit_on_user_error():
        done = True
    assert done


def test_a_pipe_other_than_the_output_is_a_fault_of_the_program() -> None:
    with pytest.raises(BrokenPipeError), exit_on_user_error():
        raise BrokenPipeError


def script(body: str, output: int = subprocess.PIPE, unbuffered: str = "") -> subprocess.CompletedProcess:
    """Run a few lines as a script of the project, in a process of their own."""
    lines = f"import os, signal\nfrom utils.errors import *\nwith exit_on_user_error():\n    {body}\n"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", lines]
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def unread_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_ctrl_c_ends_a_script_with_one_line() -> None:
    ended = script("print('device: CPU'); os.kill(os.getpid(), signal.SIGINT); signal.pause()")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "device: CPU\n", "interrupted\n")


def test_a_second_ctrl_c_ends_it_where_it_is() -> None:
    ended = script("import atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT); raise KeyboardInterrupt")
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_nothing_is_said_where_the_reader_has_gone(lines: int, unbuffered: str, unread_pipe: int) -> None:
    ended = script(f"print('a line\\n' * {lines})", unread_pipe, unbuffered)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_errors_are_told_even_where_the_reader_has_gone(unread_pipe: int) -> None:
    ended = script("print('a line'); raise UserError('the data root is missing: give another.')", unread_pipe)
    assert (ended.returncode, ended.stderr) == (2, "error: the data root is missing: give another.\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
def test_output_to_a_full_disk_is_explained_once() -> None:
    with open("/dev/full", "w") as full:
        ended = script("print('a line')", full.fileno())
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: a disk is full")
    assert ended.stderr.count("\n") == 1


# Folders


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "runs" / "logs")
        assert os.listdir(tmp_path / "runs" / "logs") == []


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_in_the_place_of_a_folder_is_named_and_kept(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "logs"
    file.write_text("kept")
    with pytest.raises(UserError, match=rf"{file / inside}: .*folder"):
        make_folder(file / inside)
    assert file.read_text() == "kept"


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"runs: .*Permission denied"):
        make_folder(tmp_path / "runs")
