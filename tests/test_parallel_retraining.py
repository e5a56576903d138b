"""`re-train.py --parallel`: what its processes leave together is what one process leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.programs import PATIENCE, wait_for
from tests.faults.small_scripts import without_seconds
from tests.script_runs import FOLDERS, ROOT, SMALL, TWO_TASKS, Script, read
from tests.small_runs import same
from utils.checkpoint import load_checkpoint

FOLDER = "nyu_v2_2task"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in this process, for results that are equal to the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def left(folder: Path) -> dict[str, Any]:
    """All that counts of what the retrainings of architectures 0 and 1 left."""
    checkpoints = folder / "checkpoint_dir" / FOLDER
    names = [f"retrain00{exp_id}_policyIterbest_{label}" for exp_id in (0, 1) for label in ("latest", "best")]
    metrics = [folder / "log_dir" / FOLDER / f"retrain00{exp_id}" / "metrics.jsonl" for exp_id in (0, 1)]
    return {
        **{name: load_checkpoint(checkpoints / f"{name}_model.pth.tar") for name in names},
        "metrics": [path.read_text() for path in metrics],
        "retrain.json": without_seconds(read(folder / "result_dir" / FOLDER / "retrain.json")),
    }


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [name for name in expected if not same(found[name], expected[name])]


def test_retraining_in_parallel_leaves_what_one_process_leaves(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0..1")
    straight = left(tmp_path)

    # What is wrong is found before any process is started: here, that nothing was said about the earlier run.
    with pytest.raises(SystemExit) as stop:
        script("re-train.py", "--exp_ids", "0..1", "--parallel", "2")
    refused = capfd.readouterr()
    assert stop.value.code == 2
    assert "add --resume to go on with it or --overwrite" in refused.err
    assert "begins" not in refused.out
    assert differing(left(tmp_path), straight) == []

    output = script("re-train.py", "--exp_ids", "0..1", "--parallel", "2", "--overwrite")
    assert output.startswith("device: CPU, ")
    for name in ("architecture 0, seed 88", "architecture 1, seed 45"):
        assert f"{name}: begins on the CPU" in output
        assert f"{name}: done after " in output
    assert output.count("1 (best)") + output.count("0 (best)") == 1
    assert "next     python test.py" in output
    assert differing(left(tmp_path), straight) == []


@pytest.mark.faults
def test_one_that_fails_does_not_stop_the_other_and_is_gone_on_with(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0..1")
    straight = left(tmp_path)
    log = tmp_path / "log_dir" / FOLDER / "retrain001"
    log.rename(tmp_path / "elsewhere")
    log.write_text("a file in the place of a folder")
    with pytest.raises(SystemExit) as stop:
        script("re-train.py", "--exp_ids", "0..1", "--parallel", "2", "--overwrite")
    failed = capfd.readouterr()
    assert stop.value.code == 2
    assert "device: CPU, " in failed.out
    assert "architecture 1, seed 45: failed with exit code 2 after " in failed.out
    assert f"    error: {log}: " in failed.out
    assert "architecture 0, seed 88: done after " in failed.out
    assert failed.err == "error: not retrained: architecture 1, seed 45; --resume goes on with them\n"
    assert [run["exp_id"] for run in read(tmp_path / "result_dir" / FOLDER / "retrain.json")["runs"]] == [0]

    log.unlink()
    output = script("re-train.py", "--exp_ids", "0..1", "--parallel", "--resume")
    assert "architecture 0 is retrained already" in output
    assert "architecture 0, seed 88: begins" not in output
    assert "architecture 1, seed 45: done after " in output
    assert "(1 of 1 done)" in output
    assert "next     python test.py" in output
    assert differing(left(tmp_path), straight) == []


@pytest.mark.faults
def test_what_was_stopped_in_parallel_is_gone_on_with(script: Script, tmp_path: Path, rooms: Path) -> None:
    values = ("train.retrain_total_iters=80",)
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0..1", values=values)
    straight = left(tmp_path)

    folders = [f"paths.{name}={tmp_path / name}" for name in FOLDERS]
    overrides = [*SMALL, *folders, f"dataload.dataroot={rooms}", *values]
    command = ["re-train.py", "--config", str(TWO_TASKS), "--gpus", "-1", "--exp_ids", "0..1", "--parallel", "2"]
    logs = [tmp_path / "log_dir" / FOLDER / f"retrain00{exp_id}" / "metrics.jsonl" for exp_id in (0, 1)]
    for log in logs:
        log.unlink()
    options = ["--overwrite", "--set", *overrides]
    with subprocess.Popen([sys.executable, *command, *options], cwd=ROOT, start_new_session=True) as process:
        try:
            wait_for(lambda: all(log.exists() and log.read_text().count("\n") > 3 for log in logs))
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(PATIENCE) == 143
        finally:
            process.kill()
    assert not list((tmp_path / "result_dir" / FOLDER).glob("retrain00?.json"))

    script("re-train.py", "--exp_ids", "0..1", "--parallel", "2", "--resume", values=values)
    assert differing(left(tmp_path), straight) == []
