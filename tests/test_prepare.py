"""What all preparations share: whose folder it is, and what is said."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dataloaders.prepare.__main__ import SETS, main
from dataloaders.prepare.output import claim_folder, digest_of, stamp_of, write_if_new, write_index
from tests.raw_downloads import assert_refused, snapshot, write_domainnet
from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


def test_folder_is_claimed_once_for_the_same_sources(tmp_path: Path) -> None:
    claim_folder(tmp_path / "made", ["img"], {"raw": "here"})
    (tmp_path / "made/img").mkdir()
    before = snapshot(tmp_path)
    claim_folder(tmp_path / "made", ["img"], {"raw": "here"})
    assert snapshot(tmp_path) == before
    with pytest.raises(UserError, match=r"was prepared from other sources \(raw was here, now is there\)"):
        claim_folder(tmp_path / "made", ["img"], {"raw": "there"})
    assert snapshot(tmp_path) == before


def test_nothing_but_what_was_made_is_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "download.zip").touch()
    claim_folder(tmp_path, ["img", "seg", "index.json"], {"raw": ".", "classes": "sha256 0"})
    (tmp_path / "img").mkdir()
    with pytest.raises(UserError) as refusal:
        claim_folder(tmp_path, ["img", "seg", "index.json"], {"raw": ".", "classes": "sha256 1"})
    assert str(refusal.value) == (
        f"{tmp_path} was prepared from other sources (classes was sha256 0, now is sha256 1): bring those back, name "
        "another OUTPUT, or remove img, prepared.json from it, and nothing else, to prepare it anew"
    )


@pytest.mark.parametrize("record", ["[]", '{"raw": "here", "recipe": 0}', '{"raw": "here", "recipe": 1, "more": ""}'])
def test_records_of_another_form_are_refused(record: str, tmp_path: Path) -> None:
    (tmp_path / "prepared.json").write_text(record)
    with pytest.raises(UserError, match="was prepared from other sources"):
        claim_folder(tmp_path, ["img"], {"raw": "here"})


@pytest.mark.parametrize("output", ["raw", "lists"])
def test_sources_and_output_can_be_moved_together(output: str, tmp_path: Path) -> None:
    write_domainnet(tmp_path / "old/raw", {"clipart": (5, 2)})
    main(["domainnet", str(tmp_path / "old/raw"), str(tmp_path / "old" / output)])
    before = snapshot(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    main(["domainnet", str(tmp_path / "new/raw"), str(tmp_path / "new" / output)])
    assert snapshot(tmp_path / "new") == before


def test_other_content_has_another_digest_and_another_size_or_time_another_stamp(tmp_path: Path) -> None:
    file = tmp_path / "file"
    digests, stamps = [], []
    for content, time in ((b"a", 10), (b"b", 10), (b"b", 12), (b"ab", 12)):
        file.write_bytes(content)
        os.utime(file, (time, time))
        digests.append(digest_of(file))
        stamps.append(stamp_of(file))
    assert stamps == [
        "1 bytes of 1970-01-01 00:00:10 UTC",
        "1 bytes of 1970-01-01 00:00:10 UTC",
        "1 bytes of 1970-01-01 00:00:12 UTC",
        "2 bytes of 1970-01-01 00:00:12 UTC",
    ]
    assert digests[0] == f"sha256 {hashlib.sha256(b'a').hexdigest()[:16]}"
    assert digests[0] != digests[1] == digests[2] != digests[3]


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "img").mkdir()
    with pytest.raises(UserError, match="already holds img, not prepared by this program"):
        claim_folder(tmp_path, ["img", "seg"], {"raw": "here"})
    assert set(snapshot(tmp_path)) == {"thesis.txt"}
    claim_folder(tmp_path, ["seg"], {"raw": "here"})


def test_only_a_killed_runs_own_leftovers_are_removed(tmp_path: Path) -> None:
    leftover = f".{'0f' * 16}.tmp"
    others = [f"other/{leftover}", ".0f.tmp", f"{leftover[1:]}", f"{leftover}.png", f".{'0g' * 16}.tmp", "img/0.png"]
    for name in [leftover, f"img/{leftover}", *others]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "prepared.json").write_text('{"raw": "here", "recipe": 1}')
    claim_folder(tmp_path, ["img", "index.json"], {"raw": "here"})
    assert set(snapshot(tmp_path)) == {*others, "prepared.json"}


def test_leftover_of_the_record_itself_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{'0f' * 16}.tmp").touch()
    claim_folder(tmp_path, ["img"], {"raw": "here"})
    assert set(snapshot(tmp_path)) == {"prepared.json"}


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
