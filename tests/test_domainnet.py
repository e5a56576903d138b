"""DomainNet: what a sample holds, how crops are drawn, which images form a split, what bad data say."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop, v2

from dataloaders.domainnet import (
    SPLIT_FILE,
    Domain,
    LabelledImage,
    encode_frame,
    encode_image,
    folder_names,
    image_from_input,
    open_domainnet,
    random_crop_box,
)
from dataloaders.options import DataOptions
from envs.data import Data
from envs.task_sets import build_tasks
from utils.config import DataloadSection
from utils.errors import UserError

CLASSES = ("bee", "cat", "ice cream")
SPLITS = ("train", "train1", "train2", "val", "test")


def random_image(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


def ramp(width: int = 64, height: int = 64) -> Image.Image:
    """Red grows to the right, green downwards, both from 0 to 200."""
    red, green = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=2).astype(np.uint8))


def write_root(root: Path) -> None:
    """Domains real and sketch, 3 classes; in train.txt 4 images of each class, in test.txt 1."""
    for name, count in (("train", 4), ("test", 1)):
        lines = []
        for domain in ("real", "sketch"):
            for label, folder in enumerate(CLASSES):
                for number in range(count):
                    file = f"{domain}/{folder}/{name} {number}.png"
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    random_image(len(lines)).save(root / file)
                    lines.append(f"{file} {label}\n")
        (root / f"{name}.txt").write_text("".join(lines))


def write_split_file(root: Path, splits: object) -> None:
    (root / SPLIT_FILE).write_text(json.dumps(splits))


@pytest.fixture
def options(tmp_path: Path) -> DataOptions:
    write_root(tmp_path)
    settings = DataloadSection(dataset="DomainNet", dataroot=str(tmp_path), crop_h=12, crop_w=10)
    return DataOptions.of(settings, {"real": 3, "sketch": 3}, seed=0)


def files_of(options: DataOptions, split: str) -> dict[str, list[str]]:
    return {name: [image.file for image in own.images] for name, own in open_domainnet(options, split, False).items()}


def one_image(root: Path, image: Image.Image, training: bool, **keys: str | int) -> Domain:
    """A domain of one image, brought to 32x32."""
    image.save(root / "image.png")
    arguments = {"domain": "real", "split": "train", **keys}
    return Domain(root, images=[LabelledImage("image.png", 4)], size=(32, 32), training=training, **arguments)


# What a sample holds


def test_sample_is_the_whole_image_normalised_as_imagenet(options: DataOptions) -> None:
    domains = open_domainnet(options, "test", training=False)
    assert list(domains) == ["real", "sketch"]
    sample = domains["sketch"][0, 2]
    assert sample.keys() == {"img", "sketch", "name"}
    assert sample["sketch"] == 2
    assert sample["sketch"].dtype == np.int64
    assert sample["name"] == "test 0"
    assert sample["img"].dtype == np.float32

    image = Image.open(options.dataroot / "sketch/ice cream/test 0.png")
    pixels = v2.functional.pil_to_tensor(v2.functional.resize(image, [12, 10])).numpy()
    for channel, (mean, deviation) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):  # R, G, B
        expected = (pixels[channel] / 255 - mean) / deviation
        np.testing.assert_allclose(sample["img"][channel], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    file = "image.tiff" if mode == "CMYK" else "image.png"
    Image.new("RGB", (8, 8), (102, 102, 102)).convert(mode).save(tmp_path / file)
    domain = Domain(tmp_path, "real", [LabelledImage(file, 0)], "test", (4, 6), training=False)
    np.testing.assert_array_equal(image_from_input(domain[0, 0]["img"]), np.full((4, 6, 3), 102))


def test_frames_as_opencv_reads_them_are_encoded_alike() -> None:
    image = random_image(0)
    bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    np.testing.assert_array_equal(encode_frame(bgr, (7, 9)), encode_image(image, (7, 9)))


def test_picture_behind_an_input_is_the_image() -> None:
    image = random_image(0, width=9, height=7)
    np.testing.assert_array_equal(image_from_input(encode_image(image, (7, 9))), np.asarray(image))


# Augmentation


def test_training_mirrors_half_of_the_images_and_crops_all(tmp_path: Path) -> None:
    domain = one_image(tmp_path, ramp(), training=True)
    mirrored = 0
    for pass_number in range(100):
        picture = image_from_input(domain[pass_number, 0]["img"]).astype(float)
        assert picture.shape == (32, 32, 3)
        to_the_right = picture[:, -1, 0].mean() - picture[:, 0, 0].mean()
        downwards = picture[-1, :, 1].mean() - picture[0, :, 1].mean()
        mirrored += to_the_right < 0
        # Of the image's 200 in either direction the crop shows its share.
        assert 0.5 < abs(to_the_right) / 200 * downwards / 200 < 1
        assert downwards > 0
    assert 35 <= mirrored <= 65


def test_evaluation_neither_mirrors_nor_crops(tmp_path: Path) -> None:
    domain = one_image(tmp_path, ramp(), training=False)
    first, second = domain[0, 0]["img"], domain[1, 0]["img"]
    np.testing.assert_array_equal(first, second)
    picture = image_from_input(first).astype(float)
    assert picture[:, -1, 0].mean() - picture[:, 0, 0].mean() > 190


def test_draws_depend_on_seed_split_domain_and_pass_alone(tmp_path: Path) -> None:
    def sample(pass_number: int = 0, **keys: str | int) -> np.ndarray:
        domain = one_image(tmp_path, ramp(), training=True, **keys)
        return domain[pass_number, 0]["img"]

    first = sample()
    np.testing.assert_array_equal(sample(), first)
    for other in (sample(1), sample(seed=1), sample(split="train1"), sample(domain="sketch")):
        assert not np.array_equal(other, first)


def test_training_is_augmented_by_the_seed_of_the_run(options: DataOptions) -> None:
    first, again, other, whole = (
        open_domainnet(replace(options, seed=seed), "train", training)["real"][0, 5]["img"]
        for seed, training in ((1, True), (1, True), (2, True), (1, False))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, whole)


@pytest.mark.parametrize(("width", "height"), [(100, 100), (160, 90), (60, 200)])
def test_crops_are_drawn_as_by_random_resized_crop(width: int, height: int) -> None:
    generator = np.random.default_rng(0)
    boxes = np.array([random_crop_box(width, height, generator) for _ in range(3000)])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (width, height)).all()

    image = torch.zeros(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # top, left, height, width
        drawn = [RandomResizedCrop.get_params(image, (0.6, 1), (3 / 4, 4 / 3)) for _ in range(3000)]
    expected = np.array(drawn)[:, [1, 0, 3, 2]]
    ours = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    np.testing.assert_allclose(ours.mean(axis=0), expected.mean(axis=0), atol=1)
    np.testing.assert_allclose(ours.std(axis=0), expected.std(axis=0), atol=1)


@pytest.mark.parametrize(
    ("width", "height", "box"), [(400, 30, (180, 0, 220, 30)), (30, 400, (0, 180, 30, 220)), (1, 1, (0, 0, 1, 1))]
)
def test_an_image_too_slender_for_any_crop_gives_its_centre(
    width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    assert random_crop_box(width, height, np.random.default_rng(0)) == box


# Splits


def test_split_file_lists_lines_of_the_lists(options: DataOptions) -> None:
    write_split_file(
        options.dataroot,
        {
            "train": {"real": [0, 4, 8], "sketch": [23]},
            "train1": {"real": [8, 0], "sketch": [23]},
            "train2": {"real": [4], "sketch": [23]},
            "test": {"real": [0], "sketch": [5, 3]},
            "val": {"real": [1], "sketch": [4]},
        },
    )
    assert {split: files_of(options, split) for split in SPLITS} == {
        "train": {
            "real": ["real/bee/train 0.png", "real/cat/train 0.png", "real/ice cream/train 0.png"],
            "sketch": ["sketch/ice cream/train 3.png"],
        },
        "train1": {
            "real": ["real/ice cream/train 0.png", "real/bee/train 0.png"],
            "sketch": ["sketch/ice cream/train 3.png"],
        },
        "train2": {"real": ["real/cat/train 0.png"], "sketch": ["sketch/ice cream/train 3.png"]},
        "test": {"real": ["real/bee/test 0.png"], "sketch": ["sketch/ice cream/test 0.png", "sketch/bee/test 0.png"]},
        "val": {"real": ["real/bee/test 0.png"], "sketch": ["sketch/ice cream/test 0.png", "sketch/bee/test 0.png"]},
    }
    held_out = files_of(replace(options, validation="held_out"), "val")
    assert held_out == {"real": ["real/cat/test 0.png"], "sketch": ["sketch/cat/test 0.png"]}
    assert open_domainnet(options, "train", True)["real"].notes == ()


def test_without_split_file_the_first_folder_is_the_domain(options: DataOptions) -> None:
    train = files_of(options, "train")
    assert {domain: len(files) for domain, files in train.items()} == {"real": 12, "sketch": 12}
    assert all(file.startswith(f"{domain}/") for domain, files in train.items() for file in files)
    assert {split: len(files_of(options, split)["real"]) for split in SPLITS} == {
        "train": 12,
        "train1": 10,
        "train2": 2,
        "val": 3,
        "test": 3,
    }
    (note,) = open_domainnet(options, "train", True)["sketch"].notes
    assert note.startswith(f"domain sketch of {options.dataroot} lists no train1 and train2")


def test_domains_come_in_the_order_and_choice_of_the_configuration(options: DataOptions) -> None:
    assert list(open_domainnet(replace(options, targets={"sketch": 3, "real": 3}), "train", True)) == ["sketch", "real"]
    assert list(open_domainnet(replace(options, targets={"sketch": 3}), "train", True)) == ["sketch"]


def test_lists_may_have_windows_line_ends_stray_blanks_and_paths_with_a_dot(options: DataOptions) -> None:
    path = options.dataroot / "train.txt"
    path.write_bytes(b"".join(b"./" + line + b" \r\n" for line in path.read_bytes().splitlines()))
    real = open_domainnet(options, "train", True)["real"]
    assert len(real) == 12
    assert [real[0, index]["real"] for index in (0, 11)] == [0, 2]


def test_mark_at_the_start_and_blank_lines_at_the_end_of_a_list_are_no_images(options: DataOptions) -> None:
    path = options.dataroot / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n \n")
    real = open_domainnet(options, "train", True)["real"]
    assert len(real) == 12
    assert real[0, 0]["name"] == "train 0"


# Names of the classes


def test_classes_that_one_split_lacks_have_their_names_from_another(options: DataOptions) -> None:
    root = Path(options.dataroot)
    (root / "test.txt").write_text("real/bee/test 0.png 0\nsketch/cat/test 0.png 1\n")
    settings = DataloadSection(dataset="DomainNet", dataroot=str(root), crop_h=12, crop_w=10)
    tasks = build_tasks("DomainNet", ["real", "sketch"], [3, 3])
    data = Data(settings, tasks, 0, torch.device("cpu"), ["train"], ["test"])
    names = {0: "bee", 1: "cat", 2: "ice cream"}
    assert data.class_names == {"real": names, "sketch": names}


def test_folders_name_the_classes(options: DataOptions) -> None:
    names = open_domainnet(options, "test", False)["real"].class_names
    assert names == {0: "bee", 1: "cat", 2: "ice cream"}


@pytest.mark.parametrize("files", [{"real/1.png": 0, "real/2.png": 1}, {"bee/1.png": 0, "wasp/1.png": 0}])
def test_folders_that_are_no_classes_name_none(files: Mapping[str, int]) -> None:
    assert folder_names([LabelledImage(file, label) for file, label in files.items()]) == {}


# Bad data


def test_an_unknown_domain_is_answered_with_the_known_ones(options: DataOptions) -> None:
    with pytest.raises(UserError, match=r"no domain 'infograph': choose among real, sketch"):
        open_domainnet(replace(options, targets={"real": 3, "infograph": 3}), "train", True)


@pytest.mark.parametrize("line", ["real/bee/0.png", "real/bee/0.png bee", "real/bee/0.png -1", "7", ""])
def test_a_bad_line_of_a_list_is_named(options: DataOptions, line: str) -> None:
    path = options.dataroot / "test.txt"
    path.write_text(f"real/bee/test 0.png 0\n{line}\nreal/cat/test 0.png 1\n")
    with pytest.raises(UserError, match=rf"line 2 of {path} is '{line}'"):
        open_domainnet(options, "train", True)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty: it needs a line 'path class'"), (b"caf\xe9.png 0\n", "is not UTF-8")]
)
def test_a_list_that_is_empty_or_of_another_encoding_is_named(
    options: DataOptions, content: bytes, reason: str
) -> None:
    path = options.dataroot / "test.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} {reason}"):
        open_domainnet(options, "train", True)


def test_a_missing_list_is_named(options: DataOptions) -> None:
    (options.dataroot / "test.txt").unlink()
    with pytest.raises(UserError, match=rf"{options.dataroot / 'test.txt'} cannot be read"):
        open_domainnet(options, "train", True)


def test_a_data_root_that_is_no_folder_is_named(options: DataOptions) -> None:
    missing = options.dataroot / "missing"
    with pytest.raises(UserError, match=rf"{missing} is not a folder"):
        open_domainnet(replace(options, dataroot=missing), "train", True)


@pytest.mark.parametrize("numbers", [[0, 24], [-1], ["0"], [0.5], 3])
def test_numbers_of_lines_that_do_not_exist_are_named(options: DataOptions, numbers: object) -> None:
    write_split_file(options.dataroot, {"train": {"real": [0], "sketch": numbers}, "test": {"real": [0]}})
    with pytest.raises(UserError, match=r"'sketch' of split 'train' .* train\.txt, 0\.\.23"):
        open_domainnet(options, "train", True)


@pytest.mark.parametrize("content", [[], {"train": [0, 1]}])
def test_a_split_file_of_another_form_is_named(options: DataOptions, content: object) -> None:
    write_split_file(options.dataroot, content)
    with pytest.raises(UserError, match=rf"{SPLIT_FILE} must be of the form"):
        open_domainnet(options, "train", True)


def test_a_split_that_a_domain_lacks_is_named_with_the_domain(options: DataOptions) -> None:
    write_split_file(options.dataroot, {"train": {"real": [0, 1], "sketch": [12, 13]}, "test": {"real": [0]}})
    with pytest.raises(UserError, match=r"domain sketch of .* has no split 'test', only train"):
        open_domainnet(options, "test", False)


def test_a_class_beyond_the_prediction_is_named(options: DataOptions) -> None:
    with pytest.raises(
        UserError, match=r"sketch/ice cream/train 0\.png .* class 2, .* domain sketch .* the classes 0\.\.1"
    ):
        open_domainnet(replace(options, targets={"real": 3, "sketch": 2}), "train", True)


def test_missing_images_are_named_at_once(options: DataOptions) -> None:
    (options.dataroot / "real/cat/train 1.png").unlink()
    open_domainnet(options, "test", False)
    with pytest.raises(UserError, match=r"1 files that split 'train' .*real/cat/train 1\.png"):
        open_domainnet(options, "train", True)


def test_an_image_that_cannot_be_read_to_its_end_is_named_when_its_turn_comes(options: DataOptions) -> None:
    paths = [options.dataroot / f"real/bee/train {number}.png" for number in range(3)]
    random_image(0, 200, 200).save(paths[0], format="JPEG")
    paths[0].write_bytes(paths[0].read_bytes()[:2000])
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    paths[2].write_bytes(b"no image")
    real = open_domainnet(options, "train", True)["real"]
    for index, path in enumerate(paths):
        with pytest.raises(UserError, match=rf"{path} is not a whole image"):
            real[0, index]
    assert real[0, 3]["name"] == "train 3"
