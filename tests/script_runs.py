"""Runs of the three scripts in this process, small enough to take seconds."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from utils.config import TestingConfig, load_config

ROOT = Path(__file__).parents[1]
TWO_TASKS = ROOT / "yamls" / "adashare" / "nyu_v2_2task.yml"
FOLDERS = ("log_dir", "checkpoint_dir", "result_dir")

SMALL = [
    "backbone_width=4",
    "head_width=8",
    "curriculum_speed=1",
    "train.batch_size=2",
    "train.warm_up_iters=3",
    "train.total_iters=25",
    "train.retrain_total_iters=4",
    "train.weight_iter_alternate=1",
    "train.alpha_iter_alternate=1",
    "train.val_freq=2",
    "train.print_freq=1",
    "train.eval_batches=1",
    "dataload.crop_h=32",
    "dataload.crop_w=48",
    "dataload.num_workers=0",
]
"""Wins over the paper's values."""


Script = Callable[..., str]
"""The fixture `script`: (name, *arguments, config=..., values=...) -> what the script printed."""


def run_script(
    name: str,
    *arguments: str,
    config: Path,
    folder: Path,
    values: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> str:
    """Run a script on the CPU under `SMALL`, then `values`, writing below `folder`; returns what it printed."""
    folders = [f"paths.{name}={folder / name}" for name in FOLDERS]
    overrides = [*SMALL, *folders, *values]
    if config.stem.endswith("_test"):
        overrides = [value for value in overrides if not value.startswith(("train.", "curriculum_speed"))]
    command = [name, "--config", str(config), "--gpus", "-1", *arguments, "--set", *overrides]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(ROOT)
    capfd.readouterr()
    runpy.run_path(str(ROOT / name), run_name="__main__")
    return capfd.readouterr().out


def small_config(config: Path, *values: str) -> TestingConfig:
    """The configuration that `run_script` runs under."""
    return load_config(config, [*SMALL, *values], TestingConfig)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def json_lines(path: Path) -> list[dict]:
    """The lines of a `metrics.jsonl`."""
    return [json.loads(line) for line in path.read_text().splitlines()]
