"""train.py and re-train.py as small runs that last seconds, and whether they left what they should."""

import json
from pathlib import Path
from typing import Any

from tests.faults.script_server import ScriptServer
from tests.script_runs import FOLDERS, ROOT, SMALL, read
from tests.small_runs import same
from utils.checkpoint import load_checkpoint

CONFIG = ROOT / "yamls" / "adashare" / "nyu_v2_2task.yml"
SETTINGS = ["train.total_iters=23", "train.warm_up_iters=6", "train.retrain_total_iters=8", "train.save_freq=2"]
SECONDS = "seconds.txt"
SCRIPTS = {"train.py": [], "re-train.py": ["--exp_ids", "0", "1"]}
TRAININGS = {
    "train.py": {"": "."},
    "re-train.py": {f"retrain{exp_id:03d}_policyIterbest_": f"retrain{exp_id:03d}" for exp_id in (0, 1)},
}
"""Script -> prefix of the checkpoints of each of its trainings -> folder of the training's log."""


def arguments(script: str, folder: Path, rooms: Path, workers: int) -> list[str]:
    """The command of a small run below a folder, which goes on with what is there."""
    folders = [f"paths.{name}={folder / name}" for name in FOLDERS]
    values = [*SMALL, *SETTINGS, *folders, f"dataload.dataroot={rooms}", f"dataload.num_workers={workers}"]
    command = [script, "--config", str(CONFIG), "--gpus", "-1", *SCRIPTS[script]]
    return [*command, "--resume", "--set", *values]


def run(
    server: ScriptServer,
    script: str,
    folder: Path,
    rooms: Path,
    *,
    output: Path | None = None,
    workers: int = 0,
    **ends: float | None,
) -> int:
    """Run a script, perhaps not to its end; returns its exit code, or minus the signal that ended it."""
    return server.run(arguments(script, folder, rooms, workers), output or folder / "output.txt", **ends)


def seconds_of(trained: Path) -> float:
    """How long train.py took that left this folder."""
    return float((trained / SECONDS).read_text())


def checkpoint_folder(folder: Path) -> Path:
    """Where they keep their checkpoints."""
    return folder / "checkpoint_dir" / "nyu_v2_2task"


def leftovers(script: str, folder: Path) -> dict[str, Any]:
    """All that counts of what a script left: checkpoints, lines of metrics, results."""
    left: dict[str, Any] = {}
    for prefix, log in TRAININGS[script].items():
        for label in ("latest", "best", *(["warmup"] if script == "train.py" else [])):
            content = load_checkpoint(checkpoint_folder(folder) / f"{prefix}{label}_model.pth.tar")
            del content["config"]  # it names the folders
            left[f"{prefix}{label}"] = content
        left[f"log of {log}"] = (folder / "log_dir" / "nyu_v2_2task" / log / "metrics.jsonl").read_text()
    results = folder / "result_dir" / "nyu_v2_2task"
    file = {"train.py": "policy.json", "re-train.py": "retrain.json"}[script]
    return {**left, file: without_seconds(read(results / file))}


def without_seconds(value: Any) -> Any:
    """A result without the times that were measured."""
    if isinstance(value, dict):
        return {key: without_seconds(entry) for key, entry in value.items() if key != "seconds"}
    return [without_seconds(entry) for entry in value] if isinstance(value, list) else value


def assert_alike(script: str, folder: Path, straight: Path) -> None:
    """To the last bit of every weight, logit and optimiser state, and each iteration once in the metrics."""
    found, expected = leftovers(script, folder), leftovers(script, straight)
    assert [name for name in expected if not same(found[name], expected[name])] == []
    for log in TRAININGS[script].values():
        lines = map(json.loads, found[f"log of {log}"].splitlines())
        reported = [line["iteration"] for line in lines if line["kind"] in ("weights", "policy")]
        assert reported == sorted(set(reported))
