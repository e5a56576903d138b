"""DomainNet's lists: which line belongs to which domain and split."""

import json
import shutil
from pathlib import Path

import pytest

from dataloaders.domainnet import open_domainnet
from dataloaders.options import DataOptions
from dataloaders.prepare.__main__ import main
from tests.raw_downloads import assert_refused, snapshot, write_domainnet
from utils.config import DataloadSection

DOMAINS = {"sketch": (10, 3), "clipart": (5, 2)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_domainnet(folder, DOMAINS)
    return folder


def test_lists_are_joined_and_lines_numbered(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    before = snapshot(tmp_path / "raw")
    main(["domainnet", str(tmp_path / "raw")])
    after = snapshot(tmp_path / "raw")
    assert {name: after[name] for name in before} == before
    for split in ("train", "test"):
        lists = [(raw / f"{domain}_{split}.txt").read_text() for domain in ("clipart", "sketch")]
        assert (tmp_path / f"raw/{split}.txt").read_text() == "".join(lists)
    index = json.loads((tmp_path / "raw/DomainNet.json").read_text())
    assert index["train"] == {"clipart": list(range(5)), "sketch": list(range(5, 15))}
    assert index["test"] == index["val"] == {"clipart": [0, 1], "sketch": [2, 3, 4]}
    assert {domain: len(lines) for domain, lines in index["train2"].items()} == {"clipart": 1, "sketch": 2}
    for domain, lines in index["train"].items():
        assert sorted(index["train1"][domain] + index["train2"][domain]) == lines


def test_lists_elsewhere_lead_to_the_images(raw: Path, tmp_path: Path) -> None:
    before = snapshot(raw)
    main(["domainnet", str(raw), str(tmp_path / "lists")])
    assert snapshot(raw) == before
    settings = DataloadSection(dataset="DomainNet", dataroot=str(tmp_path / "lists"), crop_h=8, crop_w=8)
    options = DataOptions.of(settings, {"sketch": 3, "clipart": 3}, seed=0)
    domains = open_domainnet(options, "test", training=False)
    assert {domain: len(dataset) for domain, dataset in domains.items()} == {"sketch": 3, "clipart": 2}
    sample = domains["sketch"][(0, 1)]
    assert (sample["name"], int(sample["sketch"])) == ("test 1", 1)


def test_second_run_changes_nothing(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for _ in range(2):
        main(["domainnet", str(raw), str(tmp_path / "lists")])
        now = snapshot(tmp_path / "lists")
    first, _, second, _ = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.endswith("DomainNet.json: train 15, train1 12, train2 3, val 5, test 5")
    main(["domainnet", str(raw), str(tmp_path / "lists")])
    assert snapshot(tmp_path / "lists") == now


def test_files_that_macos_left_are_passed_over(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "raw/._clipart_train.txt").write_bytes(b"Mac OS X")
    main(["domainnet", str(tmp_path / "raw")])
    index = json.loads((tmp_path / "raw/DomainNet.json").read_text())
    assert list(index["train"]) == ["clipart", "sketch"]


def test_run_without_an_index_is_finished(raw: Path, tmp_path: Path) -> None:
    main(["domainnet", str(raw), str(tmp_path / "lists")])
    before = snapshot(tmp_path / "lists")
    (tmp_path / "lists/DomainNet.json").unlink()
    main(["domainnet", str(raw), str(tmp_path / "lists")])
    after = snapshot(tmp_path / "lists")
    assert {name for name in after if after[name] != before[name]} == {"DomainNet.json"}
    assert after["DomainNet.json"][0] == before["DomainNet.json"][0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sketch_test.txt", None, "sketch_test.txt cannot be read"),
        ("sketch_test.txt", "sketch/dog.png\n", "line 1 of .*sketch_test.txt is 'sketch/dog.png', but must be"),
        ("clipart_train.txt", "clipart/no.png 1\n", r"1 source files do not exist \(.*clipart/no.png\): unpack all"),
        ("DomainNet.json", "{}", "already holds DomainNet.json, not prepared by this program"),
    ],
)
def test_bad_sources_end_with_one_sentence_and_code_2(
    file: str, content: str | None, message: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "raw" / file).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / "raw" / file).write_text(content)
    before = snapshot(tmp_path / "raw")
    assert_refused(["domainnet", str(tmp_path / "raw")], message, capsys)
    assert snapshot(tmp_path / "raw") == before


def test_folders_without_lists_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert_refused(["domainnet", str(tmp_path)], r"holds no \{domain\}_train.txt", capsys)
    assert_refused(["domainnet", str(tmp_path / "nowhere")], "nowhere is not a folder: give the one", capsys)
