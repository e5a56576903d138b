"""The check of sound data: its exit code, its tables against NumPy, its pictures, and data sets of one's own."""

import json
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import Dataset

from dataloaders import DATASETS
from dataloaders.check.__main__ import main
from dataloaders.check.findings import Findings
from dataloaders.check.inspection import ChunkInspection, Summaries, inspect
from dataloaders.check.parts import Parts
from dataloaders.options import DataOptions
from dataloaders.rendered import WRITERS
from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "yamls/adashare"
SIZE = {"height": 32, "width": 48}

SETTINGS = {
    "nyu_v2": ("nyu_v2_3task.yml", "dataload.normals=decoded"),
    "cityscapes": ("cityscapes_2task.yml",),
    "taskonomy": ("taskonomy_5task.yml",),
    "domainnet": (
        "domainnet.yml",
        "tasks=[photo,sketch]",
        "tasks_num_class=[20,20]",
        "lambdas=[1,1]",
        "dataload.crop_h=32",
        "dataload.crop_w=32",
    ),
    "fdu_mtl": ("fdu_mtl.yml", "tasks=[books,music]", "tasks_num_class=[2,2]", "lambdas=[1,1]"),
}
"""Format -> a shipped configuration, and what its rendered data need to be different in it."""


def write_set(form: str, folder: Path) -> Path:
    """Five training and two test samples (of each domain) in a format."""
    WRITERS[form](folder, {"train": 5, "test": 2}, seed=3, **({} if form == "fdu_mtl" else SIZE))
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> data root, not to be changed."""
    folder = tmp_path_factory.mktemp("rendered")
    return {form: write_set(form, folder / form) for form in WRITERS}


def check(form: str, root: Path, *settings: str, workers: int = 0) -> int:
    """The exit code of a check of a data root, whose sheet of pictures goes to sheet.png in it."""
    config, *others = SETTINGS[form]
    arguments = ["--config", str(CONFIGS / config), "--set", f"dataload.dataroot={root}", *others, *settings]
    return run([*arguments, "--workers", str(workers), "--pictures", str(root / "sheet.png")])


def run(arguments: list[str]) -> int:
    """The exit code of the command."""
    try:
        main(arguments)
    except SystemExit as exit_:
        return exit_.code
    return 0


def cells(output: str, table: str, *keys: str) -> dict[str, str]:
    """Heading -> cell of the row of a table that begins with these cells."""
    lines = iter(output.splitlines())
    heading = next(line for line in lines if line.startswith(f"{table}  "))
    next(lines)
    for line in lines:
        row = re.split(r"\s{2,}", line)
        if row[: len(keys)] == list(keys):
            return dict(zip(re.split(r"\s{2,}", heading), row, strict=True))
    raise AssertionError(f"no row {keys} below {heading}")


def assert_row(row: dict[str, str], **expected: float) -> None:
    """The cells hold these numbers, as far as four digits, or two behind the point, can tell."""
    found = {heading: float(row[heading.replace("_", " ")]) for heading in expected}
    assert found == pytest.approx(expected, rel=1e-3, abs=0.006)


def most_common(counts: np.ndarray) -> str:
    shares = 100 * counts / counts.sum()
    return ", ".join(f"{label} ({shares[label]:.1f} %)" for label in np.argsort(-counts, kind="stable")[:5])


# ------------------------------------------------------------------------------------ tables against NumPy


def test_nyu_v2(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    root = rendered["nyu_v2"]
    assert check("nyu_v2", root) == 0
    output = capsys.readouterr().out
    assert list(cells(output, "samples", "NYU_v2").values()) == ["NYU_v2", "5", "4", "1", "2", "2", "32x48"]

    files = {name: sorted((root / name).glob("0*")) for name in ("seg", "normal_mask", "depth")}
    depth = np.stack([np.load(file) for file in files["depth"]])
    measured = depth[depth > 3e-5]
    row = cells(output, "values", "depth", "train")
    assert row["unit"] == "m"
    assert_row(row, min=measured.min(), max=measured.max(), **{"valid %": 100 * measured.size / depth.size})

    normals = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files["normal_mask"]])
    labelled = (normals != 255).any(axis=-1)
    components = normals[labelled] / 127.5 - 1
    row = cells(output, "values", "sn", "train")
    assert_row(row, min=components.min(), max=components.max(), **{"valid %": 100 * labelled.mean()})

    seg = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files["seg"]])
    counts = np.bincount(seg[seg < 40], minlength=40)
    row = cells(output, "classes of pixels", "seg", "train")
    assert_row(row, classes=40, never_occur=(counts == 0).sum(), **{"labelled %": 100 * (seg < 40).mean()})
    assert row["most common"] == most_common(counts)
    assert f"checked  {root}: nothing is wrong" in output
    assert "val is test, or a part of it" in output


def test_cityscapes(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    root = rendered["cityscapes"]
    assert check("cityscapes", root, "tasks_num_class=[7,1]") == 0
    output = capsys.readouterr().out
    depth = np.stack([np.load(file) for file in sorted((root / "depth").glob("1*"))])
    row = cells(output, "values", "depth", "test")
    assert row["unit"] == "inverse depth"
    assert_row(row, min=depth[depth > 0].min(), max=depth.max(), **{"valid %": 100 * (depth > 0).mean()})
    labels = np.stack([np.load(file) for file in sorted((root / "label7").glob("1*"))])
    counts = np.bincount(labels[labels >= 0], minlength=7)
    row = cells(output, "classes of pixels", "seg", "test")
    assert_row(row, classes=7, never_occur=(counts == 0).sum(), **{"labelled %": 100 * (labels >= 0).mean()})
    assert row["most common"] == most_common(counts)


def test_taskonomy(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    root = rendered["taskonomy"]
    assert check("taskonomy", root) == 0
    output = capsys.readouterr().out
    assert list(cells(output, "samples", "Taskonomy").values()) == ["Taskonomy", "5", "4", "1", "1", "2", "32x48"]

    def read(name: str) -> np.ndarray:
        files = sorted((root / name).glob("0*"))
        frames = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        return np.stack([cv2.resize(frame, (256, 256), interpolation=cv2.INTER_NEAREST) for frame in frames])

    depth = read("depth").astype(float)
    log_depth = np.log(1 + depth[depth < 64500]) / np.log(2**16)
    row = cells(output, "values", "depth", "train")
    assert_row(row, min=log_depth.min(), max=log_depth.max(), **{"valid %": 100 * (depth < 64500).mean()})
    assert_row(cells(output, "values", "sn", "train"), **{"valid %": 100 * (depth < 64500).mean()})
    edge = 2 * np.minimum(read("edge") / 2**16, 0.08) / 0.08 - 1
    assert_row(cells(output, "values", "edge", "train"), min=edge.min(), max=edge.max(), **{"valid %": 100})
    seg = np.maximum(read("seg").astype(int), 1) - 1
    counts = np.bincount(seg.ravel(), minlength=17)
    assert cells(output, "classes of pixels", "seg", "train")["most common"] == most_common(counts)


def test_domainnet(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    root = rendered["domainnet"]
    assert check("domainnet", root) == 0
    output = capsys.readouterr().out
    lines = (root / "train.txt").read_text().splitlines()
    names = [Path(line).parent.name for line in lines if line.startswith("sketch/")]
    assert list(cells(output, "samples", "sketch").values()) == ["sketch", "5", "4", "1", "2", "2", "32x48"]
    row = cells(output, "classes of samples", "sketch", "train")
    assert_row(row, classes=20, never_occur=20 - len(set(names)), fewest=1, most=1)
    assert set(row["most common"].split(", ")) == {f"{name} (1)" for name in names}


def test_fdu_mtl(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    root = rendered["fdu_mtl"]
    # Texts are 20 to 90 words long: 40 cut some of them.
    assert check("fdu_mtl", root, "dataload.max_tokens=40") == 0
    output = capsys.readouterr().out
    read = {
        (domain, split): [line.split("\t") for line in (root / f"{domain}.task.{split}").read_text().splitlines()]
        for domain in ("books", "music")
        for split in ("train", "test")
    }
    lengths = [len(text.split()) for _, text in read["music", "train"]]
    row = cells(output, "words of texts", "music", "train")
    assert 0 < np.mean(np.array(lengths) > 40) < 1
    assert_row(
        row, median=np.median(lengths), most=max(lengths), **{"cut off %": 100 * np.mean(np.array(lengths) > 40)}
    )
    known = {word for domain in ("books", "music") for _, text in read[domain, "train"] for word in text.split()}
    words = [word for _, text in read["music", "test"] for word in text.split()]
    unknown = 100 * np.mean([word not in known for word in words])
    assert unknown > 0
    assert_row(cells(output, "words of texts", "music", "test"), **{"unknown %": unknown})
    assert_row(cells(output, "words of texts", "music", "train"), **{"unknown %": 0})
    assert cells(output, "classes of samples", "books", "train")["most common"] == "1 (3), 0 (2)"
    assert f"text     books, class {read['books', 'train'][0][0]}: " in output
    assert "sheet.png" not in output


# ------------------------------------------------------------------------- samples, processes, pictures


def test_every_file_is_opened_once(rendered: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("dataloaders.check.__main__.save_examples", lambda *arguments: False)
    monkeypatch.setattr("dataloaders.check.readers.read", lambda path, reader, faults: opened.append(path))
    check("nyu_v2", rendered["nyu_v2"])
    assert len(opened) == len(set(opened)) == 4 * 7


def test_processes_change_nothing(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert check("cityscapes", rendered["cityscapes"]) == 0
    alone = capsys.readouterr().out
    assert check("cityscapes", rendered["cityscapes"], workers=2) == 0
    assert capsys.readouterr().out == alone


@pytest.mark.parametrize("form", WRITERS)
def test_readers_travel_to_other_processes(
    form: str, rendered: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspections: list[ChunkInspection] = []

    def inspect_in_a_copy(parts: Parts, num_workers: int, findings: Findings) -> Summaries:
        inspections.append(pickle.loads(pickle.dumps(ChunkInspection(parts))))
        return inspect(parts, num_workers, findings)

    monkeypatch.setattr("dataloaders.check.__main__.inspect", inspect_in_a_copy)
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", no_sheet)
    assert check(form, rendered[form]) == 0
    (inspection,) = inspections
    chunk = inspection[0]
    assert chunk.summary.num_samples == len(inspection.chunks[0].members)
    assert not chunk.faults


@pytest.mark.parametrize(("form", "columns"), [("nyu_v2", 4), ("taskonomy", 6), ("domainnet", 5)])
def test_sheet_shows_images_and_targets(
    form: str, columns: int, rendered: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[list[dict[str, np.ndarray]]] = []
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", lambda path, rows, title: sheets.append(rows))
    assert check(form, rendered[form]) == 0
    (rows,) = sheets
    assert {len(row) for row in rows} == {columns}
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for row in rows for picture in row.values())


def test_sheet_shows_the_image_as_it_is(rendered: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sheets: list[list[dict[str, np.ndarray]]] = []
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", lambda path, rows, title: sheets.append(rows))
    check("nyu_v2", rendered["nyu_v2"])
    first = sheets[0][0]
    image = cv2.imread(str(rendered["nyu_v2"] / "img/0000000.png"))[:, :, ::-1]
    np.testing.assert_array_equal(first["train\n0000000"], image)


def test_sheet_leaves_out_what_is_not_valid(rendered: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sheets: list[list[dict[str, np.ndarray]]] = []
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", lambda path, rows, title: sheets.append(rows))
    check("taskonomy", rendered["taskonomy"])
    depth = cv2.imread(str(rendered["taskonomy"] / "depth/0000000.png"), cv2.IMREAD_UNCHANGED)
    holes = cv2.resize(depth, (256, 256), interpolation=cv2.INTER_NEAREST) >= 64500
    assert holes.any()
    assert (sheets[0][0]["sn"][holes] == 128).all()
    assert (sheets[0][0]["depth"][holes] == 0).all()


def test_bare_folder_is_train_and_test(
    rendered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "bare"
    shutil.copytree(rendered["nyu_v2"], root, ignore=shutil.ignore_patterns("*.json"))
    assert check("nyu_v2", root) == 0
    output = capsys.readouterr().out
    assert "note     " + str(root) + " lists 7 of the 7 samples of test in training as well" in output
    assert "its 7 frames serve as train and as test" in output


def test_file_of_test_py_needs_the_test_split_alone(
    rendered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = json.loads((rendered["cityscapes"] / "cityscape.json").read_text())["test"]
    absolute = [[str(rendered["cityscapes"] / file) for file in row] for row in rows]
    (tmp_path / "cityscape.json").write_text(json.dumps({"test": absolute}))
    assert check("cityscapes", tmp_path) == 2
    assert "1 fault\n  " in (error := capsys.readouterr().err)
    assert "has no split 'train'" in error
    config = ["--config", str(CONFIGS / "cityscapes_2task_test.yml"), "--set", f"dataload.dataroot={tmp_path}"]
    assert run([*config, "--workers", "0", "--pictures", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()


# -------------------------------------------------------------------------------- a data set of one's own


class Squares(Dataset):
    """Images of one size with classes, distances and a class of the whole; one sample may be at fault."""

    notes = ()

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray | str]:
        sample = {
            "img": np.zeros((3, 8, 8), np.float32),
            "kind": np.full((8, 8), key[1], np.int64),
            "near": np.full((1, 8, 8), 0.5 + key[1], np.float32),
            "near_valid": np.arange(64).reshape(1, 8, 8) < 16,
            "name": f"square {key[1]}",
        }
        if key[1] == 1 and self.fault:
            spoil(sample, self.fault)
        return sample


def no_sheet(path: Path, rows: object, title: str) -> None:
    """Takes the place of what saves a sheet, which takes a second."""


def spoil(sample: dict[str, np.ndarray | str], fault: str) -> None:
    """Plant a fault in a sample."""
    if fault == "raise":
        raise ValueError("square is round")
    if fault == "refuse":
        raise UserError("square 1 is round: square it")
    if fault == "absent":
        del sample["near"]
    if fault == "class":
        sample["kind"][2, 2] = 7
    if fault == "shape":
        sample["near"] = sample["near"][:, :4]
    if fault == "nan":
        sample["near"][0, 0, 0] = np.nan
    if fault == "nothing valid":
        sample["near_valid"][:] = False


def check_squares(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> int:
    """Check the squares under the configuration of a shipped file."""

    def open_squares(options: DataOptions, split: str, training: bool) -> Squares:
        return Squares(fault if split == "test" else "")

    monkeypatch.setitem(DATASETS, "Squares", open_squares)
    settings = ["dataload.dataset=Squares", "tasks=[kind,near]", "tasks_num_class=[3,1]"]
    return check("cityscapes", folder, *settings)


def test_own_data_set_is_checked_through_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert check_squares(tmp_path, monkeypatch) == 0
    output = capsys.readouterr().out
    assert list(cells(output, "samples", "Squares").values()) == ["Squares", "3", "3", "3", "3", "3", "8x8"]
    assert "note" not in output
    assert_row(cells(output, "values", "near", "test", "-"), min=0.5, max=2.5, **{"valid %": 25})
    row = cells(output, "classes of pixels", "kind", "test")
    assert row["most common"] == "0 (33.3 %), 1 (33.3 %), 2 (33.3 %)"
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("raise", "sample 1 of split 'test' cannot be fetched (ValueError: square is round)"),
        ("refuse", "square 1 is round: square it"),
        ("absent", "sample 1 of split 'test' has no entry 'near', which near learns from"),
        ("class", "sample 1 of split 'test' holds class 7, but tasks_num_class gives kind the classes 0..2"),
        ("shape", "sample 1 of split 'test' gives 'near' the shape [1, 4, 8] where [1, 8, 8] is expected"),
        ("nan", "sample 1 of split 'test' holds NaN or infinity as a valid value of near"),
        ("nothing valid", "sample 1 of split 'test' has no valid pixel for near"),
    ],
)
def test_fault_of_an_own_data_set_is_told(
    fault: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", no_sheet)
    assert check_squares(tmp_path, monkeypatch, fault) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path}: 1 fault\n  {sentence}")
    assert cells(captured.out, "samples", "Squares")["test"] == "3"


class Coins(Dataset):
    """Images of one task of several, each with its class."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray | np.int64 | str]:
        return {"img": np.zeros((3, 6, 9), np.float32), self.task: np.int64(key[1] % 2), "name": str(key[1])}


def test_own_data_set_of_tasks_with_their_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("dataloaders.check.sheet.save_sheet", no_sheet)
    monkeypatch.setitem(DATASETS, "Coins", lambda options, split, training: {"cent": Coins("cent"), "euro": Coins("x")})
    settings = ["dataload.dataset=Coins", "tasks=[cent,euro]", "tasks_num_class=[3,3]"]
    assert check("cityscapes", tmp_path, *settings, "train.eval_batches=1") == 2
    captured = capsys.readouterr()
    assert "has no entry 'euro', which euro learns from, but img, x, name" in captured.err
    row = cells(captured.out, "classes of samples", "cent", "train")
    assert row["most common"] == "0 (2), 1 (2)"
    assert_row(row, classes=3, never_occur=1, fewest=2, most=2)


# ------------------------------------------------------------------------------------------- bad arguments


def test_unknown_task_and_data_set_are_refused(rendered: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert check("nyu_v2", rendered["nyu_v2"], "tasks=[seg,sn,edge]") == 2
    assert "'edge' is not a task of NYU_v2, which has seg, sn, depth" in capsys.readouterr().err
    assert check("nyu_v2", rendered["nyu_v2"], "dataload.dataset=Moon", "dataload.normals=release") == 2
    assert "dataload.dataset is 'Moon', which is unknown" in capsys.readouterr().err
