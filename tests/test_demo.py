"""The demo of the README from beginning to end. Minutes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from envs.task_sets import build_tasks
from utils.config import load_config

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "yamls" / "demo" / "rooms.yml"


@pytest.mark.long
def test_every_task_beats_its_constant_predictor(tmp_path: Path) -> None:
    folders = [f"paths.{folder}={tmp_path / folder}" for folder in ("log_dir", "checkpoint_dir", "result_dir")]
    rooms = tmp_path / "rooms"
    size = ["--train", "400", "--test", "60", "--height", "90", "--width", "120", "--seed", "0"]
    subprocess.run([sys.executable, "-m", "dataloaders.rendered", "nyu_v2", str(rooms), *size], cwd=ROOT, check=True)
    for script, options in (("train.py", []), ("re-train.py", []), ("test.py", ["--best", "--constant"])):
        command = [sys.executable, script, "--config", str(DEMO), *options]
        subprocess.run([*command, "--set", f"dataload.dataroot={rooms}", *folders], cwd=ROOT, check=True)

    results = tmp_path / "result_dir" / "demo"
    retrained = json.loads((results / "retrain.json").read_text())
    assert len(retrained["runs"]) == 8
    best = retrained["best"]
    tested = json.loads((results / f"test_rs{best['seed']:04d}.json").read_text())
    config = load_config(DEMO)
    tasks = build_tasks("NYU_v2", config.tasks, config.tasks_num_class, config.dataload.normals)
    for protocol in ("release", "standard"):
        for name, task in tasks.items():
            learned = tested["metrics"][protocol][name][task.headline]
            constant = tested["constant_predictor"][protocol][name][task.headline]
            better = learned < constant if task.headline in task.lower_is_better else learned > constant
            assert better, f"{name} {task.headline} ({protocol}): {learned}, constant {constant}"
