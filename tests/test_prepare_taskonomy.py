"""Tiny-Taskonomy's index and class weights against NumPy; splits by building."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.prepare import taskonomy
from dataloaders.prepare.__main__ import main
from dataloaders.taskonomy import Taskonomy
from tests.raw_downloads import assert_refused, snapshot, write_picture, write_taskonomy

BUILDINGS = {"ackerly": 3, "brown": 2, "castor": 4, "darden": 2}
SPLITS = {"ackerly": "train", "brown": "val", "castor": "train", "darden": "test"}
TARGETS = ("seg", "normal", "depth", "keypoint", "edge")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_taskonomy(folder, BUILDINGS)
    return folder


@pytest.fixture
def buildings(tmp_path: Path) -> Path:
    file = tmp_path / "buildings.txt"
    file.write_text("".join(f"{building} {split}\n" for building, split in SPLITS.items()))
    return file


def command(raw: Path, *more: Path | str) -> list[str]:
    return ["taskonomy", str(raw), *map(str, more), "--workers", "1"]


def splits_of(output: Path) -> dict[str, list[list[str]]]:
    return json.loads((output / "taskonomy.json").read_text())


def buildings_of(rows: list[list[str]]) -> list[str]:
    return [Path(row[0]).parent.name for row in rows]


def test_index_beside_the_pictures_lists_every_view(raw: Path, tmp_path: Path, buildings: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    before = snapshot(tmp_path / "raw")
    main(command(tmp_path / "raw", "--buildings", buildings))
    after = snapshot(tmp_path / "raw")
    assert {name: after[name] for name in before} == before
    splits = splits_of(tmp_path / "raw")
    assert splits["train"][0] == [
        "rgb/ackerly/point_0_view_0_domain_rgb.png",
        "segment_semantic/ackerly/point_0_view_0_domain_segmentsemantic.png",
        "normal/ackerly/point_0_view_0_domain_normal.png",
        "depth_zbuffer/ackerly/point_0_view_0_domain_depth_zbuffer.png",
        "keypoints2d/ackerly/point_0_view_0_domain_keypoints2d.png",
        "edge_texture/ackerly/point_0_view_0_domain_edge_texture.png",
    ]
    assert buildings_of(splits["train"]) == ["ackerly"] * 3 + ["castor"] * 4
    assert (buildings_of(splits["val"]), buildings_of(splits["test"])) == (["brown"] * 2, ["darden"] * 2)
    assert splits["test_small"] == splits["test"]
    assert len(splits["train2"]) == 1
    assert sorted(splits["train1"] + splits["train2"]) == splits["train"]


def test_index_elsewhere_leads_to_the_pictures(raw: Path, tmp_path: Path, buildings: Path) -> None:
    before = snapshot(raw)
    main(command(raw, tmp_path / "far/index", "--buildings", buildings))
    assert snapshot(raw) == before
    dataset = Taskonomy(tmp_path / "far/index", "test", TARGETS)
    assert len(dataset) == 2
    assert dataset[(0, 0)]["seg"].shape == (256, 256)
    assert not Path(splits_of(tmp_path / "far/index")["test"][0][0]).is_absolute()


def test_files_that_macos_left_are_passed_over(
    raw: Path, tmp_path: Path, buildings: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    for kind in (tmp_path / "raw").iterdir():
        (kind / ".Trashes").mkdir()
        for picture in list((kind / "castor").iterdir()):
            picture.with_name(f"._{picture.name}").write_bytes(b"Mac OS X")
            (kind / ".Trashes" / picture.name).write_bytes(b"Mac OS X")
    main(command(tmp_path / "raw", "--buildings", buildings))
    assert buildings_of(splits_of(tmp_path / "raw")["train"]) == ["ackerly"] * 3 + ["castor"] * 4
    assert "left out" not in capsys.readouterr().out


def test_linked_buildings_are_found(raw: Path, tmp_path: Path, buildings: Path) -> None:
    for kind in raw.iterdir():
        (tmp_path / "raw" / kind.name / "taskonomy").mkdir(parents=True)
        for building in kind.iterdir():
            (tmp_path / "raw" / kind.name / "taskonomy" / building.name).symlink_to(building)
    main(command(tmp_path / "raw", "--buildings", buildings))
    assert buildings_of(splits_of(tmp_path / "raw")["train"]) == ["ackerly"] * 3 + ["castor"] * 4


def test_prior_factor_is_the_inverse_of_smoothed_frequencies(raw: Path, tmp_path: Path, buildings: Path) -> None:
    main(command(raw, tmp_path / "index", "--buildings", buildings))
    counts = np.zeros(17)
    for building in ("ackerly", "castor"):
        for file in (raw / "segment_semantic" / building).iterdir():
            values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            for label in range(17):
                counts[label] += (values == label + 1).sum() + (values == 0).sum() * (label == 0)
    frequency = counts / counts.sum()
    expected = 1 / (frequency / 2 + 1 / 34)
    factor = np.load(tmp_path / "index/semseg_prior_factor.npy")
    np.testing.assert_allclose(factor, expected / (expected * frequency).sum(), rtol=1e-6)


def test_second_run_counts_nothing_again(
    raw: Path, tmp_path: Path, buildings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(command(raw, tmp_path / "index", "--buildings", buildings))
    before = snapshot(tmp_path / "index")
    (tmp_path / "index/semseg_counts/castor.json").unlink()
    counted = []
    count_building = taskonomy.count_building

    def note(output: Path, building: tuple[str, list]) -> None:
        counted.append(building[0])
        count_building(output, building)

    monkeypatch.setattr(taskonomy, "count_building", note)
    main(command(raw, tmp_path / "index", "--buildings", buildings))
    assert counted == ["castor"]
    after = snapshot(tmp_path / "index")
    assert {name for name in after if after[name] != before[name]} == {"semseg_counts/castor.json"}
    assert after["semseg_counts/castor.json"][0] == before["semseg_counts/castor.json"][0]


def test_new_views_are_counted(raw: Path, tmp_path: Path, buildings: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    main(command(tmp_path / "raw", tmp_path / "index", "--buildings", buildings))
    counts = json.loads((tmp_path / "index/semseg_counts/ackerly.json").read_text())
    assert (counts["views"], sum(counts["pixels"])) == (3, 3 * 16 * 16)
    write_taskonomy(tmp_path / "raw", {"ackerly": 5})
    main(command(tmp_path / "raw", tmp_path / "index", "--buildings", buildings))
    counts = json.loads((tmp_path / "index/semseg_counts/ackerly.json").read_text())
    assert (counts["views"], sum(counts["pixels"])) == (5, 5 * 16 * 16)
    assert len(splits_of(tmp_path / "index")["train"]) == 9


def test_views_without_all_pictures_are_left_out_and_told(
    raw: Path, tmp_path: Path, buildings: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "raw/edge_texture/castor/point_1_view_0_domain_edge_texture.png").unlink()
    (tmp_path / "raw/rgb/castor/point_2_view_0_domain_rgb.png").unlink()
    main(command(tmp_path / "raw", "--buildings", buildings))
    assert buildings_of(splits_of(tmp_path / "raw")["train"]).count("castor") == 2
    assert "2 views of" in capsys.readouterr().out


def test_buildings_without_a_file_are_divided_whole_and_always_alike(raw: Path, tmp_path: Path) -> None:
    found = []
    for output in (tmp_path / "first", tmp_path / "second"):
        main(command(raw, output))
        found.append({split: set(buildings_of(rows)) for split, rows in splits_of(output).items()})
    assert found[0] == found[1]
    train, val, test = (found[0][split] for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (2, 1, 1)
    assert train | val | test == set(BUILDINGS)


def test_division_of_many_buildings_is_80_10_10() -> None:
    splits = taskonomy.divide_buildings([f"b{number:02d}" for number in range(50)], Path("raw"))
    assert {split: len(own) for split, own in splits.items()} == {"train": 40, "val": 5, "test": 5}


def test_taskonomys_own_list_of_buildings_is_understood(raw: Path, tmp_path: Path) -> None:
    lines = ["id,train,val,test", "ackerly,0,0,1", "brown,1,0,0", "castor,0,1,0", "darden,1,0,0", "elmira,1,0,0"]
    (tmp_path / "tiny.csv").write_bytes("\r\n".join(lines).encode())
    main(command(raw, tmp_path / "index", "--buildings", tmp_path / "tiny.csv"))
    splits = splits_of(tmp_path / "index")
    assert set(buildings_of(splits["train"])) == {"brown", "darden"}
    assert set(buildings_of(splits["val"])) == {"castor"}
    assert set(buildings_of(splits["test"])) == {"ackerly"}


def test_buildings_file_changed_in_place_is_refused(
    raw: Path, tmp_path: Path, buildings: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    main(command(tmp_path / "raw", "--buildings", buildings))
    before = snapshot(tmp_path / "raw")
    buildings.write_text(buildings.read_text().replace("brown val", "brown train"))
    assert_refused(
        command(tmp_path / "raw", "--buildings", buildings),
        r"other sources \(buildings was sha256 .*or remove taskonomy.json, semseg_prior_factor.npy, semseg_counts, "
        "prepared.json from it, and nothing else",
        capsys,
    )
    assert snapshot(tmp_path / "raw") == before


def test_small_test_split_is_drawn_from_a_large_one() -> None:
    rows = [[str(number)] for number in range(2500)]
    splits = taskonomy.split_views({"train": rows[:10], "val": [], "test": rows})
    assert len(splits["test_small"]) == 1000
    assert splits["test_small"] != rows[:1000]
    assert "val" not in splits


# Bad input


def remove_kind(raw: Path, buildings: Path) -> None:
    shutil.rmtree(raw / "keypoints2d")


def part_buildings(raw: Path, buildings: Path) -> None:
    for building in BUILDINGS:
        shutil.move(raw / "normal" / building, raw / "normal" / f"{building}_normal")


def spoil_class(raw: Path, buildings: Path) -> None:
    path = raw / "segment_semantic/castor/point_1_view_0_domain_segmentsemantic.png"
    write_picture(path, np.full((16, 16), 18, np.uint8))


def spoil_picture(raw: Path, buildings: Path) -> None:
    (raw / "segment_semantic/castor/point_1_view_0_domain_segmentsemantic.png").write_bytes(b"\x89PNG")


def forget_a_building(raw: Path, buildings: Path) -> None:
    buildings.write_text("ackerly train\nbrown val\ncastor trian\n")


def name_a_building_twice(raw: Path, buildings: Path) -> None:
    buildings.write_text(buildings.read_text() + "brown test\n")


def flag_a_building_twice(raw: Path, buildings: Path) -> None:
    lines = ["id,train,val,test", "ackerly,1,0,0", "brown,0,1,0", "castor,1,0,1", "darden,0,0,1"]
    buildings.write_text("\n".join(lines))


def leave_no_test(raw: Path, buildings: Path) -> None:
    buildings.write_text("".join(f"{building} train\n" for building in BUILDINGS))


def remove_file(raw: Path, buildings: Path) -> None:
    buildings.unlink()


def write_somebody_elses_index(raw: Path, buildings: Path) -> None:
    (raw / "taskonomy.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_kind, "has no folder keypoints2d: give the one that holds all six kinds"),
        (part_buildings, "has no view of which all 6 pictures are there"),
        (spoil_class, "castor/point_1_.* holds the value 18"),
        (spoil_picture, "castor/point_1_.* is not a whole image"),
        (forget_a_building, "gives no split train, val or test for building castor, darden: add"),
        (name_a_building_twice, "puts building brown into val and into test: leave it in one"),
        (flag_a_building_twice, "puts building castor into train and into test: leave it in one"),
        (leave_no_test, "leaves train or test without any building"),
        (remove_file, "buildings.txt cannot be read"),
        (write_somebody_elses_index, "already holds taskonomy.json, not prepared by this program"),
    ],
)
def test_bad_sources_end_with_one_sentence_and_code_2(
    spoil, message: str, raw: Path, tmp_path: Path, buildings: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    spoil(tmp_path / "raw", buildings)
    before = snapshot(tmp_path / "raw")
    assert_refused(command(tmp_path / "raw", "--buildings", buildings), message, capsys)
    after = snapshot(tmp_path / "raw")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("content", ["[]", "3", '{"views": 3}', '{"views": 3, "pixels": [1]}', '{"pixels": "0"}'])
def test_damaged_counts_of_a_building_are_named(
    content: str, raw: Path, tmp_path: Path, buildings: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    main(command(tmp_path / "raw", "--buildings", buildings))
    (tmp_path / "raw/semseg_counts/castor.json").write_text(content)
    message = r"castor\.json does not hold a building's counts of 17 classes: remove it, and run again"
    assert_refused(command(tmp_path / "raw", "--buildings", buildings), message, capsys)


def test_two_buildings_cannot_be_divided(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_taskonomy(tmp_path, {"ackerly": 1, "brown": 1})
    assert_refused(command(tmp_path), "has views of ackerly, brown alone, but train, val and test need", capsys)
