"""Runs of the scripts with `dataload.cache`: they learn what they learn from files, and decode last."""

import shutil
from pathlib import Path

import pytest

from tests.script_runs import Script, json_lines, read

FOLDER = "nyu_v2_2task"
SHORT = ("train.total_iters=4",)


def test_a_run_from_a_cache_is_that_from_files(script: Script, tmp_path: Path, cache: Path) -> None:
    outcomes = []
    for values in (SHORT, (*SHORT, f"dataload.cache={cache}", "dataload.num_workers=1")):
        script("train.py", "--overwrite", values=values)
        made = [*cache.glob("*/*.bin")]
        script("re-train.py", "--exp_ids", "0", "--overwrite", values=values)
        script("test.py", values=values)
        outcomes.append(
            (
                read(tmp_path / "result_dir" / FOLDER / "test_rs0088.json")["metrics"],
                json_lines(tmp_path / "log_dir" / FOLDER / "metrics.jsonl"),
                json_lines(tmp_path / "log_dir" / FOLDER / "retrain000" / "metrics.jsonl"),
            )
        )
    assert outcomes[0] == outcomes[1]
    assert len(made) == 2, "one for all training splits, one for test and val"
    assert [*cache.glob("*/*.bin")] == made


@pytest.mark.parametrize("name", ["train.py", "re-train.py"])
def test_nothing_is_decoded_for_a_run_that_is_refused(
    script: Script, tmp_path: Path, cache: Path, name: str, capfd: pytest.CaptureFixture
) -> None:
    arguments = ("--exp_ids", "0") if name == "re-train.py" else ()
    script("train.py", values=SHORT)
    if name == "re-train.py":
        script(name, *arguments, values=SHORT)
    with pytest.raises(SystemExit):
        script(name, *arguments, values=(*SHORT, f"dataload.cache={cache}"))
    assert "add --resume to go on with it or --overwrite" in capfd.readouterr().err
    assert not cache.exists()


@pytest.mark.parametrize("name", ["train.py", "re-train.py"])
def test_an_earlier_run_is_there_until_all_is_decoded(
    script: Script, tmp_path: Path, rooms: Path, name: str, capfd: pytest.CaptureFixture
) -> None:
    data = tmp_path / "rooms"
    shutil.copytree(rooms, data)
    script("train.py", values=SHORT)
    script("re-train.py", "--exp_ids", "0", values=SHORT)
    before = contents(tmp_path)
    (next(data.glob("img/*.png"))).write_bytes(b"no picture")
    arguments = ("--exp_ids", "0") if name == "re-train.py" else ()
    values = (*SHORT, f"dataload.dataroot={data}", f"dataload.cache={tmp_path / 'caches'}")
    with pytest.raises(SystemExit):
        script(name, *arguments, "--overwrite", values=values)
    assert "is not a whole image" in capfd.readouterr().err
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    """Of the checkpoints and results."""
    files = [path for kind in ("checkpoint_dir", "result_dir") for path in (folder / kind).glob("*/*")]
    return {path: path.read_bytes() for path in files if path.is_file() and path.suffix != ".lock"}


def test_where_nothing_is_left_to_train_nothing_is_decoded(script: Script, cache: Path) -> None:
    script("train.py", values=SHORT)
    script("re-train.py", "--exp_ids", "0", values=SHORT)
    output = script("re-train.py", "--exp_ids", "0", "--resume", values=(*SHORT, f"dataload.cache={cache}"))
    assert "architecture 0 is retrained already" in output
    assert not cache.exists()
