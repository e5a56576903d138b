"""Runs that do not need each other: one at a time on each GPU, whatever becomes of the others, until a signal comes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.programs import PATIENCE, ROOT, wait_for
from utils.children import TAIL_BYTES, last_words

SCRIPT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from utils import children, interruption
from utils.children import end_with_parent
from utils.errors import exit_on_user_error
from utils.launching import run_side_by_side

interruption.SAME_REQUEST, children.GRACE = 0.3, 0.3
children.num_cores = lambda: 12
folder = Path(__file__).parent

def tell(what):
    with (folder / "told").open("a") as file:
        file.write(f"{what}\\n")

def told(what):
    return (folder / "told").exists() and what in (folder / "told").read_text()

def meet(what):
    while not told(what):
        time.sleep(0.01)

def train():
    "Until a signal comes; as re-train.py, it then saves."
    def save(number, frame):
        tell(f"{name} saved at {signal.Signals(number).name}")
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, save)
    tell(f"{name} trains")
    time.sleep(600)

with exit_on_user_error():
    end_with_parent()
    if len(sys.argv) == 1:
        names = NAMES
        runs = {f"run {name}": partial(lambda name, gpu: [name, str(gpu)], name) for name in names}
        codes = run_side_by_side(runs, GPUS)
        print(dict(sorted(codes.items())))
        sys.exit(max(codes.values(), default=0))
    name, gpu = sys.argv[1:]
    tell(f"{name} begins on {gpu}")
WORK
    tell(f"{name} ends on {gpu}")
"""


def write_script(folder: Path, work: str, names: str, gpus: list[int]) -> list[str]:
    """Write a script whose runs, one for each name, do some work; returns its command."""
    lines = "".join(f"    {line}\n" for line in work.strip().splitlines())
    path = folder / "script.py"
    path.write_text(SCRIPT.replace("NAMES", repr(names)).replace("GPUS", repr(gpus)).replace("WORK\n", lines))
    return [sys.executable, str(path)]


def environment(**values: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return {**own, "PYTHONPATH": str(ROOT), **values}


def run(folder: Path, work: str, names: str, gpus: list[int], **values: str) -> subprocess.CompletedProcess:
    """Run such a script to its end."""
    command = write_script(folder, work, names, gpus)
    return subprocess.run(command, env=environment(**values), capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def running(folder: Path, work: str, names: str, *told: str) -> Iterator[subprocess.Popen]:
    """Such a script, two runs at once, in a group of its own, once its runs have told so much."""
    command = write_script(folder, work, names, [-1, -1])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), start_new_session=True, text=True, **pipes) as process:
        try:
            wait_for(lambda: set(told) <= set(told_in(folder)))
            yield process
        finally:
            process.kill()


def told_in(folder: Path) -> list[str]:
    """What the runs have told so far, in that order."""
    path = folder / "told"
    return path.read_text().splitlines() if path.exists() else []


def test_each_gpu_has_one_run_at_a_time_and_none_is_idle(tmp_path: Path) -> None:
    """The first two can only end together; then each GPU takes the next that waits."""
    ended = run(tmp_path, 'if name in "ab":\n    meet("a begins")\n    meet("b begins")', "abcde", [4, 7])
    assert ended.returncode == 0, ended.stderr
    told = told_in(tmp_path)
    assert sorted(line for line in told if "begins" in line)[:2] == ["a begins on 4", "b begins on 7"]
    for gpu in ("4", "7"):
        on_gpu = [line.split() for line in told if line.endswith(f"on {gpu}")]
        assert [event for _, event, *_ in on_gpu] == ["begins", "ends"] * (len(on_gpu) // 2)
        assert all(begun[0] == ended[0] for begun, ended in zip(on_gpu[::2], on_gpu[1::2], strict=True))
    assert len([line for line in told if line.endswith(("on 4", "on 7"))]) == 10
    lines = ended.stdout.splitlines()
    assert "run b: begins on GPU 7" in lines
    assert [line for line in lines if "(5 of 5 done)" in line] == lines[-2:-1]


@pytest.mark.parametrize(("given", "expected"), [({}, 6), ({"OMP_NUM_THREADS": "5"}, 5)])
def test_runs_share_the_cores(tmp_path: Path, given: dict[str, str], expected: int) -> None:
    run(tmp_path, "tell(os.environ['OMP_NUM_THREADS'])", "ab", [-1] * 3, **given)
    assert told_in(tmp_path).count(str(expected)) == 2


def test_what_fails_is_told_with_its_last_words_and_the_others_go_on(tmp_path: Path) -> None:
    work = """
if name == "b":
    print(*(f"line {number}" for number in range(50)), sep=chr(10), flush=True)
    sys.exit("what is wrong")
if name == "c":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = run(tmp_path, work, "abcd", [-1])
    assert ended.returncode == 128 + signal.SIGKILL
    assert "{'run a': 0, 'run b': 1, 'run c': 137, 'run d': 0}" in ended.stdout
    failed = ended.stdout[ended.stdout.index("run b: failed with exit code 1") : ended.stdout.index("run c: begins")]
    words = [f"    line {number}" for number in range(31, 50)]
    assert failed.splitlines()[1:] == [*words, "    what is wrong"]
    assert "run c: was ended by SIGKILL, as the system does for want of memory after 0:00:0" in ended.stdout
    assert "    (nothing)" in ended.stdout
    assert "(2 of 4 done)" in ended.stdout.splitlines()[-2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_what_runs_and_what_waits(tmp_path: Path, number: int, code: int) -> None:
    with running(tmp_path, "train()", "abc", "a trains", "b trains") as process:
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE) == code
        said = process.stdout.read()
    name = signal.Signals(number).name
    assert sorted(told_in(tmp_path)[4:]) == [f"a saved at {name}", f"b saved at {name}"]
    assert said.count(f"{name}: what runs finishes its step") == 1
    assert "run b: stopped after" in said
    assert "run c" not in said
    assert "{" not in said, "what was to come after all runs does not come"


def test_who_asks_twice_need_not_wait_for_what_hangs(tmp_path: Path) -> None:
    work = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntell(f'{name} hangs')\ntime.sleep(600)"
    with running(tmp_path, work, "ab", "a hangs", "b hangs") as process:
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(PATIENCE) == 143


def test_what_runs_is_saved_though_the_reader_has_gone(tmp_path: Path) -> None:
    """Ctrl+C in `python re-train.py --parallel | tee log` ends tee first."""
    with running(tmp_path, "train()", "ab", "a trains", "b trains") as process:
        process.stdout.close()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert sorted(told_in(tmp_path)[4:]) == ["a saved at SIGINT", "b saved at SIGINT"]


def test_a_signal_that_comes_when_all_is_nearly_done_loses_nothing(tmp_path: Path) -> None:
    work = "signal.signal(signal.SIGTERM, lambda *_: tell('heard'))\ntell(f'{name} ready')\nmeet('heard')"
    with running(tmp_path, work, "ab", "a ready", "b ready") as process:
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert "{'run a': 0, 'run b': 0}" in process.stdout.read()


def test_nothing_to_run_is_no_fault(tmp_path: Path) -> None:
    ended = run(tmp_path, "pass", "", [0])
    assert (ended.returncode, ended.stdout) == (0, "{}\n")


def test_last_words_are_short_whatever_was_said() -> None:
    with tempfile.TemporaryFile() as output:
        output.write(b"x" * 10 * TAIL_BYTES + b"\n\xff broken\n\n")
        output.flush()
        words = last_words(output)
    assert len(words) < 2 * TAIL_BYTES
    assert words.endswith("\n    \N{REPLACEMENT CHARACTER} broken")
