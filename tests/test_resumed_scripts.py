"""Scripts that find an earlier run: it is gone on with or written over as asked, and neither unasked."""

from pathlib import Path

import pytest
import torch

from tests.script_runs import Script, json_lines, read
from tests.small_runs import same
from tests.test_run_lock import held_elsewhere
from utils.checkpoint import load_checkpoint


def test_a_resumed_retraining_equals_an_uninterrupted_one(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=6",))
    history = tmp_path / "log_dir" / "nyu_v2_2task" / "retrain000" / "metrics.jsonl"
    script("re-train.py", "--exp_ids", "0", values=("train.retrain_total_iters=6",))
    straight = history.read_text()
    script("re-train.py", "--exp_ids", "0", "--overwrite", values=("train.retrain_total_iters=4",))
    assert history.read_text() != straight
    script("re-train.py", "--exp_ids", "0", values=("train.retrain_total_iters=6", "train.retrain_resume=True"))
    assert history.read_text() == straight


def test_retraining_goes_on_with_what_is_not_retrained_yet(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0")
    best = next((tmp_path / "checkpoint_dir").rglob("retrain000_*_best_model.pth.tar"))
    written = best.stat().st_mtime_ns
    output = script("re-train.py", "--exp_ids", "0", "1", "--resume")
    assert "architecture 0 is retrained already" in output
    assert best.stat().st_mtime_ns == written
    runs = read(tmp_path / "result_dir" / "nyu_v2_2task" / "retrain.json")["runs"]
    assert [run["exp_id"] for run in runs] == [0, 1]


def refused(script: Script, capfd: pytest.CaptureFixture, *arguments: str, values: tuple[str, ...] = ()) -> str:
    """What a script that is refused writes to standard error."""
    with pytest.raises(SystemExit) as stop:
        script(*arguments, values=values)
    assert stop.value.code == 2
    return capfd.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but the locks."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_an_earlier_run_is_neither_overwritten_nor_resumed_unasked(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    values = ("train.total_iters=4",)
    script("train.py", values=values)
    script("re-train.py", "--exp_ids", "0", values=values)
    before = contents(tmp_path)
    assert "add --resume to go on with it or --overwrite" in refused(script, capfd, "train.py", values=values)
    retraining = refused(script, capfd, "re-train.py", "--exp_ids", "0", values=values)
    assert "add --resume to go on with it or --overwrite" in retraining
    assert contents(tmp_path) == before
    checkpoints = tmp_path / "checkpoint_dir" / "nyu_v2_2task"
    for label in ("latest", "previous", "retrain000_policyIterbest_latest", "retrain000_policyIterbest_previous"):
        (checkpoints / f"{label}_model.pth.tar").unlink()
    # What is left cannot be gone on with, but would be lost all the same.
    for resume in ([], ["--resume"]):
        assert "add --overwrite if it may" in refused(script, capfd, "train.py", *resume, values=values)
    assert "add --overwrite if it may" in refused(script, capfd, "re-train.py", "--exp_ids", "0", values=values)
    assert (checkpoints / "best_model.pth.tar").exists()


def test_a_run_of_another_configuration_is_not_resumed_but_rates_may_change(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    script("train.py", values=("train.total_iters=4",))
    said = refused(script, capfd, "train.py", "--resume", values=("train.batch_size=1", "skip_layer=1"))
    assert "skip_layer was 0 and is 1; train.batch_size was 2 and is 1" in said
    output = script("train.py", "--resume", values=("train.total_iters=5", "train.lr=0.25"))
    assert "train.lr is now 0.25" in output
    history = json_lines(tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl")
    steps = [line for line in history if line["kind"] in ("weights", "policy")]
    assert [line["iteration"] for line in steps] == [1, 2, 3, 4, 5]


def test_resuming_a_finished_run_changes_nothing(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=4",))
    folder = tmp_path / "checkpoint_dir" / "nyu_v2_2task"
    before = {label: torch.load(folder / f"{label}_model.pth.tar", weights_only=True) for label in ("latest", "best")}
    history = (tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl").read_bytes()
    output = script("train.py", "--resume", values=("train.total_iters=4",))
    assert "best     iteration" in output
    assert (tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl").read_bytes() == history
    for label, content in before.items():
        assert same(torch.load(folder / f"{label}_model.pth.tar", weights_only=True), content)


def test_a_run_that_ended_amid_a_period_is_lengthened_as_if_it_had_been_longer(script: Script, tmp_path: Path) -> None:
    periods = ("train.warm_up_iters=1", "train.weight_iter_alternate=2", "train.alpha_iter_alternate=4")
    latest, kept = tmp_path / "checkpoint_dir" / "nyu_v2_2task" / "latest_model.pth.tar", []
    for runs in ([("--overwrite", 16)], [("--overwrite", 9), ("--resume", 16)]):
        for option, length in runs:
            script("train.py", option, values=(*periods, f"train.total_iters={length}"))
        state = load_checkpoint(latest)
        kept.append({name: state[name] for name in ("mtl-net", "optimisers", "temp", "open_blocks", "random_states")})
    assert same(*kept)


def test_with_nothing_to_resume_a_run_begins(script: Script, tmp_path: Path) -> None:
    script("train.py", "--resume", values=("train.total_iters=4",))
    script("re-train.py", "--resume", "--exp_ids", "0")
    assert read(tmp_path / "result_dir" / "nyu_v2_2task" / "retrain.json")["best"]["exp_id"] == 0


def test_a_damaged_latest_is_named_and_the_previous_one_taken(script: Script, tmp_path: Path) -> None:
    values = ("train.total_iters=8", "train.save_freq=3")
    script("train.py", values=values)
    folder = tmp_path / "checkpoint_dir" / "nyu_v2_2task"
    history = tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl"
    straight, finished = history.read_bytes(), torch.load(folder / "latest_model.pth.tar", weights_only=True)
    with (folder / "latest_model.pth.tar").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    output = script("train.py", "--resume", values=values)
    assert "latest_model.pth.tar" in output
    assert "going on after iteration 6, from" in output
    assert history.read_bytes() == straight
    assert same(torch.load(folder / "latest_model.pth.tar", weights_only=True), finished)


def test_what_a_killed_process_left_half_written_is_removed(script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint_dir" / "nyu_v2_2task"
    folder.mkdir(parents=True)
    (folder / f".{'0f' * 16}.tmp").write_bytes(b"half of a checkpoint")
    script("train.py", values=("train.total_iters=4",))
    assert not list(folder.glob(".*.tmp"))


def test_resuming_under_another_policy_is_refused_and_harms_nothing(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0", values=("train.retrain_total_iters=2",))
    gates = tmp_path / "checkpoint_dir" / "nyu_v2_2task" / "policyIterbest_rs0088.json"
    before = gates.read_text()
    script("train.py", "--overwrite", values=("train.total_iters=25", "train.init_method=random"))
    with pytest.raises(SystemExit) as stop:
        script("re-train.py", "--exp_ids", "1", "0", values=("train.retrain_resume=True",))
    assert stop.value.code == 2
    assert "under other gates" in capfd.readouterr().err
    assert gates.read_text() == before
    script("test.py", "--exp_ids", "0")


def test_overwriting_wins_over_the_releases_key_for_resuming(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0")
    best = next((tmp_path / "checkpoint_dir").rglob("retrain000_*_best_model.pth.tar"))
    written = best.stat().st_mtime_ns
    script("re-train.py", "--exp_ids", "0", "--overwrite", values=("train.retrain_resume=True",))
    assert best.stat().st_mtime_ns > written


def test_a_retraining_of_another_configuration_is_not_finished(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0")
    said = refused(script, capfd, "re-train.py", "--exp_ids", "0", "--resume", values=("train.batch_size=1",))
    assert "train.batch_size was 2 and is 1" in said


@pytest.mark.parametrize("values", [("train.which_iter=best",), ("policy=False",)])
def test_weights_of_anything_but_the_warm_up_begin_a_log_of_their_own(
    script: Script, tmp_path: Path, values: tuple[str, ...]
) -> None:
    script("train.py", values=("train.total_iters=6",))
    script("train.py", "--overwrite", values=("train.total_iters=6", "train.resume=True", *values))
    history = json_lines(tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl")
    steps = [line["iteration"] for line in history if line["kind"] in ("weights", "policy")]
    assert steps == sorted(set(steps))


def test_nothing_is_tested_while_its_folder_is_trained_in(
    script: Script, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    results = tmp_path / "result_dir" / "nyu_v2_2task"
    results.mkdir(parents=True)
    with held_elsewhere(results):
        assert "is in use by another run (process" in refused(script, capfd, "test.py")
        assert "is in use by another run (process" in refused(script, capfd, "train.py")
    with held_elsewhere(results, shared=True):
        assert "in use" not in refused(script, capfd, "test.py")
