"""Rendered pieces of furniture in the format of DomainNet: seven classes, each in six domains.

A domain is a style: every picture is rendered, then redrawn. No two domains show the same piece.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dataloaders.domainnet import SPLIT_FILE
from dataloaders.processes import carry_out
from dataloaders.rendered.folders import (
    domain_generator,
    is_finished,
    numbers_of_splits,
    picture_arguments,
    record_arguments,
)
from dataloaders.rooms import furniture
from dataloaders.rooms.pieces import PieceMaker
from dataloaders.rooms.showroom import photograph, showroom
from dataloaders.writing import write_png
from utils.files import write_json, write_text

CLASSES: dict[str, PieceMaker] = {
    "bathtub": furniture.bathtub,
    "bed": furniture.bed,
    "bookshelf": furniture.bookshelf,
    "chair": furniture.chair,
    "sofa": furniture.sofa,
    "table": partial(furniture.table_of_height, label="table", top=0.75, width=1.5, depth=0.8),
    "toilet": furniture.toilet,
}
"""Class -> what draws a piece of it; a class's number is its place here."""


# ---------------------------------------------------------------------------------------------- domains


def photo(image: np.ndarray) -> np.ndarray:
    """The image itself."""
    return image


def painting(image: np.ndarray) -> np.ndarray:
    """Blots of warm colours in place of details."""
    blots = cv2.medianBlur(image, odd_share(image, 12))
    warm = blots.astype(np.float32) * (1.15, 0.95, 0.75) + (10, 0, 0)
    return np.clip(warm, 0, 255).astype(np.uint8)


def cartoon(image: np.ndarray) -> np.ndarray:
    """Few flat, strong colours within dark outlines."""
    hue, saturation, value = cv2.split(cv2.cvtColor(cv2.medianBlur(image, odd_share(image, 24)), cv2.COLOR_RGB2HSV))
    flat = cv2.merge([hue // 15 * 15, cv2.add(saturation // 64 * 64, 63), value // 64 * 64 + 40])
    return np.where(outlines(image)[..., None], np.uint8(15), cv2.cvtColor(flat, cv2.COLOR_HSV2RGB))


def sketch(image: np.ndarray) -> np.ndarray:
    """Dark outlines on white."""
    return np.repeat(np.where(outlines(image), np.uint8(40), np.uint8(250))[..., None], 3, axis=2)


def grey(image: np.ndarray) -> np.ndarray:
    """Brightness alone."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def negative(image: np.ndarray) -> np.ndarray:
    """Bright where the image is dark, in the opposite colours."""
    return 255 - image


def outlines(image: np.ndarray) -> np.ndarray:
    """Where brightness changes abruptly: [H, W] bool."""
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    return cv2.Canny(smooth, 40, 100) > 0


def odd_share(image: np.ndarray, share: int) -> int:
    """An odd number of pixels, about the share of the image's height: OpenCV's filters have a middle."""
    return 2 * max(1, image.shape[0] // share // 2) + 1


Style = Callable[[np.ndarray], np.ndarray]

DOMAINS: dict[str, Style] = {
    "photo": photo,
    "painting": painting,
    "cartoon": cartoon,
    "sketch": sketch,
    "grey": grey,
    "negative": negative,
}
"""Domain -> how it redraws an image, [H, W, 3] uint8 RGB."""


# ------------------------------------------------------------------------------------------------ files


def write_domainnet(
    folder: str | Path, split_sizes: dict[str, int], height: int, width: int, seed: int, num_workers: int = 0
) -> Path:
    """Write a data set in the format of DomainNet, or leave alone the one that these arguments already made.

    Args:
        folder: new, empty, or from an earlier call with the same arguments.
        split_sizes: pictures of each domain, {"train": at least 2, "test": at least 1}; the classes take turns.
            train1 and train2 are 80 % and 20 % of train; val is test.
        num_workers: processes that render; 0 and 1 render in this one. The files do not depend on it.

    Returns:
        Path of `DomainNet.json`, {mode: {domain: [index of a line, ...]}}. The lines "path class" stand in
        `train.txt` (train, train1, train2) and `test.txt` (val, test), paths relative to the folder. It is
        written last: where it is, everything is.

    Raises: UserError for sizes out of range and for a folder that holds something else.
    """
    folder = Path(folder)
    index_file = folder / SPLIT_FILE
    splits = numbers_of_splits(split_sizes)
    arguments = picture_arguments("domainnet", split_sizes, height, width, seed, num_workers)
    if is_finished(folder, arguments, index_file):
        return index_file
    record_arguments(folder, arguments)
    train, test = ([(domain, number) for domain in DOMAINS for number in splits[split]] for split in ("train", "test"))
    lines = carry_out(partial(write_picture, folder, seed, height, width), [*train, *test], num_workers, "rendering")
    write_text(folder / "train.txt", "".join(lines[: len(train)]))
    write_text(folder / "test.txt", "".join(lines[len(train) :]))
    write_json(index_file, line_indices(splits))
    return index_file


def write_picture(folder: Path, seed: int, height: int, width: int, picture: tuple[str, int]) -> str:
    """Render and write the picture (domain, number) as `{domain}/{class}/{number}.png`; returns its line."""
    domain, number = picture
    label = number % len(CLASSES)
    name, make = list(CLASSES.items())[label]
    rng = domain_generator(seed, number, list(DOMAINS).index(domain))
    image = photograph(showroom(rng, make), height, width)
    file = f"{domain}/{name}/{number:07d}.png"
    write_png(folder / file, DOMAINS[domain](image))
    return f"{file} {label}\n"


def line_indices(splits: dict[str, range]) -> dict[str, dict[str, list[int]]]:
    """Mode -> domain -> indices of the lines of `train.txt` or `test.txt`, where domain follows domain."""
    splits = splits | {"val": splits["test"]}
    listed = {mode: splits["test" if mode in ("val", "test") else "train"] for mode in splits}
    return {
        mode: {
            domain: [place * len(listed[mode]) + number - listed[mode].start for number in numbers]
            for place, domain in enumerate(DOMAINS)
        }
        for mode, numbers in splits.items()
    }
