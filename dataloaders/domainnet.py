"""DomainNet: the same classes in images of many domains, photographs to sketches (Peng et al., ICCV 2019).

A data root holds `train.txt` and `test.txt`, whose lines are "path class": the path relative to the root, blanks
allowed, the class 0..C-1. `DomainNet.json`, {split: {domain: [numbers of lines, from 0]}}, says which of them form
a split of a domain: train, train1 and train2 (the parts that weights and policy learn from) are lines of train.txt,
test and val lines of test.txt. Without that file the first folder of a path is its domain.

Every domain is a task with images of its own, so a split is {domain: `Domain`}.
"""

import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataloaders.caching import Cache, Decoding
from dataloaders.frames import is_path, refuse_missing, refuse_no_folder
from dataloaders.keys import Key, keyed_generator
from dataloaders.lists import read_lines
from dataloaders.options import DataOptions
from dataloaders.packed import PackedSamples
from dataloaders.picture_files import read_picture_file
from dataloaders.splits import Splits, complete_splits
from dataloaders.transforms import channels_first
from utils.errors import UserError
from utils.faults import explanation
from utils.files import read_json
from utils.problems import shorten

SPLIT_FILE = "DomainNet.json"
LISTS = {"train": "train.txt", "train1": "train.txt", "train2": "train.txt", "test": "test.txt", "val": "test.txt"}

IMAGENET_MEAN_RGB = 255 * np.array([0.485, 0.456, 0.406], dtype=np.float32)[:, None, None]
IMAGENET_DEVIATION_RGB = 255 * np.array([0.229, 0.224, 0.225], dtype=np.float32)[:, None, None]
"""Mean and standard deviation of images in 0..255, [3, 1, 1]."""

MOST_SPLIT_BYTES = 64_000_000
"""Of `DomainNet.json`, which lists a million numbers at most."""

MOST_DIGITS = 9
"""Of the number of a class."""

SMALLEST_AREA = 0.6
"""Of a training crop, as a share of the image's."""

LARGEST_ASPECT = 4 / 3
"""Of a training crop: width to height, or height to width."""


class LabelledImage(NamedTuple):
    """A line of a list: an image's file, relative to the data root, and its class."""

    file: str
    label: int


class Domain:
    """One split of one domain: key (pass number, index) -> sample.

    - "img"     float32 [3, H, W], RGB, normalised by ImageNet's mean and standard deviation
    - domain    int64, the class, 0..C-1; the key is the domain's name
    - "name"    str, the file's name without its ending

    Args:
        dataroot: folder that the images' files are relative to.
        domain: name of the domain.
        images: the split's images.
        split: its name.
        size: (height, width) that every image is brought to, in pixels.
        training: mirror at random and crop before that, or take the whole image.
        seed: key of the augmentation's draws, together with split, domain, pass number and index.
        pack: gives the images as a cache keeps them, {"img": uint8 RGB [H, W, 3]}, for `decoded`; None decodes their
            files each time.

    Attributes:
        class_names: class -> name, as far as the images' folders tell.
        notes: sentences the user should read, if the data root leaves something to be assumed.

    Raises: UserError when an image is fetched that cannot be read.
    """

    def __init__(
        self,
        dataroot: Path,
        domain: str,
        images: Sequence[LabelledImage],
        split: str,
        size: tuple[int, int],
        training: bool,
        seed: int = 0,
        notes: tuple[str, ...] = (),
        pack: Callable[[], PackedSamples] | None = None,
    ):
        self.dataroot = dataroot
        self.domain = domain
        self.images = images
        self.split = split
        self.size = size
        self.training = training
        self.seed = seed
        self.notes = notes
        self.packed: PackedSamples | None = None
        self._pack = pack
        self.class_names = folder_names(images)

    def __len__(self) -> int:
        return len(self.images)

    def decoded(self) -> "Domain":
        """The same images from the cache, where there is one; they are decoded now if they must be.

        Raises: UserError for an image that cannot be read, and as `Cache.samples_of`.
        """
        if self._pack is None:
            return self
        other = copy(self)
        other.packed, other._pack = self._pack(), None
        other.notes = (*self.notes, other.packed.note)
        return other

    def source_of(self, index: int) -> str:
        """The file of an image, for messages."""
        return str(self.dataroot / self.images[index].file)

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | np.int64 | str]:
        pass_number, index = key
        file, label = self.images[index]
        path = self.dataroot / file
        image = Image.fromarray(self.packed[index]["img"]) if self.packed else read_image(path)
        if self.training:
            image = augment(image, keyed_generator(self.seed, f"{self.split} of {self.domain}", pass_number, index))
        return {"img": encode_image(image, self.size), self.domain: np.int64(label), "name": path.stem}


def open_domainnet(options: DataOptions, split: str, training: bool) -> dict[str, Domain]:
    """A split of every domain that `options.targets` names: augmented for training, whole images else.

    Raises: UserError for everything about the data root that can be known before an image is opened.
    """
    size = options.required_crop_size
    splits = resolve_splits(options.dataroot, tuple(options.targets), options.validation)
    domains = {}
    for domain, own in splits.items():
        images = own.members_of(split)
        refuse_missing((os.path.join(options.dataroot, image.file) for image in images), split, own.source)
        refuse_other_classes(images, options.targets[domain], own.source)
        packing = partial(pack, options.cache, options.dataroot, domain, own, split) if options.cache else None
        domains[domain] = Domain(
            options.dataroot, domain, images, split, size, training, options.seed, own.notes, packing
        )
    return domains


def pack(cache: Cache, dataroot: Path, domain: str, splits: Splits[LabelledImage], split: str) -> PackedSamples:
    """The images of a domain's split as a cache keeps them, with those of the splits that have some of them, too.

    Raises: UserError for an image that is missing or cannot be read, and as `Cache.samples_of`.
    """
    root = Path(os.path.abspath(dataroot))
    decoding = Decoding(
        Domain,
        source=f"{domain} of {root}",
        settings=(),
        files=lambda file: [os.path.join(root, file)],
        read=lambda file: {"img": np.asarray(read_image(root / file))},
    )
    files = {name: [image.file for image in images] for name, images in splits.members.items()}
    return cache.samples_of(decoding, files, split)


# Which images form a split


def resolve_splits(
    dataroot: Path, domains: Sequence[str], validation: str = "test"
) -> dict[str, Splits[LabelledImage]]:
    """The splits train, train1, train2, test and val of each domain, completed as `dataloaders.splits` says.

    Raises: UserError if the data root, a list or a domain is missing, or a file is not of its form.
    """
    refuse_no_folder(dataroot, "train.txt and test.txt")
    lists = {name: read_list(dataroot / name) for name in dict.fromkeys(LISTS.values())}
    source = dataroot / SPLIT_FILE
    if os.path.isfile(source):
        listed = read_split_file(source, lists)
    else:
        source = dataroot
        listed = {split: by_first_folder(lists[LISTS[split]]) for split in ("train", "test")}
    known = sorted({domain for of_domains in listed.values() for domain in of_domains})
    for domain in domains:
        if domain not in known:
            choices = ", ".join(map(shorten, known)) or "none"
            raise UserError(f"{source} has no domain {domain!r}: choose among {choices}")
    splits = {
        domain: {split: images[domain] for split, images in listed.items() if domain in images} for domain in domains
    }
    return {
        domain: complete_splits(Splits(f"domain {domain} of {source}", own), validation)
        for domain, own in splits.items()
    }


def read_list(path: Path) -> list[LabelledImage]:
    """The lines "path class" of a list, in UTF-8.

    Raises: UserError if it cannot be read or is empty, or a line is not of this form.
    """
    lines = read_lines(path, "path class")
    return [_parse(line, number, path) for number, line in enumerate(lines, start=1)]


def _parse(content: bytes, number: int, path: Path) -> LabelledImage:
    try:
        line = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"line {number} of {path} is not UTF-8 ({error.reason}): convert the file") from error
    file, _, label = line.rpartition(" ")
    if not file or not is_path(file) or not label.isdecimal() or len(label) > MOST_DIGITS:
        raise UserError(
            f"line {number} of {path} is '{shorten(line)}', but must be a path and the number of a class: correct it"
        )
    return LabelledImage(file.rstrip(), int(label))


def read_split_file(
    path: Path, lists: Mapping[str, Sequence[LabelledImage]]
) -> dict[str, dict[str, list[LabelledImage]]]:
    """The splits as `DomainNet.json` lists them: split -> domain -> images."""
    content = read_json(path, MOST_SPLIT_BYTES)
    form = "{split: {domain: [numbers of lines]}}"
    if not isinstance(content, dict) or not all(isinstance(domains, dict) for domains in content.values()):
        raise UserError(f"{path} must be of the form {form}: rewrite it")
    listed: dict[str, dict[str, list[LabelledImage]]] = {}
    for split, name in LISTS.items():
        lines = lists[name]
        for domain, numbers in content.get(split, {}).items():
            if not isinstance(numbers, list) or not all(_is_index(number, lines) for number in numbers):
                raise UserError(
                    f"domain '{shorten(domain)}' of split {split!r} of {path} must be a list of numbers of lines of "
                    f"{name}, 0..{len(lines) - 1}: rewrite it"
                )
            listed.setdefault(split, {})[domain] = [lines[number] for number in numbers]
    return listed


def _is_index(number: object, lines: Sequence[LabelledImage]) -> bool:
    return isinstance(number, int) and 0 <= number < len(lines)


def by_first_folder(images: Sequence[LabelledImage]) -> dict[str, list[LabelledImage]]:
    """Domain -> images, where the domain is the first folder of an image's path."""
    domains: dict[str, list[LabelledImage]] = {}
    for image in images:
        domains.setdefault(image.file.removeprefix("./").partition("/")[0], []).append(image)
    return domains


def refuse_other_classes(images: Sequence[LabelledImage], num_classes: int, source: Path | str) -> None:
    """Raise a `UserError` for the first image of a domain whose class the prediction does not have."""
    for file, label in images:
        if label >= num_classes:
            raise UserError(
                f"{file} has class {label}, but tasks_num_class gives {source} the classes "
                f"0..{num_classes - 1}: correct the one or the other"
            )


def folder_names(images: Sequence[LabelledImage]) -> dict[int, str]:
    """Class -> name of the folder of its images; empty unless every class has one folder to itself."""
    pairs = sorted({(label, os.path.basename(os.path.dirname(file))) for file, label in images})
    names = dict(pairs)
    return names if len(names) == len(pairs) == len(set(names.values())) else {}


# File -> sample


def read_image(path: Path) -> Image.Image:
    """RGB image of a file; raises `UserError` if it cannot be read, or not to its end."""
    content = read_picture_file(path)
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
            return image.convert("RGB")
    # What Pillow raises depends on the format and on the damage: OSError, SyntaxError, ValueError, TypeError, ...
    except Exception as error:
        if explanation(error):
            raise
        reason = textwrap.shorten(str(error), width=150, placeholder=" ...")
        raise UserError(f"{path} is not a whole image that Pillow can decode ({reason}): replace the file") from error


def augment(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Mirror with probability 1/2, crop at random; all randomness comes from `generator`."""
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.crop(random_crop_box(image.width, image.height, generator))


def random_crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """A crop of 60 to 100 % of an image's area and an aspect of 3/4 to 4/3, as torchvision's RandomResizedCrop draws.

    Returns:
        left, top, right, bottom, in pixels. If ten draws do not fit, the centre of the image, as far as its aspect
        is one of a crop.
    """
    for _ in range(10):
        area = width * height * generator.uniform(SMALLEST_AREA, 1)
        aspect = math.exp(generator.uniform(-math.log(LARGEST_ASPECT), math.log(LARGEST_ASPECT)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(width - crop_width + 1))
            top = int(generator.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width, crop_height = min(width, round(height * LARGEST_ASPECT)), min(height, round(width * LARGEST_ASPECT))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def encode_image(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Image -> "img" of `Domain`: resized to (height, width), bilinear and antialiased, and normalised."""
    height, width = size
    pixels = channels_first(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)))
    return (pixels - IMAGENET_MEAN_RGB) / IMAGENET_DEVIATION_RGB


def encode_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`encode_image` for an image as OpenCV reads it, uint8 BGR [H, W, 3]."""
    return encode_image(Image.fromarray(frame[:, :, ::-1]), size)


def image_from_input(image: np.ndarray) -> np.ndarray:
    """The picture behind a network input: float32 [3, H, W], normalised RGB -> uint8 [H, W, 3], RGB."""
    pixels = image * IMAGENET_DEVIATION_RGB + IMAGENET_MEAN_RGB
    return pixels.transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)
