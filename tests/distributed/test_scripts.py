"""The scripts as two processes: they leave what one leaves, and end together, whatever ends them."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.pairs import PATIENCE, Pair
from tests.script_runs import FOLDERS, ROOT, SMALL, TWO_TASKS, Script, json_lines, read
from utils.checkpoint import load_checkpoint

SHORT = ("train.total_iters=6", "train.policy_lr=0.001")
LONG = ("train.total_iters=10000", "train.val_freq=10000")


def command(script: str, folder: Path, rooms: Path, *arguments: str, values: tuple[str, ...] = ()) -> list[str]:
    """A script's command line, as the fixture `script` has it."""
    folders = [f"paths.{name}={folder / name}" for name in FOLDERS]
    overrides = [*SMALL, *folders, f"dataload.dataroot={rooms}", *values]
    return [script, "--config", str(TWO_TASKS), "--gpus", "-1", *arguments, "--set", *overrides]


def metrics(folder: Path) -> Path:
    """What a run has logged."""
    return folder / "log_dir" / "nyu_v2_2task" / "metrics.jsonl"


def outputs(folder: Path) -> list[Path]:
    """Where the two processes say what they say."""
    return [folder / "first.txt", folder / "second.txt"]


def said(folder: Path) -> str:
    """By both."""
    return "".join(path.read_text() for path in outputs(folder))


def latest(folder: Path) -> dict[str, Any]:
    """The checkpoint that a run goes on from."""
    return load_checkpoint(folder / "checkpoint_dir" / "nyu_v2_2task" / "latest_model.pth.tar")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, rooms: Path) -> Path:
    """What train.py leaves, by one process."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command("train.py", folder, rooms, values=SHORT))
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return folder


@pytest.fixture
def trained(alone: Path, tmp_path: Path) -> Path:
    """A copy of it, below `tmp_path`, where scripts go on from it."""
    return shutil.copytree(alone, tmp_path, dirs_exist_ok=True)


# What they leave


def test_train_leaves_the_same_metrics(alone: Path, tmp_path: Path, rooms: Path) -> None:
    """By the launcher, from a new Python."""
    arguments = command("train.py", tmp_path, rooms, "--processes", "2", values=SHORT)
    launched = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (launched.returncode, launched.stderr) == (0, "")
    assert "2 processes share the batches" in launched.stdout
    assert launched.stdout.rstrip().endswith("--processes 2"), "as the next command has it"
    lines, expected = json_lines(metrics(tmp_path)), json_lines(metrics(alone))
    assert len(lines) == len(expected)
    for line, expected_line in zip(lines, expected, strict=True):
        assert without_nothing(line) == pytest.approx(without_nothing(expected_line), rel=1e-4)
    policy = Path("result_dir") / "nyu_v2_2task" / "policy.json"
    assert read(tmp_path / policy)["iteration"] == read(alone / policy)["iteration"]


def without_nothing(line: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a line."""
    return {name: value for name, value in line.items() if isinstance(value, (int, float))}


@pytest.mark.usefixtures("trained")
def test_retrain_and_test_leave_the_same_results(script: Script, pair: Pair, tmp_path: Path, rooms: Path) -> None:
    """Three test frames: one process has two of them."""
    folder = tmp_path / "result_dir" / "nyu_v2_2task"
    script("re-train.py", "--exp_ids", "0")
    script("test.py", "--constant")
    alone = results(folder)
    retrain = command("re-train.py", tmp_path, rooms, "--exp_ids", "0", "--overwrite")
    assert pair.run_script(retrain, outputs(tmp_path)) == [0, 0]
    assert said(tmp_path).count("retrain.json") == 1
    test = command("test.py", tmp_path, rooms, "--constant")
    assert pair.run_script(test, outputs(tmp_path)) == [0, 0]
    assert said(tmp_path).count("3 inputs") == 1
    together = results(folder)
    assert together.keys() == alone.keys()
    assert together == pytest.approx(alone, rel=1e-4)


def results(folder: Path) -> dict[str, float]:
    """All numbers in the results of retraining and testing, times left out; and the pictures. Removes them."""
    numbers = {path.name: 1.0 for path in (folder / "pictures").iterdir()}
    files = ["retrain000.json", "retrain.json", "test_rs0088.json"]
    for file in files:
        numbers |= numbers_in(read(folder / file), file)
    for path in [*(folder / file for file in files), *(folder / "pictures").iterdir()]:
        path.unlink()
    return numbers


def numbers_in(value: Any, name: str) -> dict[str, float]:
    """Name of the place -> number, at any depth."""
    if isinstance(value, dict):
        parts = [numbers_in(part, f"{name}/{key}") for key, part in value.items() if key != "seconds"]
    elif isinstance(value, list):
        parts = [numbers_in(part, f"{name}/{index}") for index, part in enumerate(value)]
    else:
        return {name: value} if isinstance(value, (int, float)) else {}
    return {key: number for part in parts for key, number in part.items()}


# How they end


def test_batches_that_cannot_be_divided_are_refused_before_anything_is_lost(
    pair: Pair, trained: Path, rooms: Path
) -> None:
    arguments = command("train.py", trained, rooms, "--overwrite", values=("train.batch_size=3",))
    assert pair.run_script(arguments, outputs(trained)) == [2, 2]
    assert said(trained).count("error: split 'train' has batches of 3 samples, which cannot be shared equally") == 1
    assert latest(trained)["iter"] == 6


def test_what_is_wrong_for_all_is_said_once(pair: Pair, tmp_path: Path, rooms: Path) -> None:
    arguments = command("train.py", tmp_path, rooms, values=("train.batch_sizes=4",))
    assert pair.run_script(arguments, outputs(tmp_path)) == [2, 2]
    assert said(tmp_path).count("did you mean train.batch_size?") == 1


def test_a_bad_sample_of_one_ends_both_and_is_named_once(
    pair: Pair, tmp_path: Path, rooms: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = tmp_path_factory.mktemp("damaged")
    for path in rooms.rglob("*.*"):
        (damaged / path.relative_to(rooms)).parent.mkdir(exist_ok=True)
        os.link(path, damaged / path.relative_to(rooms))
    (victim,) = damaged.glob("img/0000005.png")
    victim.unlink()
    victim.write_text("no picture")
    assert pair.run_script(command("train.py", tmp_path, damaged), outputs(tmp_path)) == [2, 2]
    assert len(re.findall("^error: ", said(tmp_path), re.MULTILINE)) == 1
    assert f"error: {victim} is not a whole image" in said(tmp_path)


def end_second(number: int, log: Path) -> None:
    """Send the second process a signal, once some steps have been logged."""

    def watch() -> None:
        while not log.exists() or log.read_bytes().count(b"\n") < 8:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    if os.environ["RANK"] == "1":
        threading.Thread(target=watch, daemon=True).start()


def test_when_one_is_killed_the_other_ends_and_says_so(pair: Pair, tmp_path: Path, rooms: Path) -> None:
    arguments = command("train.py", tmp_path, rooms, values=LONG)
    kill = partial(end_second, signal.SIGKILL, metrics(tmp_path))
    assert pair.run_script(arguments, outputs(tmp_path), kill) == [2, -signal.SIGKILL]
    assert said(tmp_path).count("error: another process of this run has ended") == 1


def test_what_one_is_asked_for_both_do_after_the_same_step(pair: Pair, tmp_path: Path, rooms: Path) -> None:
    """Amid steps that may leave blocks out, or not: neither is complained of."""
    arguments = command("train.py", tmp_path, rooms, values=(*LONG, "train.hard_sampling=True"))
    stop = partial(end_second, signal.SIGTERM, metrics(tmp_path))
    assert pair.run_script(arguments, outputs(tmp_path), stop) == [143, 143]
    assert "Warning" not in said(tmp_path)
    (iteration,) = re.findall(r"stopped by SIGTERM after iteration (\d+), saved", said(tmp_path))
    assert latest(tmp_path)["iter"] == int(iteration)
    steps = [line for line in json_lines(metrics(tmp_path)) if line["kind"] in ("weights", "policy")]
    assert steps[-1]["iteration"] == int(iteration)
