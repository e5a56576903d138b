"""One thread, as small tensors are computed fastest; small data, and the scripts run on it in this process."""

import signal
from pathlib import Path

import pytest
import torch

from dataloaders.rendered import write_nyu_v2
from tests.script_runs import TWO_TASKS, Script, run_script

torch.set_num_threads(1)

# What a shell starts in the background ignores Ctrl+C, and so would all that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and three test frames of rendered rooms, 48x64."""
    folder = tmp_path_factory.mktemp("rooms")
    write_nyu_v2(folder, {"train": 8, "test": 3}, height=48, width=64, seed=5)
    return folder


@pytest.fixture
def script(tmp_path: Path, rooms: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Script:
    """Run a script in this process, on small rendered data, writing below `tmp_path`; returns what it printed."""

    def run(name: str, *arguments: str, config: Path = TWO_TASKS, values: tuple[str, ...] = ()) -> str:
        values = (f"dataload.dataroot={rooms}", *values)
        options = {"config": config, "folder": tmp_path, "values": values}
        return run_script(name, *arguments, **options, monkeypatch=monkeypatch, capfd=capfd)

    return run
