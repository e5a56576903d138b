"""Names and folders of an experiment's files."""

from pathlib import Path

import pytest

from envs.run_files import RunFiles
from tests.small_runs import run_files
from utils.config import PathsSection
from utils.errors import UserError


def test_files_have_the_releases_names() -> None:
    paths = PathsSection(log_dir="runs/logs", result_dir="runs/results", checkpoint_dir="/ckpt")
    files = RunFiles.of(paths, "nyu_v2_2task")
    assert files.logs == Path("runs/logs/nyu_v2_2task")
    assert files.results == Path("runs/results/nyu_v2_2task")
    assert files.checkpoint("warmup") == Path("/ckpt/nyu_v2_2task/warmup_model.pth.tar")
    assert files.retrain_checkpoint(0, "best", "best").name == "retrain000_policyIterbest_best_model.pth.tar"
    retraining = files.of_retraining(15, "latest")
    assert retraining.best == Path("/ckpt/nyu_v2_2task/retrain015_policyIterlatest_best_model.pth.tar")
    assert files.of_training().latest == Path("/ckpt/nyu_v2_2task/latest_model.pth.tar")
    assert files.gates("best", 88).name == "policyIterbest_rs0088.json"
    assert files.gates("best", 2222) == Path("/ckpt/nyu_v2_2task/policyIterbest_rs2222.json")
    assert files.retrained(3) == Path("runs/results/nyu_v2_2task/retrain003.json")


def test_all_folders_are_made(tmp_path: Path) -> None:
    files = run_files(tmp_path / "new")
    files.make_folders()
    assert files.logs.is_dir()
    assert files.checkpoints.is_dir()
    assert files.results.is_dir()


@pytest.mark.parametrize("name", ["logs", "checkpoints", "results"])
def test_a_folder_that_is_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=str(tmp_path / name)):
        run_files(tmp_path).make_folders()


def test_what_an_earlier_run_left_is_found(tmp_path: Path) -> None:
    files = run_files(tmp_path)
    files.make_folders()
    assert files.left_by_training() == files.left_by_retraining(0, "best") == []
    warmup, best = files.checkpoint("warmup"), files.of_training().best
    others = [files.of_retraining(0, "best").previous, files.retrained(0)]
    for path in (warmup, best, files.summary, *others, files.of_retraining(1, "best").latest):
        path.touch()
    assert set(files.left_by_training()) == {warmup, best, files.summary}
    assert files.left_by_training(but=warmup) == [best, files.summary]
    assert set(files.left_by_retraining(0, "best")) == set(others)


def test_half_written_files_are_removed(tmp_path: Path) -> None:
    files = run_files(tmp_path)
    files.make_folders()
    unfinished = files.checkpoints / f".{'0f' * 16}.tmp"
    unfinished.touch()
    finished = files.of_training().best
    finished.touch()
    files.tidy()
    assert (unfinished.exists(), finished.exists()) == (False, True)
