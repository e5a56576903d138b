"""Two runs in one folder: the second is refused while the first lives, and not a moment longer."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.run_lock import locked

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from utils.run_lock import locked
with locked([Path(sys.argv[1])], "run", shared=sys.argv[2] == "shared"):
    if sys.argv[3] == "with a child":
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
    print("locked", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path, shared: bool = False, with_a_child: bool = False) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock."""
    words = ["shared" if shared else "alone", "with a child" if with_a_child else ""]
    command = [sys.executable, "-c", HOLDER, str(folder), *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_second_run_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        said = rf"in use by another run \(process {process.pid} on .*, since 2"
        for shared in (False, True):
            with pytest.raises(UserError, match=said), locked([tmp_path], "run", shared=shared, patience=0):
                pass


def test_a_killed_run_leaves_no_lock_even_where_its_children_live_on(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, with_a_child=True) as process:
        process.kill()
        process.wait()
        with locked([tmp_path], "run"):
            pass


def test_who_is_patient_gets_the_lock_of_one_that_ends_soon(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        with pytest.raises(UserError, match="in use"), locked([tmp_path], "run", patience=0):
            pass
        threading.Timer(0.3, process.kill).start()
        with locked([tmp_path], "run", patience=30):
            process.wait()


def test_runs_that_share_hinder_only_those_that_do_not(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, shared=True):
        with locked([tmp_path], "run", shared=True), locked([tmp_path], "another"):
            pass
        with pytest.raises(UserError, match="in use"), locked([tmp_path], "another", "run", patience=0):
            pass


def test_folders_that_are_the_same_are_locked_once(tmp_path: Path) -> None:
    with locked([tmp_path, tmp_path / "." / "", tmp_path], "run"):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), "alone", ""]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "is in use by another run" in second.stderr
