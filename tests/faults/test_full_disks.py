"""Disks that fill up: one sentence, older files untouched, and a run that goes on once there is room."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.script_server import ScriptServer
from tests.faults.small_scripts import SCRIPTS, assert_alike, checkpoint_folder, run
from utils.checkpoint import load_checkpoint


def check_refusal(folder: Path, output: Path, status: int) -> None:
    """The run ended with one sentence about the disk, and every file with a name is whole."""
    said = output.read_text()
    assert status == 2, said
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("error: "), said
    assert "No space left on device" in last or "disk" in last, said
    assert "Traceback" not in said
    for path in checkpoint_folder(folder).glob("*.pth.tar"):
        load_checkpoint(path)


def run_on_full_disk(
    server: ScriptServer, script: str, folder: Path, rooms: Path, straight: Path, disk_full_at: int
) -> bool:
    """Tell a run at one of its flushes and renames that the disk is full, then go on; False if it ended before."""
    output = folder / "output.txt"
    status = run(server, script, folder, rooms, disk_full_at=disk_full_at)
    if status == 0:
        return False
    check_refusal(folder, output, status)
    assert not list(checkpoint_folder(folder).glob(".*.tmp"))
    assert run(server, script, folder, rooms) == 0
    assert_alike(script, folder, straight)
    return True


@pytest.mark.parametrize("disk_full_at", [2, 15, 44])
def test_a_full_disk_ends_a_run_that_can_go_on(
    server: ScriptServer, trained: Path, rooms: Path, tmp_path: Path, disk_full_at: int
) -> None:
    assert run_on_full_disk(server, "train.py", tmp_path, rooms, trained, disk_full_at)


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_disk_that_is_full_at_any_flush_or_rename(
    server: ScriptServer, trained: Path, straight: Path, rooms: Path, tmp_path: Path, script: str
) -> None:
    """Prints at how many."""
    faults = 0
    while True:
        folder = tmp_path / str(faults)
        shutil.copytree(trained, folder) if script == "re-train.py" else folder.mkdir()
        if not run_on_full_disk(server, script, folder, rooms, straight, faults + 1):
            break
        faults += 1
        shutil.rmtree(folder)
    print(f"\n{script}: disk full at each of {faults} flushes and renames")
    assert faults > 50


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes; skips the test where none may be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def make_room(folder: Path, size: int) -> None:
    """Make a mounted file system larger."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def run_on_small_disk(
    server: ScriptServer, folder: Path, output: Path, rooms: Path, straight: Path, size: int
) -> list[str]:
    """Run both scripts on a disk of so many bytes, which grows whenever it is full; which scripts met its end."""
    full = []
    with small_disk(folder, size):
        for script in SCRIPTS:
            while status := run(server, script, folder, rooms, output=output):
                check_refusal(folder, output, status)
                full.append(script)
                size = int(size * 1.2) + 20_000
                make_room(folder, size)
            assert_alike(script, folder, straight)
    return full


def test_a_disk_that_grows_bit_by_bit(server: ScriptServer, straight: Path, rooms: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    full = run_on_small_disk(server, tmp_path / "disk", tmp_path / "output.txt", rooms, straight, 1_000_000)
    assert set(full) == set(SCRIPTS)


@pytest.mark.faults
def test_disks_of_all_sizes(server: ScriptServer, straight: Path, rooms: Path, tmp_path: Path) -> None:
    """Prints how often a disk was full."""
    draw, full = random.Random(0), []
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        size = draw.randrange(30_000, 3_000_000)
        full += run_on_small_disk(server, folder, tmp_path / f"{number}.txt", rooms, straight, size)
    print(f"\n{len(full)} full disks: {full.count('train.py')} in train.py, {full.count('re-train.py')} in re-train.py")
    assert set(full) == set(SCRIPTS)
