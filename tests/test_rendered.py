"""Rendered rooms: geometry against plain NumPy, the files against their own promises."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders import rendered
from dataloaders.rendered import render, render_frame, write_nyu_v2, write_samples
from dataloaders.rooms.furniture import chair
from dataloaders.rooms.pieces import CLASS_NAMES
from dataloaders.rooms.rays import Boxes, Camera, cast, pixel_slopes
from dataloaders.rooms.scene import FloorPlan, clearance, extent, find_view, furnish, moved_block
from dataloaders.rooms.view import texture_maps
from utils.errors import UserError

REPOSITORY = Path(__file__).parent.parent
SMALL = {"height": 48, "width": 64}
FLOOR, WALL = CLASS_NAMES.index("floor"), CLASS_NAMES.index("wall")


@pytest.fixture(scope="module")
def frames() -> list[dict[str, np.ndarray]]:
    return [render_frame(seed=3, index=index, height=120, width=160) for index in range(20)]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "set"
    write_nyu_v2(folder, {"train": 10, "test": 3}, **SMALL, seed=5)
    return folder


# ---------------------------------------------------------------------------------------- geometry


def one_box(centre: tuple, half: tuple) -> Boxes:
    return Boxes(
        centre=np.array([centre], np.float32),
        half=np.array([half], np.float32),
        axes=np.eye(3, dtype=np.float32)[None],
        label=np.zeros(1, np.uint8),
        thing=np.zeros(1, np.uint16),
        pattern=np.array(["plain"]),
        colours=np.zeros((1, 2, 3), np.float32),
        period=np.ones(1, np.float32),
        glow=np.zeros(1, np.float32),
    )


def test_level_camera_sees_a_floor_at_height_over_slope() -> None:
    camera = Camera(np.array([0, 0, 1.5], np.float32), np.eye(3, dtype=np.float32), half_width=0.5)
    hits = cast(one_box((0, 0, -1), (50, 50, 1)), camera, height=9, width=12)
    # The lowest row looks down by (4.5 - 0.5) / 6 of half the width per metre, the middle row straight ahead.
    np.testing.assert_allclose(hits.depth[8], 1.5 / (4 / 6 * 0.5), rtol=1e-5)
    assert np.isinf(hits.depth[:5]).all()
    assert (hits.axis[5:] == 2).all()


def test_ray_along_a_face_still_hits_the_box() -> None:
    camera = Camera(np.array([0, -3, 0], np.float32), np.eye(3, dtype=np.float32), half_width=0.5)
    hits = cast(one_box((0, 0, 0), (1, 1, 1)), camera, height=3, width=5)
    np.testing.assert_allclose(hits.depth[1, 2], 2.0)


def test_cast_equals_testing_every_box_for_every_pixel() -> None:
    room = furnish(np.random.default_rng([3, 1]))
    height, width = 60, 80
    hits = cast(room.boxes, room.camera, height, width)
    right, up = np.meshgrid(*pixel_slopes(room.camera, height, width))
    rays = np.stack([right, np.ones_like(right), up], axis=-1).astype(np.float64) @ room.camera.axes
    nearest = np.full((height, width), np.inf)
    for centre, half, axes in zip(room.boxes.centre, room.boxes.half, room.boxes.axes, strict=True):
        start, slope = axes @ (room.camera.position - centre), rays @ axes.T
        ends = np.stack([(-half - start) / slope, (half - start) / slope])
        enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
        nearest = np.where((enter < leave) & (enter > 0), np.minimum(nearest, enter), nearest)
    agree = np.isclose(hits.depth, nearest, rtol=1e-3)
    assert agree.mean() > 0.998  # float32 decides the pixels on outlines otherwise


@pytest.mark.parametrize("index", range(3))
def test_normals_are_those_of_the_depth(index: int) -> None:
    height, width = 240, 320
    frame = render_frame(3, index, height, width)
    camera = furnish(np.random.default_rng([3, index])).camera
    right, up = np.meshgrid(*pixel_slopes(camera, height, width))
    point = np.stack([right, np.ones_like(right), up], axis=-1).astype(np.float64) * frame["depth"][..., None]
    across, down = point[2:-2, 4:] - point[2:-2, :-4], point[4:, 2:-2] - point[:-4, 2:-2]
    normal = np.cross(down, across)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12

    # One plane over 5 x 5 pixels: valid, one normal, and inverse depth, affine on a plane, without a kink.
    inner = (slice(2, -2), slice(2, -2))
    window = np.ones((5, 5))
    valid = cv2.erode(frame["depth_valid"].astype(np.uint8), window)[inner] > 0
    spread = sum(cv2.morphologyEx(part, cv2.MORPH_GRADIENT, window) for part in cv2.split(frame["normal"]))
    inverse = 1 / np.maximum(frame["depth"], 0.1)
    kink = sum(
        np.abs(np.diff(inverse, 2, axis=axis)[cut]) for axis, cut in ((0, np.s_[1:-1, 2:-2]), (1, np.s_[2:-2, 1:-1]))
    )
    plane = valid & (spread[inner] < 1e-4) & (cv2.dilate(kink, window, borderValue=1) < 1e-4)
    cosine = np.sum(normal * frame["normal"][inner], axis=-1)[plane]
    assert plane.mean() > 0.3
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.0


def test_normals_are_unit_vectors_towards_the_camera(frames: list) -> None:
    for index, frame in enumerate(frames):
        camera = furnish(np.random.default_rng([3, index])).camera
        right, up = np.meshgrid(*pixel_slopes(camera, 120, 160))
        x, y, z = np.moveaxis(frame["normal"], -1, 0)
        np.testing.assert_allclose(np.linalg.norm(frame["normal"], axis=-1), 1, atol=1e-5)
        assert (x * right + y + z * up <= 1e-6).all()


def test_furniture_stays_apart() -> None:
    rng = np.random.default_rng(0)
    plan = FloorPlan(4.0, 4.0)
    for _ in range(40):
        plan.put_freely(rng, chair(rng))
    spaces = [moved_block(extent(piece), *origin[:2], yaw) for piece, origin, yaw in plan.placed]
    assert 5 < len(spaces) < 40
    for (low, high), (other_low, other_high) in combinations(spaces, 2):
        assert not ((low < other_high) & (other_low < high)).all()


def test_cameras_stand_outside_of_things() -> None:
    most_of_the_room = one_box((0, 0, 1.5), (1.4, 1.4, 0.5))
    cameras = [find_view(np.random.default_rng(seed), most_of_the_room, 4.5, 4.5) for seed in range(20)]
    assert min(clearance(most_of_the_room, camera) for camera in cameras) > 0.25


# ------------------------------------------------------------------------------------------ frames


def test_shapes_types_and_ranges(frames: list) -> None:
    expected = {
        "img": ((120, 160, 3), np.uint8),
        "seg": ((120, 160), np.uint8),
        "normal": ((120, 160, 3), np.float32),
        "normal_valid": ((120, 160), np.bool_),
        "depth": ((120, 160), np.float32),
        "depth_valid": ((120, 160), np.bool_),
        "keypoint": ((120, 160), np.float32),
        "edge": ((120, 160), np.float32),
    }
    for frame in frames:
        assert {name: (array.shape, array.dtype) for name, array in frame.items()} == expected
        assert ((frame["seg"] < 40) | (frame["seg"] == 255)).all()
        assert np.array_equal(frame["depth"] > 0, frame["depth_valid"])
        assert 0.2 < frame["depth"][frame["depth_valid"]].min() <= frame["depth"].max() < 12
        for name in ("keypoint", "edge"):
            assert frame[name].min() >= 0
            assert 0.2 < frame[name].max() <= 1


def test_every_view_shows_a_furnished_room(frames: list) -> None:
    shares = np.array([np.bincount(frame["seg"].ravel(), minlength=256)[:40] for frame in frames]) / (120 * 160)
    assert (shares > 0.002).sum(axis=1).min() >= 5
    assert (shares.mean(axis=0) > 0.001).sum() >= 15
    assert 0.2 < shares[:, WALL].mean() < 0.5
    assert all(90 < frame["img"].mean() < 170 and frame["img"].std() > 15 for frame in frames)
    assert all(np.median(frame["depth"]) > 1 for frame in frames)


def test_invalid_shares_are_like_those_of_real_frames(frames: list) -> None:
    for name, low, high in (("normal_valid", 0.15, 0.55), ("depth_valid", 0.01, 0.25)):
        invalid = [1 - frame[name].mean() for frame in frames]
        assert low < min(invalid) <= max(invalid) < high
    ignored = [(frame["seg"] == 255).mean() for frame in frames]
    assert 0.02 < min(ignored) <= max(ignored) < 0.35


def test_a_frame_depends_on_seed_and_index_alone() -> None:
    frame = render_frame(7, 2, **SMALL)
    render_frame(7, 3, **SMALL)
    again = render(np.random.default_rng([7, 2]), **SMALL)
    assert all(np.array_equal(frame[name], again[name]) for name in frame)
    others = [render_frame(8, 2, **SMALL), render_frame(7, 1, **SMALL)]
    assert all(np.abs(frame["depth"] - other["depth"]).mean() > 0.1 for other in others)


def test_the_room_does_not_depend_on_the_size_of_the_picture() -> None:
    large, small = render_frame(7, 2, 240, 320), render_frame(7, 2, 120, 160)
    assert np.mean(large["seg"][::2, ::2] == small["seg"]) > 0.75
    assert np.mean(large["normal_valid"][::2, ::2] == small["normal_valid"]) > 0.85


def test_texture_maps_find_steps_and_corners() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 128
    maps = texture_maps(image)
    assert maps["edge"][20, 9:11].min() > 0.8
    assert maps["edge"][20, 20] == maps["edge"][3, 3] == 0
    assert maps["keypoint"][10, 10] > 5 * maps["keypoint"][20, 10]


# ------------------------------------------------------------------------------------------- files


def test_splits_are_disjoint_and_complete(data_set: Path) -> None:
    splits = json.loads((data_set / "nyu_v2_3task.json").read_text())
    assert {name: len(entries) for name, entries in splits.items()} == {
        "train": 10,
        "train1": 8,
        "train2": 2,
        "test": 3,
    }
    assert splits["train"] == splits["train1"] + splits["train2"]
    entries = splits["train"] + splits["test"]
    files = [file for entry in entries for file in entry]
    assert len(set(files)) == len(files) == 4 * 13
    on_disk = {path.relative_to(data_set).as_posix() for path in data_set.glob("*/*")}
    assert on_disk == set(files)
    assert [Path(file).parent.name for file in entries[0]] == ["img", "seg", "normal_mask", "depth"]


def test_files_give_back_the_frame(data_set: Path) -> None:
    frame = render_frame(5, 0, **SMALL)
    read = lambda name: cv2.imread(str(data_set / name / "0000000.png"), cv2.IMREAD_UNCHANGED)  # noqa: E731
    np.testing.assert_array_equal(read("img")[..., ::-1], frame["img"])
    np.testing.assert_array_equal(read("seg"), frame["seg"])
    depth = np.load(data_set / "depth" / "0000000.npy")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, frame["depth"])

    colours = read("normal_mask")
    np.testing.assert_array_equal((colours == 255).all(axis=-1), ~frame["normal_valid"])
    decoded = colours[..., ::-1] / 127.5 - 1
    cosine = np.sum(decoded * frame["normal"], axis=-1) / np.linalg.norm(decoded, axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine[frame["normal_valid"]], -1, 1))).max() < 1


def test_no_valid_normal_becomes_white() -> None:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((1, 10000, 3))
    normal[0, :4] = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    colours = rendered.normals_to_colours(normal, np.ones((1, 10000), bool))
    assert not (colours == 255).all(axis=-1).any()


def test_channels_of_normals_are_those_of_real_frames(frames: list) -> None:
    # Median floor normals of three real frames, in OpenCV's channel order, that is up, forward, right.
    real = np.array([(0.97, -0.22, 0.05), (0.92, -0.37, -0.02), (0.91, -0.39, 0.0)])
    floors = [frame["normal"][frame["seg"] == FLOOR] for frame in frames if (frame["seg"] == FLOOR).mean() > 0.05]
    medians = np.array(
        [np.median(rendered.normals_to_colours(floor, np.ones(len(floor), bool)), axis=0) for floor in floors]
    )
    ours = medians[:, ::-1] / 127.5 - 1
    assert len(ours) > 10
    np.testing.assert_allclose(np.median(ours, axis=0), real.mean(axis=0), atol=0.15)


def test_files_do_not_depend_on_the_number_of_workers(data_set: Path, tmp_path: Path) -> None:
    write_nyu_v2(tmp_path / "set", {"train": 10, "test": 3}, **SMALL, seed=5, num_workers=2)
    names = sorted(path.relative_to(data_set) for path in data_set.rglob("*.*"))
    assert names == sorted(path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.*"))
    for name in names:
        assert (data_set / name).read_bytes() == (tmp_path / "set" / name).read_bytes(), name


def test_test_frames_stay_when_the_training_split_grows() -> None:
    few = rendered.frames_of_splits({"train": 2, "test": 3})
    many = rendered.frames_of_splits({"train": 1000, "test": 3})
    assert few["test"] == many["test"]
    assert len(few["train1"]) == len(few["train2"]) == 1


def test_finished_folder_is_reused(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "render_frame", lambda *_: pytest.fail("rendered again"))
    index = write_nyu_v2(data_set, {"train": 10, "test": 3}, **SMALL, seed=5)
    assert index == data_set / "nyu_v2_3task.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "expected seed 6, found 5"),
        ({"width": 80}, "expected width 80, found 64"),
        ({"split_sizes": {"train": 11, "test": 3}}, "expected train 11, found 10"),
    ],
)
def test_folder_of_other_arguments_is_refused(data_set: Path, change: dict, message: str) -> None:
    arguments = {"split_sizes": {"train": 10, "test": 3}, **SMALL, "seed": 5} | change
    with pytest.raises(UserError, match=message):
        write_nyu_v2(data_set, **arguments)


def test_foreign_folder_and_damaged_record_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="new or an empty folder"):
        write_nyu_v2(tmp_path, {"train": 2, "test": 1}, **SMALL, seed=0)
    (tmp_path / "rendered.json").write_text("{")
    with pytest.raises(UserError, match=r"rendered\.json: expected"):
        write_nyu_v2(tmp_path, {"train": 2, "test": 1}, **SMALL, seed=0)


def test_list_of_splits_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_test_frames(seed: int, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        if index >= rendered.FIRST_TEST_FRAME:
            raise KeyboardInterrupt
        return render_frame(seed, index, height, width)

    arguments = {"split_sizes": {"train": 2, "test": 1}, **SMALL, "seed": 0}
    with monkeypatch.context() as patch:
        patch.setattr(rendered, "render_frame", fail_at_test_frames)
        with pytest.raises(KeyboardInterrupt):
            write_nyu_v2(tmp_path / "set", **arguments)
    assert not (tmp_path / "set" / "nyu_v2_3task.json").exists()
    assert write_nyu_v2(tmp_path / "set", **arguments).is_file()
    assert len(list((tmp_path / "set").glob("*/*"))) == 4 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nyu_v2", "set", "--train", "1"], "expected 2 to"),
        (["nyu_v2", "set", "--test", "0"], "at least 1 test frame"),
        (["nyu_v2", "set", "--height", "8"], "at least 32 x 32"),
        (["nyu_v2", "set", "--workers", "-1"], "workers -1"),
        (["samples", "set", "--seed", "-3"], "seed -3"),
        (["samples", "set", "--count", "0"], "count of at least 1"),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_code_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        rendered.main(options)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_command_line_writes_a_set(tmp_path: Path) -> None:
    sizes = ["--train", "2", "--test", "1", "--height", "48", "--width", "64", "--workers", "1"]
    command = [sys.executable, "-m", "dataloaders.rendered", "nyu_v2", str(tmp_path / "set"), *sizes]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 'set' / 'nyu_v2_3task.json'}: 3 frames in ")


def test_shipped_samples_are_made_again_by_their_command(tmp_path: Path) -> None:
    shipped = REPOSITORY / "nyu_v2_samples"
    write_samples(tmp_path, seed=9)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*"))
    assert names == sorted(path.relative_to(shipped) for path in shipped.glob("*/*"))
    assert len(names) == 16
    assert "samples nyu_v2_samples --seed 9" in (shipped / "README.md").read_text()
    for name in names:
        load = np.load if name.suffix == ".npy" else lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ours, theirs = load(tmp_path / name), load(shipped / name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        tolerance = {"img": 2, "seg": 0, "normal_mask": 1, "depth": 1e-3}[name.parts[0]]
        # Another release of NumPy or OpenCV may round a pixel on an outline to its other side.
        assert np.mean(np.abs(ours.astype(float) - theirs) > tolerance) < 0.002, name
