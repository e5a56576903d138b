"""Pictures: what colours mean, and which files appear for predictions, with and without the truth."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dataloaders.transforms import IMAGE_MEAN_BGR
from envs import pictures
from envs.losses import IGNORED_CLASS, Batch
from envs.pictures import picture_predictions
from envs.task_sets import build_tasks
from models.shared_paths import Gates, all_blocks
from tests.script_runs import ROOT
from utils.pictures import (
    RGB,
    class_colours,
    class_picture,
    direction_picture,
    distance_picture,
    inverse_distance_picture,
    raw_direction_picture,
    response_picture,
    save_shares,
    save_sheet,
)

TASKS = build_tasks("NYU_v2", ["seg", "sn", "depth"], [5, 3, 1], "decoded")
GATES = all_blocks(TASKS, 1)
HEIGHT, WIDTH = 16, 24

Rows = list[Mapping[str, RGB | None]]


# Colours


def test_classes_have_colours_of_their_own_and_ignored_pixels_are_black() -> None:
    classes = np.array([[*range(40), 255, 60]])
    (row,) = class_picture(classes, ignored=255)
    assert row.dtype == np.uint8
    assert len({tuple(colour) for colour in row[:40].tolist()}) == 40
    assert row[40].tolist() == [0, 0, 0]
    assert (row[:40].max(axis=1) > 0).all(), "black is for ignored pixels alone"
    np.testing.assert_array_equal(row[0], (255 * class_colours()[0]).astype(np.uint8))
    np.testing.assert_array_equal(row[60 - 19], row[0], err_msg="colours repeat after 60")


def test_directions_are_coloured_by_their_unit_vector_and_zero_is_grey() -> None:
    # Blue first: a vector of the files' red channel comes last and ends up red.
    vectors = np.array([[0, 0, 7.0], [0, 3.0, 0], [-0.5, 0, 0], [0, 0, 0]]).T[:, None, :]
    (row,) = direction_picture(vectors)
    assert row.tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 0], [128, 128, 128]]


def test_raw_directions_are_coloured_by_their_shares() -> None:
    vectors = np.array([[0, 0, 200.0], [30.0, 0, 40.0], [0, 0, 0], [-5.0, 0, 0]]).T[:, None, :]
    (row,) = raw_direction_picture(vectors)
    assert row.tolist() == [[255, 0, 0], [204, 0, 153], [0, 0, 0], [0, 0, 0]]


def test_near_is_bright_far_is_dark_and_what_was_not_measured_black() -> None:
    (row,) = distance_picture(np.array([[[0.5, 2.0, 9.0, 10.0, 50.0, 0.0]]]), farthest=10.0)
    brightness = row.astype(int).sum(axis=1)
    assert (np.diff(brightness[:4]) < 0).all()
    assert row[4].tolist() == row[3].tolist()
    assert row[5].tolist() == [0, 0, 0] != row[0].tolist()


# Files


def size_of(path: Path) -> tuple[int, int]:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture.shape[:2]


def test_a_sheet_has_room_for_every_row_and_empty_places(tmp_path: Path) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    save_sheet(tmp_path / "new" / "one.png", [{"image": picture}], "frame")
    save_sheet(tmp_path / "two.png", [{"image": picture, "true": picture}, {"": None, "predicted": picture}], "frame")
    one, two = size_of(tmp_path / "new" / "one.png"), size_of(tmp_path / "two.png")
    assert two[0] > one[0]
    assert two[1] > 1.9 * one[1]


def test_shares_grow_with_tasks_and_blocks(tmp_path: Path) -> None:
    save_shares(tmp_path / "few.png", {"seg": [1.0, 0.5]}, "P(execute)")
    save_shares(tmp_path / "many.png", {"seg": [1.0, 0.5] * 4, "sn": [0.0] * 8}, "P(execute)")
    few, many = size_of(tmp_path / "few.png"), size_of(tmp_path / "many.png")
    assert many[0] > few[0]
    assert many[1] > few[1]


# Predictions


class StubNet(nn.Module):
    """Predicts class 3, a normal along the files' red channel and 5 m for every pixel of 2x3."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.modes: list[bool] = []

    def forward(self, image: Tensor, gates: Gates) -> dict[str, Tensor]:
        self.modes.append(self.training)
        constants = {"seg": [0.0, 0, 0, 9, 0], "sn": [0.0, 0, 2], "depth": [5.0]}
        return {task: torch.tensor(constants[task]).view(1, -1, 1, 1).expand(len(image), -1, 2, 3) for task in gates}


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Rows]:
    """File name -> the rows of the sheet that was saved there; the files are written all the same."""
    seen: dict[str, Rows] = {}

    def save(path: Path, rows: Rows, title: str) -> None:
        seen[path.name] = rows
        save_sheet(path, rows, title)

    monkeypatch.setattr(pictures, "save_sheet", save)
    return seen


def image_batch(*names: str) -> Batch:
    """Images that are blue, without targets."""
    blue = torch.tensor([255.0, 0, 0]) - torch.from_numpy(IMAGE_MEAN_BGR)
    return {"img": blue.view(1, 3, 1, 1).expand(len(names), 3, HEIGHT, WIDTH).float(), "name": list(names)}


def labelled_batch(*names: str) -> Batch:
    """Images with targets, the first column of which is not labelled."""
    batch = image_batch(*names)
    batch["seg"] = torch.ones(len(names), HEIGHT, WIDTH, dtype=torch.int64)
    batch["normal"] = torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1).repeat(len(names), 1, HEIGHT, WIDTH)
    batch["depth"] = torch.full((len(names), 1, HEIGHT, WIDTH), 2.0)
    batch["seg"][..., 0], batch["normal"][..., 0], batch["depth"][..., 0] = IGNORED_CLASS, 0, 0
    return batch


def test_every_image_has_a_file_with_the_truth_above_the_predictions(tmp_path: Path, sheets: dict[str, Rows]) -> None:
    net = StubNet().train()
    batches = [labelled_batch("a", "b"), labelled_batch("c")]
    written = picture_predictions(net, GATES, batches, TASKS, tmp_path / "pictures", "test_rs0088", {})
    names = ["test_rs0088_000_a.png", "test_rs0088_001_b.png", "test_rs0088_002_c.png"]
    assert [path.name for path in written] == sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    assert [size_of(path)[0] > 0 for path in written] == [True] * 3
    assert (net.modes, net.training) == ([False, False], True)

    true, predicted = sheets["test_rs0088_001_b.png"]
    assert list(true) == ["image", "true semantic segmentation", "true surface normals", "true depth"]
    assert list(predicted) == ["", "semantic segmentation", "surface normals", "depth"]
    shape = (HEIGHT, WIDTH, 3)
    assert {picture.shape for row in (true, predicted) for picture in row.values() if picture is not None} == {shape}
    assert true["image"][0, 0].tolist() == [0, 0, 255]
    colour = (255 * class_colours()).astype(np.uint8)
    np.testing.assert_array_equal(true["true semantic segmentation"][:, 1:], np.broadcast_to(colour[1], (16, 23, 3)))
    np.testing.assert_array_equal(predicted["semantic segmentation"], np.broadcast_to(colour[3], shape))
    assert true["true surface normals"][0, 1].tolist() == [128, 255, 128]
    assert predicted["surface normals"][0, 0].tolist() == [255, 128, 128]
    for name, unlabelled in (("semantic segmentation", 0), ("surface normals", 128), ("depth", 0)):
        assert (true[f"true {name}"][:, 0] == unlabelled).all()


def test_images_without_targets_have_their_predictions_alone(tmp_path: Path, sheets: dict[str, Rows]) -> None:
    (path,) = picture_predictions(StubNet(), GATES, [image_batch("mine")], TASKS, tmp_path, "images", {})
    (row,) = sheets[path.name]
    assert list(row) == ["image", "semantic segmentation", "surface normals", "depth"]
    assert size_of(path)[0] > 0


def test_images_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    batches = [image_batch("same"), image_batch("same")]
    written = picture_predictions(StubNet(), GATES, batches, TASKS, tmp_path, "images", {})
    assert len(set(written)) == len(list(tmp_path.iterdir())) == 2


def test_inverse_distances_are_bright_where_near() -> None:
    (row,) = inverse_distance_picture(np.array([[[0.2, 0.1, 0.02, 0.0]]]), nearest=0.2)
    brightness = row.astype(int).sum(axis=1)
    assert (np.diff(brightness) < 0).all()
    assert row[3].tolist() == [0, 0, 0]


def test_strong_responses_are_bright() -> None:
    (row,) = response_picture(np.array([[[-1.0, 0.0, 1.0]]]))
    assert row[0].tolist() == [0, 0, 0]
    assert (np.diff(row.astype(int).sum(axis=1)) > 0).all()


# Classes

DOMAINS = build_tasks("DomainNet", ["real", "sketch"], [3, 3])
CLASS_NAMES = {"real": {0: "cat", 1: "dog", 2: "owl"}}


class StubClassifier(nn.Module):
    """Is 90 % sure of the class that is the number of blue in the first pixel."""

    def forward(self, inputs: Mapping[str, Tensor] | Tensor, gates: Gates) -> dict[str, Tensor]:
        own = inputs if isinstance(inputs, dict) else dict.fromkeys(gates, inputs)
        return {
            task: torch.log(0.05 + 0.85 * nn.functional.one_hot(own[task][:, 2, 0, 0].long(), 3).float())
            for task in gates
        }


def classes(*numbers: int) -> Tensor:
    """Images whose pixels all are the number of their class, as the network sees them."""
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 3, HEIGHT, WIDTH).float()


def test_every_sheet_shows_one_image_of_each_domain_with_its_class(tmp_path: Path, sheets: dict[str, Rows]) -> None:
    batch = {
        "img": {"real": classes(1, 0), "sketch": classes(2)},
        "name": {"real": ["a", "b"], "sketch": ["c"]},
        "real": torch.tensor([2, 0]),
        "sketch": torch.tensor([2]),
    }
    gates = all_blocks(DOMAINS, 1)
    written = picture_predictions(StubClassifier(), gates, [batch], DOMAINS, tmp_path, "test", CLASS_NAMES)
    assert [path.name for path in written] == ["test_000_a.png", "test_001_b.png"]
    (first,), (second,) = sheets["test_000_a.png"], sheets["test_001_b.png"]
    assert list(first) == ["real: dog (90%), true: owl", "sketch: 2 (90%), true: 2"]
    assert list(second) == ["real: cat (90%), true: cat"]
    brightness = [int(picture[0, 0, 2]) for row in (first, second) for picture in row.values()]
    assert brightness[2] < brightness[0] < brightness[1], "every caption stands over its own image"


def test_ones_own_image_is_classified_by_every_head(tmp_path: Path, sheets: dict[str, Rows]) -> None:
    batch = {"img": classes(1), "name": ["mine"]}
    gates = all_blocks(DOMAINS, 1)
    picture_predictions(StubClassifier(), gates, [batch], DOMAINS, tmp_path, "images", CLASS_NAMES)
    (row,) = sheets["images_000_mine.png"]
    assert list(row) == ["real: dog (90%)", "sketch: 1 (90%)"]


def test_texts_have_no_picture(tmp_path: Path) -> None:
    batch = {"text": {"real": torch.ones(1, 4)}, "name": {"real": ["a"]}, "real": torch.tensor([0])}
    assert picture_predictions(StubClassifier(), {"real": [1]}, [batch], DOMAINS, tmp_path, "test", {}) == []


def test_training_begins_without_what_draws_pictures() -> None:
    """It takes a third of a second to load."""
    code = "import sys, train; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
