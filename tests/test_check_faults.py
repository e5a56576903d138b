"""The check of data that something is wrong with: each fault is told with its file, and the exit code is 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.check.findings import Findings
from tests.test_check import check, no_sheet, rendered  # noqa: F401

TRAIN, TEST = "0000000", "1000000"
"""Names of the first frames of train and test."""

Damage = Callable[[Path], None]
Copy = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _without_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", no_sheet)


@pytest.fixture
def copy(rendered: dict[str, Path], tmp_path: Path) -> Copy:  # noqa: F811
    """Makes a copy of the rendered set of a format, to be damaged."""
    return lambda form: Path(shutil.copytree(rendered[form], tmp_path / form))


# ---------------------------------------------------------------------------------------------- damages


def remove(file: str) -> Damage:
    return lambda root: (root / file).unlink()


def truncate(file: str) -> Damage:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:90])


def write_text(file: str, text: str) -> Damage:
    return lambda root: (root / file).write_text(text) and None


def change_array(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda root: np.save(root / file, change(np.load(root / file)))


def change_picture(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(root: Path) -> None:
        picture = change(cv2.imread(str(root / file), cv2.IMREAD_UNCHANGED))
        assert cv2.imwrite(str(root / file), picture)

    return damage


def change_json(file: str, change: Callable[[dict], object]) -> Damage:
    def damage(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return damage


def set_line(file: str, number: int, text: str) -> Damage:
    def damage(root: Path) -> None:
        lines = (root / file).read_text().splitlines()
        lines[number] = text
        (root / file).write_text("\n".join(lines) + "\n")

    return damage


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The array with this value at one place."""

    def change(array: np.ndarray) -> np.ndarray:
        array[5, 7] = value
        return array

    return change


def smaller(array: np.ndarray) -> np.ndarray:
    return array[:20]


# --------------------------------------------------------------------------------------- one at a time

FAULTS: dict[str, tuple[str, Damage, list[str]]] = {
    "missing file": ("nyu_v2", remove(f"depth/{TEST}.npy"), [f"/depth/{TEST}.npy does not exist: put it there"]),
    "truncated picture": ("nyu_v2", truncate(f"img/{TRAIN}.png"), [f"/img/{TRAIN}.png is not a whole image"]),
    "truncated array": ("nyu_v2", truncate(f"depth/{TRAIN}.npy"), [f"/depth/{TRAIN}.npy cannot be read as a NumPy"]),
    "wrong shape": (
        "nyu_v2",
        change_array(f"depth/{TRAIN}.npy", lambda depth: depth[None]),
        [f"/depth/{TRAIN}.npy must hold one array [H, W]"],
    ),
    "wrong type": (
        "nyu_v2",
        change_array(f"depth/{TRAIN}.npy", lambda depth: depth.astype(np.int32)),
        [f"/depth/{TRAIN}.npy must hold one array [H, W] of floating-point metres"],
    ),
    "sizes that differ within a frame": (
        "nyu_v2",
        change_picture(f"seg/{TRAIN}.png", smaller),
        [f"/seg/{TRAIN}.png is 20x48 pixels, but its image"],
    ),
    "class beyond tasks_num_class": (
        "nyu_v2",
        change_picture(f"seg/{TRAIN}.png", with_value(45)),
        [f"/seg/{TRAIN}.png holds class 45, but tasks_num_class gives seg the classes 0..39"],
    ),
    "no class in a frame": (
        "nyu_v2",
        change_picture(f"seg/{TRAIN}.png", lambda seg: np.full_like(seg, 255)),
        [f"/seg/{TRAIN}.png has no valid pixel for seg"],
    ),
    "no depth in a frame": (
        "nyu_v2",
        change_array(f"depth/{TRAIN}.npy", np.zeros_like),
        [f"/depth/{TRAIN}.npy has no valid pixel for depth"],
    ),
    "train1 and train2 overlap": (
        "nyu_v2",
        change_json("nyu_v2_3task.json", lambda splits: splits["train2"].append(splits["train1"][0])),
        [f"train1 and train2 of ROOT/nyu_v2_3task.json share 1 samples (ROOT/img/{TRAIN}.png)"],
    ),
    "train and test overlap": (
        "nyu_v2",
        change_json("nyu_v2_3task.json", lambda splits: splits["test"].append(splits["train"][0])),
        [f"training and test of ROOT/nyu_v2_3task.json share 1 samples (ROOT/img/{TRAIN}.png)"],
    ),
    "sample listed twice": (
        "nyu_v2",
        change_json("nyu_v2_3task.json", lambda splits: splits["train2"].append(splits["train2"][0])),
        ["split 'train2' of ROOT/nyu_v2_3task.json lists 1 samples more than once"],
    ),
    "empty split": (
        "nyu_v2",
        change_json("nyu_v2_3task.json", lambda splits: splits["train2"].clear()),
        ["split 'train2' of ROOT/nyu_v2_3task.json is empty"],
    ),
    "unreadable list": ("nyu_v2", truncate("nyu_v2_3task.json"), ["nyu_v2_3task.json cannot be read as JSON"]),
    "row of wrong length": (
        "nyu_v2",
        change_json("nyu_v2_3task.json", lambda splits: splits["test"][1].pop()),
        ["frame 1 of split 'test' of ROOT/nyu_v2_3task.json is not a list of the 4 paths"],
    ),
    "image outside 0..1": (
        "cityscapes",
        change_array(f"img/{TRAIN}.npy", lambda image: image * 255),
        [f"/img/{TRAIN}.npy holds values from "],
    ),
    "label beyond the classes": (
        "cityscapes",
        change_array(f"label19/{TRAIN}.npy", with_value(19)),
        [f"/label19/{TRAIN}.npy holds 19 where a class 0..18"],
    ),
    "NaN in an image": (
        "cityscapes",
        change_array(f"img/{TRAIN}.npy", with_value(np.nan)),
        [f"/img/{TRAIN}.npy holds values from nan"],
    ),
    "class weights of wrong length": (
        "taskonomy",
        change_array("semseg_prior_factor.npy", lambda weights: weights[:16]),
        ["semseg_prior_factor.npy must hold one array [17]"],
    ),
    "no class weights": ("taskonomy", remove("semseg_prior_factor.npy"), ["ROOT has no semseg_prior_factor.npy"]),
    "depth of 8 bits": (
        "taskonomy",
        change_picture(f"depth/{TRAIN}.png", lambda depth: depth.astype(np.uint8)),
        [f"/depth/{TRAIN}.png must have one channel of 16 bits"],
    ),
    "no depth, so no normal": (
        "taskonomy",
        change_picture(f"depth/{TRAIN}.png", lambda depth: np.full_like(depth, 65535)),
        [f"/normal/{TRAIN}.png has no valid pixel for sn", f"/depth/{TRAIN}.png has no valid pixel for depth"],
    ),
    "truncated image of a domain": (
        "domainnet",
        truncate(f"sketch/bathtub/{TRAIN}.png"),
        [f"/sketch/bathtub/{TRAIN}.png is not a whole image"],
    ),
    "missing image of a domain": (
        "domainnet",
        remove(f"sketch/bathtub/{TRAIN}.png"),
        [f"/sketch/bathtub/{TRAIN}.png does not exist"],
    ),
    "class beyond those of a domain": (
        "domainnet",
        set_line("train.txt", 0, f"photo/bathtub/{TRAIN}.png 20"),
        [f"/photo/bathtub/{TRAIN}.png holds class 20, but tasks_num_class gives photo the classes 0..19"],
    ),
    "index beyond the list": (
        "domainnet",
        change_json("DomainNet.json", lambda splits: splits["train"]["photo"].append(30)),
        ["domain 'photo' of split 'train' of ROOT/DomainNet.json must be a list of numbers of lines of train.txt"],
    ),
    "line without a TAB": (
        "fdu_mtl",
        set_line("music.task.test", 1, "a review without label"),
        ["line 2 of ROOT/music.task.test has no TAB"],
    ),
    "label beyond the classes of a domain": (
        "fdu_mtl",
        set_line("music.task.train", 0, "2\tsuch a song ."),
        ["line 1 of ROOT/music.task.train has the label '2'"],
    ),
    "missing domain": ("fdu_mtl", remove("music.task.train"), ["ROOT/music.task.* has no split 'train'"]),
}
"""What is wrong -> the format, how it comes about, and the sentences that must be told."""


def told(form: str, root: Path, capsys: pytest.CaptureFixture, *settings: str) -> list[str]:
    """The faults that a check tells, with ROOT for the data root."""
    assert check(form, root, *settings) == 2
    heading, *faults = capsys.readouterr().err.replace(str(root), "ROOT").splitlines()
    assert heading == f"error: ROOT: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
    return [fault.strip() for fault in faults]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_told(name: str, copy: Copy, capsys: pytest.CaptureFixture) -> None:
    form, damage, sentences = FAULTS[name]
    root = copy(form)
    damage(root)
    faults = told(form, root, capsys)
    for sentence in sentences:
        assert any(sentence in fault for fault in faults), faults
    assert len(faults) == len(sentences), faults


# ------------------------------------------------------------------------------------------ all at once


@pytest.mark.parametrize("form", ["nyu_v2", "cityscapes", "taskonomy"])
def test_faults_of_frames_are_told_together(form: str, copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy(form)
    split_file = {"nyu_v2": "nyu_v2_3task.json", "cityscapes": "cityscape.json", "taskonomy": "taskonomy.json"}[form]
    splits = json.loads((root / split_file).read_text())
    # Labels of 2 and of 7 classes are not asked for.
    columns = [0, 1, 4] if form == "cityscapes" else list(range(len(splits["train"][0])))
    # Every file of a training frame is cut off, every one of a test frame is missing.
    for column in columns:
        truncate(splits["train"][1][column])(root)
        remove(splits["test"][1][column])(root)
    faults = told(form, root, capsys)
    assert len(faults) == 2 * len(columns)
    for column in columns:
        assert any(f"ROOT/{splits['test'][1][column]} does not exist" in fault for fault in faults)
        assert any(f"ROOT/{splits['train'][1][column]} " in fault for fault in faults)


def test_faults_of_one_domain_do_not_hide_those_of_others(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("fdu_mtl")
    for file in ("books.task.train", "books.task.test", "music.task.train"):
        set_line(file, 0, "no tab")(root)
    assert [fault.split(" has no TAB")[0] for fault in told("fdu_mtl", root, capsys)] == [
        "line 1 of ROOT/books.task.train",
        "line 1 of ROOT/books.task.test",
        "line 1 of ROOT/music.task.train",
    ]


def test_faults_are_told_beside_the_tables(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("nyu_v2")
    remove(f"seg/{TEST}.png")(root)
    assert check("nyu_v2", root) == 2
    output = capsys.readouterr().out
    assert "depth   test" in output
    assert "nothing is wrong" not in output


def test_no_value_in_a_whole_split(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("nyu_v2")
    for name in (TEST, "1000001"):
        change_array(f"depth/{name}.npy", np.zeros_like)(root)
    faults = told("nyu_v2", root, capsys)
    assert len(faults) == 4
    assert any("split 'test' of NYU_v2 has no valid value of depth" in fault for fault in faults)


def test_images_that_cannot_share_an_evaluation_batch(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("nyu_v2")
    for file in (f"img/{TEST}.png", f"seg/{TEST}.png", f"normal_mask/{TEST}.png"):
        change_picture(file, smaller)(root)
    change_array(f"depth/{TEST}.npy", smaller)(root)
    (fault,) = told("nyu_v2", root, capsys)
    assert f"ROOT/img/{TEST}.png is 20x48" in fault
    assert "cannot share the batches of 16" in fault
    assert check("nyu_v2", root, "train.batch_size=1") == 0


def test_a_wrong_data_root_is_one_fault(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for form in ("nyu_v2", "cityscapes", "taskonomy", "domainnet", "fdu_mtl"):
        (fault,) = told(form, tmp_path / "nowhere", capsys)
        assert "ROOT is not a folder" in fault


def test_a_file_that_two_rows_name_is_told_once_and_a_hundred_at_most() -> None:
    findings = Findings()
    findings.add_faults(["a is bad", "a is bad"])
    assert findings.report() == "1 fault\n  a is bad"
    findings.add_faults(f"{number} is bad" for number in range(150))
    lines = findings.report().splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("151 faults", 102, "  ... and 51 more")


# ------------------------------------------------------------------------------------------------ notes


def noted(form: str, root: Path, capsys: pytest.CaptureFixture) -> str:
    """The notes of a check that finds no fault."""
    assert check(form, root) == 0
    return capsys.readouterr().out.replace(str(root), "ROOT")


def test_infinite_depth_is_noted(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("nyu_v2")
    change_array(f"depth/{TEST}.npy", with_value(np.inf))(root)
    output = noted("nyu_v2", root, capsys)
    assert "NYU_v2, 1 of the 2 samples of test: depth holds NaN or infinity" in output
    assert f"(the first is ROOT/img/{TEST}.png)" in output


def test_train_parts_beyond_train_are_noted(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("nyu_v2")
    change_json("nyu_v2_3task.json", lambda splits: splits["train"].pop())(root)
    assert "have 1 samples that train lacks" in noted("nyu_v2", root, capsys)


def test_domain_that_lacks_a_class_is_noted(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("domainnet")
    change_json("DomainNet.json", lambda splits: splits["test"]["sketch"].pop())(root)
    change_json("DomainNet.json", lambda splits: splits["val"]["sketch"].pop())(root)
    output = noted("domainnet", root, capsys)
    assert "sketch has no sample of 1 classes in test that other domains have there" in output
    assert "photo has no sample" not in output


def test_empty_and_repeated_texts_are_noted(copy: Copy, capsys: pytest.CaptureFixture) -> None:
    root = copy("fdu_mtl")
    set_line("music.task.test", 0, "1\t")(root)
    for file, number in (("books.task.train", 0), ("books.task.train", 1), ("books.task.test", 0)):
        set_line(file, number, "0\tthe same words")(root)
    output = noted("fdu_mtl", root, capsys)
    assert "music, 1 of the 2 samples of test: the text is empty (the first is music 1)" in output
    counts = "1 samples of train more than once and 1 of the 2 samples of test in training as well"
    assert f"ROOT/books.task.* lists {counts}" in output
