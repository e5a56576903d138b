"""From small raw downloads to a trained policy: what prepare makes passes the check, and all phases run on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dataloaders.check.__main__ import main as check
from dataloaders.prepare.__main__ import main as prepare
from tests import raw_downloads
from tests.script_runs import ROOT, read, run_script

YAMLS = ROOT / "yamls" / "adashare"
TWO_DOMAINS = ("tasks=[clipart, real]", "tasks_num_class=[3, 3]", "lambdas=[1, 1]", "imagenet_pretrain=False")


def raw_nyu_v2(raw: Path, output: Path) -> list[str]:
    raw_downloads.write_nyu_v2(raw, num_frames=7, height=48, width=64)
    return raw_downloads.nyu_v2_command(raw, output)


def raw_cityscapes(raw: Path, output: Path) -> list[str]:
    cities = {"train": [f"aachen_{view:06}_000019" for view in range(5)], "val": ["ulm_000000_000019"]}
    raw_downloads.write_cityscapes(raw, cities, height=64, width=128)
    return ["cityscapes", str(raw), str(output), "--workers", "1"]


def raw_taskonomy(raw: Path, output: Path) -> list[str]:
    raw_downloads.write_taskonomy(raw, {"allensville": 4, "beechwood": 4, "coffeen": 4})
    return ["taskonomy", str(raw), str(output), "--workers", "1"]


def raw_domainnet(raw: Path, output: Path) -> list[str]:
    raw_downloads.write_domainnet(raw, {"clipart": (12, 3), "real": (9, 6)})
    return ["domainnet", str(raw), str(output)]


@pytest.mark.parametrize(
    ("setting", "write_raw", "values"),
    [
        ("nyu_v2_3task", raw_nyu_v2, ("dataload.normals=decoded",)),
        ("cityscapes_2task", raw_cityscapes, ()),
        ("taskonomy_5task", raw_taskonomy, ()),
        ("domainnet", raw_domainnet, TWO_DOMAINS),
    ],
)
def test_what_is_prepared_passes_the_check_and_trains(
    setting: str,
    write_raw: Callable[[Path, Path], list[str]],
    values: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    raw, output = tmp_path / "raw", tmp_path / "prepared"
    raw.mkdir()
    prepare(write_raw(raw, output))
    values = (f"dataload.dataroot={output}", *values)
    config = YAMLS / f"{setting}.yml"
    check(["--config", str(config), "--workers", "0", "--pictures", str(tmp_path / "sheet.png"), "--set", *values])
    assert "nothing is wrong" in capfd.readouterr().out
    context = {"config": config, "folder": tmp_path, "values": values, "monkeypatch": monkeypatch, "capfd": capfd}
    run_script("train.py", **context)
    run_script("re-train.py", "--exp_ids", "0", **context)
    assert read(tmp_path / "result_dir" / setting / "retrain.json")["runs"][0]["seed"] == 88
