"""A server of scripts, small data, and what undisturbed runs of train.py and re-train.py leave."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataloaders.rendered import write_nyu_v2
from tests.faults.script_server import ScriptServer
from tests.faults.small_scripts import SECONDS, run


@pytest.fixture(scope="session")
def server() -> Iterator[ScriptServer]:
    with ScriptServer() as server:
        yield server


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test frames of rendered rooms, 48x64."""
    folder = tmp_path_factory.mktemp("rooms")
    write_nyu_v2(folder, {"train": 6, "test": 2}, height=48, width=64, seed=5)
    return folder


@pytest.fixture(scope="session")
def trained(server: ScriptServer, rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What train.py leaves."""
    folder = tmp_path_factory.mktemp("trained")
    begun = time.monotonic()
    assert run(server, "train.py", folder, rooms) == 0, (folder / "output.txt").read_text()
    (folder / SECONDS).write_text(str(time.monotonic() - begun))
    return folder


@pytest.fixture(scope="session")
def straight(server: ScriptServer, rooms: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both scripts leave."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    shutil.copytree(trained, folder)
    assert run(server, "re-train.py", folder, rooms) == 0, (folder / "output.txt").read_text()
    return folder
