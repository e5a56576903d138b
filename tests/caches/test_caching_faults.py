"""The cache of decoded samples where several processes want it, where files are bad and where the machine fails."""

import errno
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dataloaders import caching, nyu_v2
from dataloaders.caching import Cache
from dataloaders.nyu_v2 import NYUv2
from dataloaders.packed import PackedSamples
from dataloaders.transforms import Sample
from tests.caches.test_caching import SIZE_OF_A_FRAME
from tests.caches.test_packed import assert_alike, files_in
from tests.test_nyu_v2 import write_split_file
from utils import run_lock
from utils.errors import UserError
from utils.faults import explanation

TARGETS = ("seg", "normal", "depth")


# Who writes


def open_elsewhere(root: Path, cache: Path, log: Path, together: Barrier, waiting: Barrier, is_first: bool) -> None:
    """In a process of its own: open a cache when the others do, and note down every image that is decoded for it.

    Nothing is decoded before the two others have said that they wait.
    """
    run_lock.is_first_process = lambda: is_first
    read_image, decode, tell_waiting = nyu_v2.READERS["img"], caching.decode, caching.tell_waiting

    def read_and_note(path: Path) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{path.stem}\n")
        return read_image(path)

    def decode_when_others_wait(*arguments: Any) -> PackedSamples:
        waiting.wait(60)
        return decode(*arguments)

    def tell_and_wait(*arguments: Any) -> None:
        tell_waiting(*arguments)
        waiting.wait(60)

    nyu_v2.READERS["img"], caching.decode, caching.tell_waiting = read_and_note, decode_when_others_wait, tell_and_wait
    said = StringIO()
    together.wait()
    with redirect_stdout(said):
        assert NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()[(0, 0)]["name"] == "d"
    with log.with_suffix(".said").open("a") as file:
        file.write(said.getvalue())


# A cache may be on a disk of its machine alone, where processes of the same run make it that are not the first.
@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_processes_one_decodes_and_the_others_say_whom_they_wait_for(
    root: Path, cache: Path, tmp_path: Path, is_first: bool
) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    arguments = (root, cache, log, context.Barrier(3), context.Barrier(3), is_first)
    processes = [context.Process(target=open_elsewhere, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == list("abcd")
    pids = "|".join(str(process.pid) for process in processes)
    waiting = rf"waiting for process ({pids}) on \S+, since .*, which is decoding the samples of {cache}/.*\n"
    assert re.fullmatch(f"({waiting}){{2}}", log.with_suffix(".said").read_text())


def test_what_a_killed_process_left_is_removed(root: Path, cache: Path) -> None:
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    (arrays,), (index,) = cache.glob("*/*.bin"), cache.glob("*/*.json")
    unfinished = index.with_name(f".{'0' * 32}.tmp")
    arrays.rename(unfinished)
    index.unlink()
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    assert files_in(cache) == [arrays.name, index.name]


# What goes wrong


def test_a_bad_file_is_told_in_its_own_sentence_and_nothing_is_kept(root: Path, cache: Path) -> None:
    (root / "img" / "c.png").write_bytes(b"text")
    with pytest.raises(
        UserError, match=r"img/c\.png is not a whole image \(of PNG, JPEG, BMP or TIFF\): replace the file"
    ):
        NYUv2(root, "train1", TARGETS, cache=Cache(cache)).decoded()
    assert files_in(cache) == []
    assert NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()[(0, 0)]["name"] == "e"


def test_a_frame_that_a_related_split_lacks_is_named(root: Path, cache: Path) -> None:
    rows = json.loads((root / nyu_v2.SPLIT_FILE).read_text())
    write_split_file(root, rows | {"train1": rows["train"][1:], "train2": rows["train"][:1]})
    (root / rows["train"][0][1]).unlink()
    assert len(NYUv2(root, "train1", TARGETS)) == 3
    with pytest.raises(UserError, match=r"seg/d\.png cannot be read .*No such file.*: put it there, or correct"):
        NYUv2(root, "train1", TARGETS, cache=Cache(cache)).decoded()


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, samples: Iterable[Sample]) -> None:
        path.write_bytes(next(iter(samples))["img"])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(caching, "write_arrays", fill)
        with pytest.raises(
            UserError, match=rf"^{re.escape(str(cache))}.*cannot be written \(No space left on device\)"
        ):
            NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    assert files_in(cache) == []
    assert_alike(NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded(), NYUv2(root, "test", TARGETS))


def test_a_disk_that_is_too_small_is_told_before_much_is_decoded(
    root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Path) -> SimpleNamespace:
        assert path.parent == cache
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(caching, "TYPICAL_SAMPLES", 1)
    monkeypatch.setattr(caching, "MOST_THREADS", 1)
    free = 4 * SIZE_OF_A_FRAME - 1
    with pytest.raises(
        UserError,
        match=r"^dataload\.cache: .* needs about 0 MB for 4 decoded samples, but its disk has 0 MB left",
    ):
        NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()
    assert len(decoded) < 4
    assert files_in(cache) == []
    free += 1
    NYUv2(root, "train", TARGETS, cache=Cache(cache)).decoded()


def test_what_cannot_be_kept_is_told_before_much_is_decoded(
    root: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Named(NYUv2):
        def read(self, frame: dict[str, Path]) -> Sample:
            return super().read(frame) | {"scene": np.array("kitchen")}

    monkeypatch.setattr(caching, "MOST_THREADS", 1)
    with pytest.raises(UserError, match="'scene' of a decoded sample is an array"):
        Named(root, "train", TARGETS, cache=Cache(cache)).decoded()
    assert len(decoded) < 4
    assert files_in(cache) == []


@pytest.mark.parametrize(("number", "is_explained"), [(errno.EMFILE, True), (errno.ESTALE, False)])
def test_what_goes_wrong_with_the_files_of_a_data_set_is_not_blamed_on_the_cache(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_explained: bool
) -> None:
    def fail(path: Path) -> np.ndarray:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setitem(nyu_v2.READERS, "seg", fail)
    with pytest.raises(OSError, match=r"seg/e\.png") as raised:
        NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    assert raised.value.errno == number
    assert (explanation(raised.value) is not None) == is_explained
    assert files_in(cache) == []


def test_a_fault_of_the_machine_is_left_to_those_who_explain_it(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    monkeypatch.setattr(caching, "read_bounded", fail)
    with pytest.raises(OSError, match="Too many open files"):
        NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()


def test_a_place_where_no_folder_can_be_is_named(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\).* --set dataload\.cache$"):
            NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    cache.parent.write_text("a file")
    with pytest.raises(UserError, match=r"^dataload\.cache: .* cannot be read \(Not a directory\): give another"):
        NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()


def test_a_whole_cache_needs_no_right_to_write(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    monkeypatch.setattr(caching, "make_folder", lambda *_: pytest.fail("asked to write"))
    NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
    shutil.rmtree(cache)
    with pytest.raises(pytest.fail.Exception):
        NYUv2(root, "test", TARGETS, cache=Cache(cache)).decoded()
