"""Checkpoints that were cut off or altered are found and the one before is used; a full disk loses nothing."""

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from utils import checkpoint, tensor_files
from utils.checkpoint import load_checkpoint, load_latest, save_checkpoint, save_latest
from utils.config import load_config
from utils.errors import UserError
from utils.plain_pickles import operations

ROOT = Path(__file__).resolve().parents[2]

PAGE = 4096
"""Bytes by which a tmpfs fills up."""


def content(iteration: int, num_elements: int = 8) -> dict[str, Any]:
    weights = torch.arange(float(num_elements)) + iteration
    return {"mtl-net": {"weight": weights, "bias": weights[:2].clone()}, "iter": iteration, "temp": 4.825}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "latest_model.pth.tar"


@pytest.fixture
def previous(path: Path) -> Path:
    return path.with_name("previous_model.pth.tar")


@pytest.fixture
def whole(path: Path) -> bytes:
    """A checkpoint as it is on disk at `path`, a few kilobytes."""
    save_checkpoint(path, content(2))
    return path.read_bytes()


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def finding(path: Path, damaged: bytes) -> str:
    """The sentence by which a damaged file is refused."""
    path.write_bytes(damaged)
    try:
        load_checkpoint(path)
    except UserError as error:
        return str(error)
    return "nothing was found"


def assert_refused(path: Path, damaged: bytes, damage: str) -> None:
    sentence = finding(path, damaged)
    assert sentence.startswith(f"checkpoint {path} cannot be read"), damage
    assert "\n" not in sentence, damage


# Damage


def test_every_truncation_is_found(path: Path, whole: bytes) -> None:
    for length in range(len(whole)):
        assert_refused(path, whole[:length], f"cut off after {length} of {len(whole)} bytes")


def test_a_flipped_bit_is_found_wherever_it_is(path: Path, whole: bytes) -> None:
    choice = random.Random(88)
    anywhere = [(choice.randrange(len(whole)), choice.randrange(8)) for _ in range(200)]
    in_every_byte = [(position, choice.randrange(8)) for position in range(len(whole))]
    in_the_checksum = [(position, bit) for position in range(len(whole) - 48, len(whole)) for bit in range(8)]
    for position, bit in anywhere + in_every_byte + in_the_checksum:
        assert_refused(path, flipped(whole, position, bit), f"bit {bit} of byte {position}, of {len(whole)}")


def test_bytes_added_are_found(path: Path, whole: bytes) -> None:
    for added in (b"\0", b"\0" * 48, whole):
        assert_refused(path, whole + added, f"{len(added)} bytes more")


def test_the_previous_checkpoint_is_used_where_the_latest_is_damaged(path: Path, previous: Path, whole: bytes) -> None:
    save_latest(path, previous, content(3))
    assert previous.read_bytes() == whole
    newer = path.read_bytes()
    for damaged in (b"", newer[:1000], newer[:-1], newer[:-48], flipped(newer, 500, 3), b"\0" * len(newer)):
        path.write_bytes(damaged)
        loaded, note = load_latest(path, previous)
        assert loaded["iter"] == 2
        assert note.startswith(f"checkpoint {path} cannot be read")
        assert note.endswith(f"; the one before, {previous}, is used instead.")
        assert "damaged" in note


def test_both_damaged_are_both_named(path: Path, previous: Path, whole: bytes) -> None:
    path.write_bytes(whole[:-1])
    previous.write_bytes(whole[1:])
    with pytest.raises(UserError) as error:
        load_latest(path, previous)
    assert str(path) in str(error.value)
    assert str(previous) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_latest_alone_is_named(path: Path, previous: Path, whole: bytes) -> None:
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"latest_model\.pth\.tar cannot be read"):
        load_latest(path, previous)


def test_a_damaged_latest_does_not_replace_a_whole_previous(path: Path, previous: Path, whole: bytes) -> None:
    save_latest(path, previous, content(3))
    for damaged in (path.read_bytes()[:-1], flipped(path.read_bytes(), 700, 0)):
        path.write_bytes(damaged)
        save_latest(path, previous, content(4))
        assert load_checkpoint(path)["iter"] == 4
        assert previous.read_bytes() == whole


# Contents that are too long to be read


@pytest.mark.parametrize("reason", ["too large", "more than 400 operations"])
def test_what_is_longer_than_what_is_read_is_not_written(
    path: Path, previous: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "too large":
        monkeypatch.setattr(tensor_files, "MOST_AT_ONCE", 6000)
    else:
        monkeypatch.setattr(tensor_files, "operations", partial(operations, most=400))
    longest = {"mtl-net": {}, "vocabulary": [f"word {number}" for number in range(180)]}
    save_latest(path, previous, longest)
    assert load_checkpoint(path) == longest
    before = files_of(path.parent)
    for save in (save_only, save_latest):
        with pytest.raises(UserError, match=f"{reason}.*lower dataload.num_words"):
            save(path, previous, {**longest, "vocabulary": [f"word {number}" for number in range(400)]})
        assert files_of(path.parent) == before


def test_the_largest_vocabulary_that_can_be_configured_can_be_saved(path: Path) -> None:
    config = ROOT / "yamls/demo/fdu_mtl.yml"
    num_words = load_config(config, ["dataload.num_words=200000"]).dataload.num_words
    vocabulary = [f"word {number:09}" for number in range(num_words)]
    save_checkpoint(path, {"mtl-net": {}, "vocabulary": vocabulary})
    assert load_checkpoint(path)["vocabulary"] == vocabulary
    with pytest.raises(UserError, match="num_words: expected a whole number of at most 200000"):
        load_config(config, ["dataload.num_words=200001"])


# Kills while a checkpoint is saved


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("renamings", [0, 1])
def test_a_kill_between_renamings_leaves_a_whole_checkpoint(
    path: Path, previous: Path, monkeypatch: pytest.MonkeyPatch, renamings: int
) -> None:
    for iteration in (1, 2):
        save_latest(path, previous, content(iteration))
    left = iter(range(renamings))
    rename = os.replace

    def rename_until_killed(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_until_killed)
    with pytest.raises(Killed):
        save_latest(path, previous, content(3))
    loaded, note = load_latest(path, previous)
    assert loaded["iter"] == 2
    if renamings:
        assert note == f"checkpoint {path} is missing; the one before, {previous}, is used instead."
    else:
        assert note is None
        assert load_checkpoint(previous)["iter"] == 1


def test_the_new_checkpoint_is_on_the_disk_before_the_old_one_moves(
    path: Path, previous: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(path, content(1))
    flush, rename, events = checkpoint.flush_to_disk, os.replace, []

    def noted_flush(flushed: Path) -> None:
        events.append(("flushed", load_checkpoint(flushed)["iter"]))
        flush(flushed)

    def noted_rename(source: Path, target: Path) -> None:
        events.append((target.name, load_checkpoint(source)["iter"]))
        rename(source, target)

    monkeypatch.setattr(checkpoint, "flush_to_disk", noted_flush)
    monkeypatch.setattr(os, "replace", noted_rename)
    save_latest(path, previous, content(2))
    assert events == [("flushed", 2), (previous.name, 1), (path.name, 2)]


# Full disks


@contextmanager
def file_size_limited(num_bytes: int) -> Iterator[None]:
    """Every write beyond this size of a file fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB of its own."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no command to mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def save_only(path: Path, previous: Path, content: dict[str, Any]) -> None:
    save_checkpoint(path, content)


Save = Callable[[Path, Path, dict[str, Any]], None]


@pytest.mark.parametrize("save", [save_only, save_latest])
def test_a_write_that_fails_anywhere_leaves_the_files_as_they_were(path: Path, previous: Path, save: Save) -> None:
    for iteration in (1, 2):
        save_latest(path, previous, content(iteration, 9000))
    before = files_of(path.parent)
    size = path.stat().st_size
    # Next to the end it is the checksum that does not fit, and before it the archive's directory.
    for limit in [0, 1, 100, *range(1000, size, 2500), size - 700, size - 49, size - 48, size - 47, size - 1]:
        with (
            pytest.raises(UserError, match=r"latest_model\.pth\.tar: cannot be written") as error,
            file_size_limited(limit),
        ):
            save(path, previous, content(3, 9000))
        assert "expected a folder with room" in str(error.value)
        assert files_of(path.parent) == before, limit
    with file_size_limited(size):
        save(path, previous, content(3, 9000))
    assert load_checkpoint(path)["iter"] == 3


@pytest.mark.parametrize("save", [save_only, save_latest])
def test_a_disk_that_fills_up_anywhere_loses_nothing(small_disk: Path, save: Save) -> None:
    path, previous, ballast = (small_disk / name for name in ("latest.pth.tar", "previous.pth.tar", "ballast"))
    for iteration in (1, 2):
        save_latest(path, previous, content(iteration, 9000))
    before = files_of(small_disk)
    num_pages = -(-path.stat().st_size // PAGE)
    for num_free in range(num_pages):
        fill_up(ballast, num_free)
        with pytest.raises(UserError, match="No space left on device"):
            save(path, previous, content(3, 9000))
        ballast.unlink()
        assert files_of(small_disk) == before, num_free
    fill_up(ballast, num_pages)
    save(path, previous, content(3, 9000))
    assert load_checkpoint(path)["iter"] == 3


def fill_up(ballast: Path, num_free: int) -> None:
    """Write a file that leaves this many pages of its disk free."""
    free = os.statvfs(ballast.parent)
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize - num_free * PAGE))
