"""NYU v2 from raw files: every output against NumPy, and what happens when a run is killed."""

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from dataloaders.nyu_v2 import NYUv2
from dataloaders.prepare.__main__ import main
from tests.raw_downloads import FLOOR, WALL, assert_refused, contents, nyu_v2_command, snapshot, write_nyu_v2
from tests.test_prepare_surface_normals import angles

HEIGHT, WIDTH = 120, 160


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("raw")
    return folder, write_nyu_v2(folder, 7, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def prepared(raw: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = snapshot(raw[0])
    output = tmp_path_factory.mktemp("made") / "nyu v2"
    main(nyu_v2_command(raw[0], output))
    assert snapshot(raw[0]) == before
    return output


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("number", [1, 7])
def test_files_hold_what_the_download_holds(raw: tuple[Path, dict], prepared: Path, number: int) -> None:
    frame = {name: array[number - 1] for name, array in raw[1].items()}
    np.testing.assert_array_equal(read(prepared / f"img/{number:04d}.png")[..., ::-1], frame["images"])
    depth = np.load(prepared / f"depth/{number:04d}.npy")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, frame["depths"])
    # The class mapping of the test is label 1 -> 1, 2 -> 2, ..., 41 -> 1 and so on.
    label = frame["labels"].astype(int)
    np.testing.assert_array_equal(read(prepared / f"seg/{number:04d}.png"), np.where(label == 0, 255, (label - 1) % 40))


@pytest.mark.parametrize("number", [2, 3])
def test_normals_are_those_of_the_filled_in_depth_and_white_where_nothing_was_measured(
    raw: tuple[Path, dict], prepared: Path, number: int
) -> None:
    colours = read(prepared / f"normal_mask/{number:04d}.png")[..., ::-1]
    white = (colours == 255).all(axis=-1)
    unmeasured = raw[1]["rawDepths"][number - 1] == 0
    assert white[unmeasured].all()
    # In the corners of so small a picture the floor is too steep for a window to hold enough similar depths.
    assert white[~unmeasured].mean() < 0.02
    wall, floor = np.zeros(white.shape, bool), np.zeros(white.shape, bool)
    wall[:, : WIDTH // 2 - 10] = True
    floor[HEIGHT // 2 :, WIDTH // 2 + 10 :] = True
    for plane, normal in ((wall, WALL), (floor, FLOOR)):
        assert angles(colours[plane & ~white] / 127.5 - 1, np.array(normal)).max() < 0.5  # 0.4 is rounding's


def test_splits_are_the_official_ones_and_train_is_divided(prepared: Path) -> None:
    splits = json.loads((prepared / "nyu_v2_3task.json").read_text())
    names = {split: [Path(row[0]).stem for row in rows] for split, rows in splits.items()}
    assert names["train"] == ["0001", "0002", "0003", "0004", "0005"]
    assert names["test"] == ["0006", "0007"]
    assert (len(names["train1"]), len(names["train2"])) == (4, 1)
    assert sorted(names["train1"] + names["train2"]) == names["train"]
    assert splits["test"][0] == ["img/0006.png", "seg/0006.png", "normal_mask/0006.png", "depth/0006.npy"]


def test_what_is_made_can_be_read(prepared: Path) -> None:
    dataset = NYUv2(prepared, "train1", ("seg", "normal", "depth"), normals="decoded")
    assert (len(dataset), dataset.notes) == (4, ())
    sample = dataset[(0, 0)]
    assert sample["img"].shape == (3, HEIGHT, WIDTH)
    assert sample["depth_valid"].all()


def test_second_run_changes_nothing_and_says_the_same(
    raw: tuple[Path, dict], prepared: Path, capsys: pytest.CaptureFixture
) -> None:
    before = snapshot(prepared)
    main(nyu_v2_command(raw[0], prepared))
    assert snapshot(prepared) == before
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{prepared / 'nyu_v2_3task.json'}: train 5, test 2, train1 4, train2 1"
    assert printed[1].endswith(f"--config yamls/adashare/nyu_v2_3task.yml --set 'dataload.dataroot={prepared}'")


def test_killed_run_is_continued_by_several_processes(tmp_path: Path) -> None:
    write_nyu_v2(tmp_path / "raw", 5, 480, 640)  # so large that there is time to kill it
    output = tmp_path / "made"
    command = nyu_v2_command(tmp_path / "raw", output)
    run = multiprocessing.get_context("fork").Process(target=main, args=(command,))
    run.start()
    while not list(output.glob("depth/*.npy")):
        assert run.is_alive()
        time.sleep(0.01)
    run.kill()
    run.join()
    assert not (output / "nyu_v2_3task.json").exists()
    (output / "seg" / f".{'0f' * 16}.tmp").write_bytes(b"half")
    finished = snapshot(output)["depth/0001.npy"]

    main([*command[:-1], "2"])
    assert snapshot(output)["depth/0001.npy"] == finished
    assert not [name for name in contents(output) if name.endswith(".tmp")]
    main(nyu_v2_command(tmp_path / "raw", tmp_path / "at once"))
    assert contents(output) == contents(tmp_path / "at once")


def test_frames_without_raw_depth_have_normals_wherever_there_is_depth(raw: tuple[Path, dict], tmp_path: Path) -> None:
    shutil.copytree(raw[0], tmp_path / "raw")
    with h5py.File(tmp_path / "raw/labeled.mat", "r+") as file:
        del file["rawDepths"]
        file["depths"][0, :40, :30] = np.nan  # columns first
    main(nyu_v2_command(tmp_path / "raw", tmp_path / "made"))
    hole, whole = ((read(tmp_path / f"made/normal_mask/{name}.png") == 255).all(axis=-1) for name in ("0001", "0002"))
    assert whole.mean() < 0.02
    assert hole[:30, :40].all()
    np.testing.assert_array_equal(
        hole[:60, :80] & ~whole[:60, :80], np.pad(np.ones((30, 40), bool), ((0, 30), (0, 40)))
    )
    assert (np.load(tmp_path / "made/depth/0001.npy")[:30, :40] == 0).all()


def exchange_classes(folder: Path) -> None:
    scipy.io.savemat(folder / "classes.mat", {"mapClass": np.full((1, 894), 3, np.uint8)})


def exchange_splits(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1], [2]], "testNdxs": [[3]]})


def exchange_frames(folder: Path) -> None:
    os.utime(folder / "labeled.mat", (10, 10))


@pytest.mark.parametrize(
    ("exchange", "source"),
    [(exchange_classes, "classes"), (exchange_splits, "splits"), (exchange_frames, "labeled")],
)
def test_sources_exchanged_in_place_are_refused(
    exchange, source: str, raw: tuple[Path, dict], prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw[0], tmp_path / "raw")  # keeps the times of change
    before = snapshot(prepared)
    main(nyu_v2_command(tmp_path / "raw", prepared))
    exchange(tmp_path / "raw")
    message = rf"was prepared from other sources \({source} was [^;]*, now is [^;]*\): bring those back"
    assert_refused(nyu_v2_command(tmp_path / "raw", prepared), message, capsys)
    assert snapshot(prepared) == before


# Bad input


def truncate(folder: Path) -> None:
    path = folder / "labeled.mat"
    path.write_bytes(path.read_bytes()[:5000])


def remove_depths(folder: Path) -> None:
    with h5py.File(folder / "labeled.mat", "r+") as file:
        del file["depths"]


def replace_array(folder: Path, name: str, array: np.ndarray) -> None:
    with h5py.File(folder / "labeled.mat", "r+") as file:
        del file[name]
        file[name] = array


def drop_last_depth(folder: Path) -> None:
    replace_array(folder, "depths", np.ones((6, WIDTH, HEIGHT), np.float32))


def turn_raw_depths(folder: Path) -> None:
    replace_array(folder, "rawDepths", np.ones((7, HEIGHT, WIDTH), np.float32))


def store_raw_depths_in_millimetres(folder: Path) -> None:
    replace_array(folder, "rawDepths", np.ones((7, WIDTH, HEIGHT), np.uint16))


def store_labels_as_numbers(folder: Path) -> None:
    replace_array(folder, "labels", np.ones((7, WIDTH, HEIGHT)))


def store_images_0_to_1(folder: Path) -> None:
    replace_array(folder, "images", np.ones((7, 3, WIDTH, HEIGHT)))


def add_a_channel(folder: Path) -> None:
    replace_array(folder, "images", np.ones((7, 4, WIDTH, HEIGHT), np.uint8))


def name_frame_1_twice_for_training(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1], [1]], "testNdxs": [[2]]})


def enlarge_label(folder: Path) -> None:
    with h5py.File(folder / "labeled.mat", "r+") as file:
        file["labels"][4, 0, 0] = 900


def name_frame_8(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1], [8]], "testNdxs": [[2]]})


def name_frame_twice(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1], [2]], "testNdxs": [[2]]})


def leave_out_test(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1], [2]]})


def exchange_text_for_splits(folder: Path) -> None:
    (folder / "splits.mat").write_text("train: 1, 2")


def damage_compressed_splits(folder: Path) -> None:
    path = folder / "splits.mat"
    scipy.io.savemat(path, {"trainNdxs": np.arange(100)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:150] + bytes(100))


def exchange_a_large_file_for_splits(folder: Path) -> None:
    (folder / "splits.mat").write_bytes(bytes(1_000_001))


def map_to_41(folder: Path) -> None:
    scipy.io.savemat(folder / "classes.mat", {"mapClass": [[1, 41]]})


def remove_classes(folder: Path) -> None:
    (folder / "classes.mat").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "labeled.mat cannot be opened as HDF5"),
        (remove_depths, "labeled.mat lacks 'depths' with 3 axes of type floating: give"),
        (drop_last_depth, r"'depths' of .*labeled.mat is \[6, 160, 120\], .* must be \[7, 160, 120\]"),
        (turn_raw_depths, r"'rawDepths' of .*labeled.mat is \[7, 120, 160\], .* must be \[7, 160, 120\]"),
        (add_a_channel, r"'images' of .*labeled.mat is \[7, 4, 160, 120\], .* must be \[7, 3, 160, 120\]"),
        (store_raw_depths_in_millimetres, "lacks 'rawDepths' with 3 axes of type floating"),
        (store_labels_as_numbers, "lacks 'labels' with 3 axes of type unsignedinteger"),
        (store_images_0_to_1, "lacks 'images' with 4 axes of type uint8"),
        (enlarge_label, "frame 5 of .*labeled.mat has label 900, but the class mapping ends at 894"),
        (name_frame_8, "has 7 frames, but the splits name frame 8"),
        (name_frame_1_twice_for_training, "splits.mat must name every frame, counted from 1, at most once"),
        (name_frame_twice, "splits.mat must name every frame, counted from 1, at most once"),
        (leave_out_test, "splits.mat has no whole numbers called testNdxs"),
        (exchange_text_for_splits, "splits.mat cannot be read as a MATLAB file"),
        (damage_compressed_splits, "splits.mat cannot be read as a MATLAB file"),
        (exchange_a_large_file_for_splits, "splits.mat cannot be read .it is larger than 1 MB"),
        (map_to_41, "mapClass of .*classes.mat must hold classes from 1 to 40"),
        (remove_classes, r"classes.mat cannot be read \(No such file or directory\)"),
    ],
)
def test_bad_sources_end_with_one_sentence_and_code_2(
    spoil, message: str, raw: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(raw[0], tmp_path / "raw")
    spoil(tmp_path / "raw")
    assert_refused(nyu_v2_command(tmp_path / "raw", tmp_path / "made"), message, capsys)
    assert not (tmp_path / "made/nyu_v2_3task.json").exists()
