"""Runs that are killed at any moment and gone on with: what they leave is what an undisturbed run leaves."""

import random
import shutil
import signal
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tests.faults.script_server import ScriptServer
from tests.faults.small_scripts import SCRIPTS, TRAININGS, assert_alike, checkpoint_folder, run, seconds_of
from utils.checkpoint import load_latest

PLACES = {"start", "warm-up", "policy", "retraining"}
ENOUGH_KILLS, MOST_KILLS = 60, 240


def place_of_kill(folder: Path) -> str:
    """Where a run was when it was killed: the phase that it had saved, and whether it was saving."""
    files = checkpoint_folder(folder)
    saving = "saving in " if list(files.glob(".*.tmp")) else ""
    for prefix in reversed([*TRAININGS["train.py"], *TRAININGS["re-train.py"]]):
        latest, previous = (files / f"{prefix}{label}_model.pth.tar" for label in ("latest", "previous"))
        if latest.exists() or previous.exists():
            return saving + load_latest(latest, previous)[0]["phase"]
    return f"{saving}start"


def run_with_kills(
    server: ScriptServer, folder: Path, rooms: Path, draw: random.Random, longest: float, workers: int
) -> Counter[str]:
    """Run both scripts to their end, killing them after random times, early more often; where the kills hit."""
    hits: Counter[str] = Counter()
    for script in SCRIPTS:
        status = 1
        while status:
            by = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            after = longest * draw.random() ** 2  # a run's start is short
            status = run(server, script, folder, rooms, workers=workers, killed_after=after, by=by)
            output = (folder / "output.txt").read_text()
            assert status in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), output
            hits[place_of_kill(folder)] += status != 0
    return hits


def test_a_run_that_is_killed_at_random_leaves_what_an_undisturbed_one_leaves(
    server: ScriptServer, trained: Path, straight: Path, rooms: Path, tmp_path: Path
) -> None:
    hits = run_with_kills(server, tmp_path, rooms, random.Random(0), seconds_of(trained), workers=0)
    assert hits.total() > 0
    for script in SCRIPTS:
        assert_alike(script, tmp_path, straight)


@pytest.mark.parametrize("dies_at", [3, 20, 41, 60])
def test_a_run_that_dies_while_it_saves_leaves_what_an_undisturbed_one_leaves(
    server: ScriptServer, trained: Path, rooms: Path, tmp_path: Path, dies_at: int
) -> None:
    assert run(server, "train.py", tmp_path, rooms, dies_at=dies_at) == -signal.SIGKILL
    assert run(server, "train.py", tmp_path, rooms) == 0
    assert_alike("train.py", tmp_path, trained)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1])
def test_dozens_of_kills_at_random(
    server: ScriptServer, trained: Path, straight: Path, rooms: Path, tmp_path: Path, workers: int
) -> None:
    """Run after run, until they have hit everywhere; prints where."""
    draw, hits, numbers = random.Random(workers), Counter(), count()
    while hits.total() < ENOUGH_KILLS or not {place.removeprefix("saving in ") for place in hits} >= PLACES:
        assert hits.total() < MOST_KILLS, hits
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        hits += run_with_kills(server, folder, rooms, draw, seconds_of(trained), workers)
        for script in SCRIPTS:
            assert_alike(script, folder, straight)
    print(f"\n{workers} workers: {hits.total()} kills, {dict(hits)}")


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS)
def test_kills_before_every_flush_and_rename(
    server: ScriptServer, trained: Path, straight: Path, rooms: Path, tmp_path: Path, script: str
) -> None:
    """Each of a run's flushes and renames is the last thing that a run tries; prints how many there are."""
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        shutil.copytree(trained, folder) if script == "re-train.py" else folder.mkdir()
        if run(server, script, folder, rooms, dies_at=deaths + 1) == 0:
            break
        deaths += 1
        assert run(server, script, folder, rooms) == 0
        assert_alike(script, folder, straight)
        shutil.rmtree(folder)
    print(f"\n{script}: killed before each of {deaths} flushes and renames")
    assert deaths > 50
