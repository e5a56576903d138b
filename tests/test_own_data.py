"""docs/DATA.md says how to bring one's own data set and task; its very lines are put into a copy, and run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8").split("## Your own data set and task")[1]
CODE = ("dataloaders", "envs", "models", "utils", "train.py", "re-train.py", "test.py")


def blocks() -> dict[str, str]:
    """File -> the lines that the guide puts there."""
    found = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    return dict(found)


def write_orchard(folder: Path, numbers: range) -> list[list[str]]:
    """Pictures of red (ripe) and green discs, whose files the rows name."""
    rows = []
    for number in numbers:
        random = np.random.default_rng(number)
        parts = np.zeros((80, 96), np.uint8)
        ripeness = np.full((80, 96), -1, np.float32)
        for _ in range(4):
            disc = cv2.circle(np.zeros_like(parts), random.integers(10, 70, 2).tolist(), 9, 1, -1).astype(bool)
            parts[disc], ripeness[disc] = 2, random.random()
        image = np.zeros((80, 96, 3), np.uint8)
        image[..., 2] = np.where(parts == 2, 255 * np.maximum(ripeness, 0), 40)
        image[..., 1] = np.where(parts == 2, 255 - 255 * np.maximum(ripeness, 0), 90)
        row = [f"img/{number:04d}.png", f"parts/{number:04d}.png", f"ripeness/{number:04d}.npy"]
        for file in row:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / row[0]), image)
        assert cv2.imwrite(str(folder / row[1]), parts)
        np.save(folder / row[2], ripeness)
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the guide's lines in their places, and a small orchard."""
    folder = tmp_path_factory.mktemp("program")
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name, lines in blocks().items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        # Lines for a file that is there are added to it.
        path.write_text((path.read_text() if path.is_file() else "") + "\n" + lines)
    train, test = write_orchard(folder / "orchard", range(10)), write_orchard(folder / "orchard", range(10, 13))
    (folder / "orchard" / "orchard.json").write_text(json.dumps({"train": train, "test": test}))
    return folder


def run(copy: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guide_has_its_lines() -> None:
    assert list(blocks()) == [
        "dataloaders/orchard.py",
        "dataloaders/__init__.py",
        "envs/task_sets.py",
        "yamls/orchard.yml",
    ]


def test_a_data_set_and_a_task_of_ones_own_go_all_the_way(copy: Path) -> None:
    config = ("--config", "yamls/orchard.yml")
    checked = run(copy, "-m", "dataloaders.check", *config)
    assert "ripeness" in checked
    run(copy, "train.py", *config)
    run(copy, "re-train.py", *config, "--exp_ids", "0")
    tested = run(copy, "test.py", *config, "--best", "--constant")
    assert "ripeness err" in tested
    outcome = json.loads((copy / "runs" / "results" / "orchard" / "test_rs0088.json").read_text())
    # Random guesses are off by a third and more.
    assert outcome["metrics"]["standard"]["ripeness"]["err"] < 0.35
    assert outcome["num_samples"] == 3
