"""Copies of a script that work together: their places, what is heard of them, and that all end with the first to fail.

The scripts are a few lines that import nothing large. Each is started anew, as a user's command is.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.programs import PATIENCE, ROOT, free_to_lock, wait_for

HEAD = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
from utils import children, interruption
from utils.errors import UserError, exit_on_user_error
from utils.launching import launch

interruption.SAME_REQUEST, children.GRACE, children.LAST_SAVE = 0.3, 0.3, 0.5
children.num_cores = lambda: 12
folder, rank = Path(__file__).parent, os.environ.get("RANK")

def train():
    "Until a signal comes; as train.py, it then saves."
    def save(number, frame):
        (folder / f"saved{rank}").write_text(signal.Signals(number).name)
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, save)
    (folder / f"ready{rank}").touch()
    time.sleep(600)

def hang():
    "Deaf to all but SIGKILL, as what waits in a library for a process that is gone."
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    (folder / f"ready{rank}").touch()
    time.sleep(600)

with exit_on_user_error():
    launch(NUM_PROCESSES)
    lock = (folder / f"lock{rank}").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
"""
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


def write_script(folder: Path, work: str, num_processes: int = 2) -> list[str]:
    """Write a script whose copies do some work, which is told their rank; returns its command."""
    path = folder / "script.py"
    lines = "".join(f"    {line}\n" for line in work.strip().splitlines())
    path.write_text(HEAD.replace("NUM_PROCESSES", str(num_processes)) + lines)
    return [sys.executable, str(path)]


def environment(**values: str) -> dict[str, str]:
    """This process's, without what torchrun would set."""
    own = {name: value for name, value in os.environ.items() if name not in PLACE}
    return {**own, "PYTHONPATH": str(ROOT), **values}


def run(folder: Path, work: str, num_processes: int = 2, *arguments: str, **values: str) -> subprocess.CompletedProcess:
    """Run such a script to its end."""
    command = [*write_script(folder, work, num_processes), *arguments]
    return subprocess.run(command, env=environment(**values), capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def running(folder: Path, work: str, *ready: str) -> Iterator[subprocess.Popen]:
    """Such a script, of two processes, in a group of its own, once it has made the files that say so."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = write_script(folder, work)
    with subprocess.Popen(command, env=environment(), start_new_session=True, text=True, **pipes) as process:
        try:
            wait_for(lambda: all((folder / name).exists() for name in ready))
            yield process
        finally:
            process.kill()


def are_gone(folder: Path) -> bool:
    """Whether both copies have ended."""
    return free_to_lock(folder / "lock0") and free_to_lock(folder / "lock1")


# Their places


@pytest.mark.parametrize(("given", "threads"), [({}, "4"), ({"OMP_NUM_THREADS": "7"}, "7")])
def test_copies_find_their_place_where_torchrun_puts_it(tmp_path: Path, given: dict[str, str], threads: str) -> None:
    work = f"(folder / rank).write_text(json.dumps([[os.environ[name] for name in {PLACE}], sys.argv[1:]]))"
    assert run(tmp_path, work, 3, "--gpus", "0 1", **given).returncode == 0
    places, arguments = zip(*(json.loads((tmp_path / rank).read_text()) for rank in "012"), strict=True)
    port = places[0][5]
    assert [*places] == [[rank, "3", rank, "3", "127.0.0.1", port, threads] for rank in "012"]
    assert 1024 <= int(port) < 65536
    assert [*arguments] == [["--gpus", "0 1"]] * 3


@pytest.mark.parametrize(("num_processes", "values"), [(1, {}), (4, {"RANK": "2", "WORLD_SIZE": "4"})])
def test_one_process_and_those_of_torchrun_are_not_copied(
    tmp_path: Path, num_processes: int, values: dict[str, str]
) -> None:
    ended = run(tmp_path, "print(os.getppid()); sys.exit(5)", num_processes, **values)
    assert (ended.returncode, ended.stdout) == (5, f"{os.getpid()}\n")


def test_the_first_copy_alone_is_heard(tmp_path: Path) -> None:
    ended = run(tmp_path, "print(f'output {rank}'); print(f'a warning of {rank}', file=sys.stderr)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "output 0\n", "a warning of 0\n")


# Failures


@pytest.mark.parametrize("others", ["train()", "hang()"])
def test_when_a_copy_fails_the_others_end_and_its_reason_is_told(tmp_path: Path, others: str) -> None:
    work = f"""
if rank == "0":
    {others}
while not (folder / "ready0").exists():
    time.sleep(0.01)
raise UserError("image 7 is damaged.")
"""
    ended = run(tmp_path, work)
    assert ended.returncode == 2
    assert "process 1 (of 0 to 1) failed with exit code 2; it said:\n    error: image 7 is damaged.\n" in ended.stderr
    assert are_gone(tmp_path)
    assert (tmp_path / "saved0").exists() == (others == "train()"), "first they are asked, then they are killed"


def test_the_first_copy_speaks_for_itself(tmp_path: Path) -> None:
    ended = run(tmp_path, "if rank == '1':\n    train()\nraise UserError('image 7 is damaged.')")
    assert (ended.returncode, ended.stderr) == (2, "error: image 7 is damaged.\n")


def test_the_exit_code_is_that_of_the_first_to_fail(tmp_path: Path) -> None:
    work = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\ntime.sleep(60 if rank == '0' else 0)\nsys.exit(3)"
    assert run(tmp_path, work).returncode == 3


@pytest.mark.parametrize("rank", "01")
def test_a_copy_that_was_killed_has_failed_and_this_is_said(tmp_path: Path, rank: str) -> None:
    ended = run(tmp_path, f"if rank != '{rank}':\n    train()\nos.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == 128 + signal.SIGKILL
    assert ended.stderr.startswith(f"process {rank} (of 0 to 1) was ended by SIGKILL, as the system does for want of")


def test_a_first_copy_that_ends_without_a_word_is_told_of(tmp_path: Path) -> None:
    ended = run(tmp_path, "if rank == '1':\n    train()\nos._exit(9)")
    assert (ended.returncode, ended.stderr) == (9, "process 0 (of 0 to 1) failed with exit code 9\n")


def test_a_copy_that_is_finished_early_disturbs_nobody(tmp_path: Path) -> None:
    work = "time.sleep(0.5 * (rank == '0'))\n(folder / f'finished{rank}').touch()"
    assert run(tmp_path, work).returncode == 0
    assert (tmp_path / "finished0").exists()


# Signals


@pytest.mark.parametrize(("group", "script"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_a_signal_is_passed_on_once(tmp_path: Path, group: str, script: str) -> None:
    """Told twice, as by a terminal (Ctrl+C) and by a scheduler, copies would end before they are saved."""
    work = """
def count(number, frame):
    (folder / f"saved{rank}").open("a").write(f"{signal.Signals(number).name}\\n")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, count)
(folder / f"ready{rank}").touch()
while not (folder / f"saved{rank}").exists():
    time.sleep(0.01)
time.sleep(0.5)
sys.exit({"SIGTERM": 143, "SIGINT": 130}[(folder / f"saved{rank}").read_text().split()[0]])
"""
    with running(tmp_path, work, "ready0", "ready1") as process:
        os.killpg(process.pid, signal.Signals[group])
        process.send_signal(signal.Signals[script])
        passed_on = signal.Signals(process.wait(PATIENCE) - 128).name
    assert passed_on in (group, script), "of two that come at once, either may be the one that is taken"
    assert [(tmp_path / f"saved{rank}").read_text() for rank in "01"] == [f"{passed_on}\n"] * 2


def test_what_one_copy_is_told_all_do(tmp_path: Path) -> None:
    work = """
(folder / f"pid{rank}").write_text(str(os.getpid()))
if rank == "1":
    train()
(folder / "ready0").touch()
while not (folder / "saved1").exists():
    time.sleep(0.01)
time.sleep(0.1)  # the other has ended by then
(folder / "saved0").touch()
sys.exit(143)
"""
    with running(tmp_path, work, "ready0", "ready1") as process:
        os.kill(int((tmp_path / "pid1").read_text()), signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
        assert process.stderr.read() == "process 1 (of 0 to 1) was told to stop\n"
    assert (tmp_path / "saved0").exists()


@pytest.mark.parametrize("code", [130, 143])
def test_a_copy_that_stops_by_itself_leaves_none_that_hangs(tmp_path: Path, code: int) -> None:
    ended = run(tmp_path, f"if rank == '0':\n    hang()\nsys.exit({code})")
    assert (ended.returncode, ended.stderr) == (code, "process 1 (of 0 to 1) was told to stop\n")


def test_a_copy_that_cannot_save_is_not_taken_for_one_that_stopped(tmp_path: Path) -> None:
    work = """
try:
    train()
except SystemExit:
    if rank == "0":
        raise
    time.sleep(0.5)  # by then, the other has stopped
    raise UserError("the disk is full.")
"""
    with running(tmp_path, work, "ready0", "ready1") as process:
        process.terminate()
        assert process.wait(PATIENCE) == 2
        assert "error: the disk is full." in process.stderr.read()


def test_who_asks_twice_need_not_wait_for_what_hangs(tmp_path: Path) -> None:
    with running(tmp_path, "hang()", "ready0", "ready1") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert are_gone(tmp_path)


def test_copies_of_a_script_that_is_killed_save_and_end(tmp_path: Path) -> None:
    with running(tmp_path, "train() if rank == '0' else hang()", "ready0", "ready1") as process:
        process.kill()
        wait_for(lambda: are_gone(tmp_path))
    assert (tmp_path / "saved0").read_text() == "SIGTERM"
