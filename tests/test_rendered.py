"""Rendered data sets as folders, whatever their format: whole or not there, the same whoever makes them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dataloaders.rendered import WRITERS, folders, write_nyu_v2
from dataloaders.rendered.__main__ import main
from utils import files
from utils.errors import UserError

REPOSITORY = Path(__file__).parent.parent
SMALL = {"height": 32, "width": 40}
SIZES = {"train": 2, "test": 1}
LAST_FILES = {
    "nyu_v2": "nyu_v2_3task.json",
    "cityscapes": "cityscape.json",
    "taskonomy": "taskonomy.json",
    "domainnet": "DomainNet.json",
    "fdu_mtl": "software.task.test",
}
PICTURES = [form for form in WRITERS if form != "fdu_mtl"]

Write = Callable[..., Path]


def writer(form: str) -> Write:
    """The format's writer, whose pictures, if it has any, are small."""
    return lambda *arguments, **others: WRITERS[form](*arguments, **(SMALL if form in PICTURES else {}), **others)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small data set per format; not to be changed."""
    made = {form: tmp_path_factory.mktemp("rendered") / form for form in WRITERS}
    for form, folder in made.items():
        writer(form)(folder, SIZES, seed=5)
    return made


def test_every_format_has_a_writer() -> None:
    assert WRITERS.keys() == LAST_FILES.keys()


@pytest.mark.parametrize("form", WRITERS)
def test_another_call_makes_the_same_files_and_another_seed_others(
    form: str, data_sets: dict[str, Path], tmp_path: Path
) -> None:
    writer(form)(tmp_path / "again", SIZES, seed=5)
    assert contents(tmp_path / "again") == contents(data_sets[form])
    writer(form)(tmp_path / "other", SIZES, seed=6)
    other = contents(tmp_path / "other")
    samples = [name for name in other if not name.endswith((".json", ".txt"))]
    assert len(samples) >= 12
    assert all(other[name] != contents(data_sets[form])[name] for name in samples)


@pytest.mark.parametrize("form", ["nyu_v2", "domainnet"])  # frames of rooms, and pictures of pieces
def test_files_do_not_depend_on_the_number_of_workers(form: str, data_sets: dict[str, Path], tmp_path: Path) -> None:
    writer(form)(tmp_path / "set", SIZES, seed=5, num_workers=2)
    assert contents(tmp_path / "set") == contents(data_sets[form])


@pytest.mark.parametrize("form", WRITERS)
def test_finished_folder_is_left_alone(form: str, data_sets: dict[str, Path]) -> None:
    times = {path: path.stat().st_mtime_ns for path in data_sets[form].rglob("*")}
    writer(form)(data_sets[form], SIZES, seed=5)
    assert {path: path.stat().st_mtime_ns for path in data_sets[form].rglob("*")} == times


@pytest.mark.parametrize("form", WRITERS)
def test_what_was_interrupted_is_finished_by_another_call(
    form: str, data_sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the second, the middle or the last file: only whole files are left, and not the last."""
    expected = contents(data_sets[form])
    for num_files in (1, len(expected) // 2, len(expected) - 1):
        folder = tmp_path / str(num_files)
        with monkeypatch.context() as patch:
            patch.setattr(files, "flush_to_disk", stop_after(num_files))
            with pytest.raises(KeyboardInterrupt):
                writer(form)(folder, SIZES, seed=5)
        assert len(contents(folder)) == num_files
        assert LAST_FILES[form] not in contents(folder)
        writer(form)(folder, SIZES, seed=5)
        assert contents(folder) == expected


def test_leftovers_of_a_killed_call_are_removed(data_sets: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(data_sets["nyu_v2"], tmp_path / "set")
    (tmp_path / "set" / LAST_FILES["nyu_v2"]).unlink()
    for place in ("set", "set/depth"):
        (tmp_path / place / f".{'0f' * 16}.tmp").touch()
    writer("nyu_v2")(tmp_path / "set", SIZES, seed=5)
    assert contents(tmp_path / "set") == contents(data_sets["nyu_v2"])


def stop_after(count: int) -> Callable[[Path], None]:
    """In place of what is called at the end of writing a file: interrupts the file after `count` others."""
    written = set()

    def stop(path: Path) -> None:
        written.update([path] if path.is_file() else [])  # its folder is flushed after it
        if len(written) > count:
            raise KeyboardInterrupt

    return stop


def test_numbers_of_test_samples_stay_when_the_training_split_grows() -> None:
    few = folders.numbers_of_splits({"train": 2, "test": 3})
    many = folders.numbers_of_splits({"train": 1000, "test": 3})
    assert few["test"] == many["test"]
    assert len(few["train1"]) == len(few["train2"]) == 1
    assert (len(many["train1"]), len(many["train2"])) == (800, 200)


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "expected seed 6, found 5"),
        ({"width": 80}, "expected width 80, found 40"),
        ({"split_sizes": {"train": 4, "test": 1}}, "expected train 4, found 2"),
    ],
)
def test_folder_of_other_arguments_is_refused(data_sets: dict[str, Path], change: dict, message: str) -> None:
    arguments = {"split_sizes": SIZES, **SMALL, "seed": 5} | change
    with pytest.raises(UserError, match=message):
        write_nyu_v2(data_sets["nyu_v2"], **arguments)


@pytest.mark.parametrize("form", WRITERS)
def test_folder_of_another_format_is_refused(form: str, data_sets: dict[str, Path]) -> None:
    other = "nyu_v2" if form != "nyu_v2" else "taskonomy"
    with pytest.raises(UserError, match=f"expected format {form}, found {other}"):
        writer(form)(data_sets[other], SIZES, seed=5)


@pytest.mark.parametrize("form", WRITERS)
def test_foreign_folder_and_damaged_record_are_refused(form: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="new or an empty folder"):
        writer(form)(tmp_path, SIZES, seed=0)
    for content in ("{", "3", "[[1]]", "[" * 50_000, " " * 100_001):
        (tmp_path / "rendered.json").write_text(content)
        with pytest.raises(UserError, match=r"rendered\.json: expected"):
            writer(form)(tmp_path, SIZES, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rendered.json", "thesis.txt"]


BAD_OPTIONS = [
    *[([form, "set", "--train", "1"], "expected 2 to") for form in WRITERS],
    *[([form, "set", "--test", "0"], "at least 1 test sample") for form in WRITERS],
    *[([form, "set", "--seed", "-3"], "seed -3") for form in [*WRITERS, "samples"]],
    *[([form, "set", "--height", "8"], "at least 32 x 32") for form in [*PICTURES, "samples"]],
    *[([form, "set", "--workers", "-1"], "workers -1") for form in PICTURES],
    (["samples", "set", "--count", "0"], "count of at least 1"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=lambda value: " ".join(value))
def test_bad_arguments_end_with_one_sentence_and_code_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(options)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


# ----------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("form", WRITERS)
def test_options_arrive_at_the_writer(
    form: str, data_sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--train", "2", "--test", "1", "--seed", "5"]
    pictures = ["--height", "32", "--width", "40", "--workers", "1"] if form in PICTURES else []
    main([form, str(tmp_path / "set"), *options, *pictures])
    written = tmp_path / "set" if form == "fdu_mtl" else tmp_path / "set" / LAST_FILES[form]
    assert capsys.readouterr().out.startswith(f"{written}: train 2, test 1, written in ")
    assert contents(tmp_path / "set") == contents(data_sets[form])


def test_the_module_is_a_command(tmp_path: Path) -> None:
    sizes = ["--train", "2", "--test", "1", "--height", "32", "--width", "40", "--workers", "0"]
    command = [sys.executable, "-m", "dataloaders.rendered", "nyu_v2", str(tmp_path / "set"), *sizes]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 'set' / 'nyu_v2_3task.json'}: train 2, test 1")
    assert json.loads((tmp_path / "set" / "rendered.json").read_text()) == {
        "format": "nyu_v2",
        "train": 2,
        "test": 1,
        "height": 32,
        "width": 40,
        "seed": 0,
        "recipe": 1,
    }


def test_samples_are_a_bare_folder(tmp_path: Path) -> None:
    main(["samples", str(tmp_path), "--count", "2", "--height", "32", "--width", "40"])
    kinds = {"img": "png", "seg": "png", "normal_mask": "png", "depth": "npy"}
    assert contents(tmp_path).keys() == {
        f"{kind}/{number:07d}.{ending}" for kind, ending in kinds.items() for number in range(2)
    }
