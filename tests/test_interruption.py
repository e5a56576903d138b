"""Signals as requests: honoured where the run's state is whole, and a second one at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.programs import PATIENCE
from utils import interruption as module
from utils.interruption import Interrupted, Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_at_its_next_check(number: int, code: int, capfd: pytest.CaptureFixture) -> None:
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as stop:
            interruption.check()
    assert stop.value.code == code
    assert stop.value.signal_name == signal.Signals(number).name
    assert capfd.readouterr().err.count("finishing this step, then saving") == 1


def test_signals_that_come_together_are_one_request(capfd: pytest.CaptureFixture) -> None:
    with Interruption() as interruption:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as stop:
            interruption.check()
    assert stop.value.code == 143
    assert capfd.readouterr().err.count("finishing this step, then saving") == 1


def test_a_later_signal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAME_REQUEST", 0.0)
    with Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            interruption.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


READ_BY_NOBODY = """
import os, signal, sys
from pathlib import Path
from utils.errors import exit_on_user_error
from utils.interruption import Interruption
from utils.logger import RunLogger
with exit_on_user_error(), RunLogger(Path(sys.argv[1])) as logger, Interruption() as interruption:
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        logger.message("a step is finished")
    logger.message("saved")
    interruption.check()
"""


def test_a_run_is_saved_though_the_signal_has_ended_who_reads_along(tmp_path: Path) -> None:
    """Ctrl+C in `python train.py | tee log` ends tee first."""
    command = [sys.executable, "-c", READ_BY_NOBODY, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes) as process:
        process.stdout.close()
        process.stdin.write(b"the reader has gone\n")
        process.stdin.close()
        assert process.wait(PATIENCE) == 130
    assert (tmp_path / "log.txt").read_text().endswith("saved\n")
