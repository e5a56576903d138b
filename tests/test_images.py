"""A folder of one's own images: which files count, in which order, what becomes of them, what is refused."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataloaders.domainnet import encode_frame
from dataloaders.images import ImageFolder
from dataloaders.transforms import IMAGE_MEAN_BGR
from envs.data import own_images
from envs.task_sets import build_tasks
from utils.config import DataloadSection
from utils.errors import UserError

CPU = torch.device("cpu")
TASKS = build_tasks("NYU_v2", ["seg"], [40])
NYU = DataloadSection(dataset="NYU_v2", dataroot="not needed", num_workers=0)


def write_image(path: Path, height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """Write a random picture, BGR [H, W, 3]."""
    image = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    assert cv2.imwrite(str(path), image)
    return image


def test_images_are_the_networks_input_in_the_order_of_their_names(tmp_path: Path) -> None:
    written = {name: write_image(tmp_path / f"{name}.png", seed=seed) for seed, name in enumerate(("b", "a", "c"))}
    images = ImageFolder(tmp_path)
    samples = [images[0, index] for index in range(len(images))]
    assert [sample["name"] for sample in samples] == ["a", "b", "c"]
    for sample in samples:
        assert sample.keys() == {"img", "name"}
        assert sample["img"].dtype == np.float32
        restored = (sample["img"] + IMAGE_MEAN_BGR[:, None, None]).transpose(1, 2, 0)
        np.testing.assert_allclose(restored, written[sample["name"]], atol=1e-4)


def test_another_encoding_replaces_the_network_input_of_dense_tasks(tmp_path: Path) -> None:
    written = write_image(tmp_path / "a.png")
    images = ImageFolder(tmp_path, encode=partial(encode_frame, size=(3, 4)))
    sample = images[0, 0]
    assert sample["name"] == "a"
    assert sample["img"].shape == (3, 3, 4)
    np.testing.assert_array_equal(sample["img"], encode_frame(written, (3, 4)))


def test_only_images_count_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", "c.bmp", "d.tiff"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "more").mkdir()
    assert [path.name for path in ImageFolder(str(tmp_path)).paths] == ["a.png", "b.JPG", "c.bmp", "d.tiff"]


def test_grey_images_and_images_with_transparency_become_colour(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 5), 90, np.uint8))
    assert cv2.imwrite(str(tmp_path / "b.png"), np.full((4, 5, 4), 90, np.uint8))
    images = ImageFolder(tmp_path)
    for index in (0, 1):
        np.testing.assert_allclose(images[0, index]["img"][:, 0, 0], 90 - IMAGE_MEAN_BGR, atol=1e-4)


def test_images_of_several_sizes_come_one_by_one(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 6, 8)
    write_image(tmp_path / "b.png", 4, 5)
    batches = own_images(tmp_path, NYU, TASKS, CPU)
    for _ in range(2):
        assert [(batch["name"], tuple(batch["img"].shape)) for batch in batches] == [
            (["a"], (1, 3, 6, 8)),
            (["b"], (1, 3, 4, 5)),
        ]


@pytest.mark.parametrize("is_file", [False, True])
def test_what_is_no_folder_is_named(tmp_path: Path, is_file: bool) -> None:
    folder = tmp_path / "mine"
    if is_file:
        folder.touch()
    with pytest.raises(UserError, match=rf"--images {folder} is not a folder; .*\.png"):
        ImageFolder(folder)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=rf"--images {tmp_path} holds no image; .*\.jpg"):
        ImageFolder(tmp_path)


def test_a_file_that_is_no_image_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    batches = iter(own_images(tmp_path, NYU, TASKS, CPU))
    assert next(batches)["name"] == ["a"]
    with pytest.raises(UserError, match=rf"{tmp_path / 'b.png'} is not a whole image"):
        next(batches)
