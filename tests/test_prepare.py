"""What all preparations share: whose folder it is, and what is said."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dataloaders.prepare.__main__ import SETS, main
from dataloaders.prepare.output import claim_folder, write_if_new, write_index
from tests.raw_downloads import assert_refused, snapshot, write_domainnet
from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


def test_folder_is_claimed_once_for_the_same_sources(tmp_path: Path) -> None:
    claim_folder(tmp_path / "made", ["img"], {"raw": "here"})
    (tmp_path / "made/img").mkdir()
    before = snapshot(tmp_path)
    claim_folder(tmp_path / "made", ["img"], {"raw": "here"})
    assert snapshot(tmp_path) == before
    with pytest.raises(UserError, match=r"was prepared from something else .*'here'.* not .*'there'"):
        claim_folder(tmp_path / "made", ["img"], {"raw": "there"})


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "img").mkdir()
    with pytest.raises(UserError, match="already holds img, not prepared by this program"):
        claim_folder(tmp_path, ["img", "seg"], {"raw": "here"})
    assert set(snapshot(tmp_path)) == {"thesis.txt"}
    claim_folder(tmp_path, ["seg"], {"raw": "here"})


def test_only_a_killed_runs_own_leftovers_are_removed(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["img", "index.json"], {"raw": "here"})
    for folder in ("img", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".0f.tmp").touch()
        (tmp_path / folder / "0.png").touch()
    claim_folder(tmp_path, ["img", "index.json"], {"raw": "here"})
    assert set(snapshot(tmp_path)) == {"img/0.png", "other/.0f.tmp", "other/0.png", "prepared.json"}


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_domainnet(tmp_path / "raw", {"clipart": (2, 1)})
    (tmp_path / "file").touch()
    assert_refused(["domainnet", str(tmp_path / "raw"), str(tmp_path / "file")], "file/.*: cannot be written", capsys)


def test_files_are_written_where_they_differ(tmp_path: Path) -> None:
    index, content = tmp_path / "index.json", tmp_path / "content"
    for number in (1, 1, 2):
        write_index(index, {"train": [number]})
        write_if_new(content, b"%d" % number)
        now = snapshot(tmp_path)
        write_index(index, {"train": [number]})
        write_if_new(content, b"%d" % number)
        assert snapshot(tmp_path) == now
    assert index.read_text() == '{\n  "train": [2]\n}\n'
    assert content.read_bytes() == b"2"


@pytest.mark.parametrize("workers", ["-1", "two"])
def test_bad_number_of_workers_is_refused(workers: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["cityscapes", "raw", "made", "--workers", workers])
    assert exit_.value.code == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("nyu_v2", "NYU_v2"), ("cityscapes", "CityScapes"), ("taskonomy", "Taskonomy"), ("domainnet", "DomainNet")],
)
def test_next_command_names_a_configuration_of_the_set(name: str, dataset: str) -> None:
    config = yaml.safe_load((REPOSITORY / SETS[name].config).read_text())
    assert config["dataload"]["dataset"] == dataset


def test_module_runs_and_names_the_next_command(tmp_path: Path) -> None:
    write_domainnet(tmp_path, {"clipart": (5, 2)})
    command = [sys.executable, "-m", "dataloaders.prepare", "domainnet", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    config = "yamls/adashare/domainnet.yml"
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'DomainNet.json'}: train 5, train1 4, train2 1, val 2, test 2",
        f"next     python -m dataloaders.check --config {config} --set dataload.dataroot={tmp_path}",
    ]
