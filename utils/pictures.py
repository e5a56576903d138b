"""Arrays -> pictures that people can read: classes, normals, depth, keypoints and edges, policies, sheets of them.

matplotlib is imported when the first picture is drawn: training, which may never draw one, begins without it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RGB = np.ndarray
"""uint8 [H, W, 3]."""


@cache
def class_colours() -> np.ndarray:
    """Colours of the first 60 classes, which then repeat; float [60, 3] in 0..1."""
    from matplotlib import colormaps

    return np.vstack([colormaps[name](range(20))[:, :3] for name in ("tab20", "tab20b", "tab20c")])


def class_picture(classes: np.ndarray, ignored: int) -> RGB:
    """Class numbers [H, W] -> colours; ignored pixels are black."""
    colours = (255 * class_colours()[classes % len(class_colours())]).astype(np.uint8)
    return np.where((classes == ignored)[..., None], np.uint8(0), colours)


def direction_picture(vectors: np.ndarray) -> RGB:
    """Vectors [3, H, W] of any length -> their direction as colours, (v + 1) / 2; zero vectors are grey.

    OpenCV's channel order goes in, so that the picture has the colours of the files.
    """
    return ((_unit_rgb(vectors) + 1) * 127.5).round().astype(np.uint8)


def raw_direction_picture(vectors: np.ndarray) -> RGB:
    """As `direction_picture`, for vectors of pixel values 0..255, whose direction alone is known."""
    return (255 * _unit_rgb(vectors).clip(0, 1)).round().astype(np.uint8)


def _unit_rgb(vectors: np.ndarray) -> np.ndarray:
    """[3, H, W], blue first -> [H, W, 3] of length 1 (or 0), red first."""
    lengths = np.linalg.norm(vectors, axis=0, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-6))[::-1].transpose(1, 2, 0)


def distance_picture(distances: np.ndarray, farthest: float, nearest: float = 0.0) -> RGB:
    """Distances [1, H, W] -> near is bright, `farthest` and beyond is dark; 0, not measured, is black."""
    nearness = (farthest - distances[0]) / (farthest - nearest)
    return _lit(nearness, measured=distances[0] != 0)


def inverse_distance_picture(inverses: np.ndarray, nearest: float) -> RGB:
    """1 / distance [1, H, W] -> near is bright, from the inverse `nearest` on; 0, not measured, is black."""
    return _lit(inverses[0] / nearest, measured=inverses[0] != 0)


def _lit(brightness: np.ndarray, measured: np.ndarray) -> RGB:
    """Brightness [H, W], clipped to 0..1 -> colours from dark to bright; black where not measured."""
    from matplotlib import colormaps

    colours = (255 * colormaps["inferno"](np.clip(brightness, 0, 1))[..., :3]).astype(np.uint8)
    return np.where(measured[..., None], colours, np.uint8(0))


def response_picture(responses: np.ndarray) -> RGB:
    """A detector's responses [1, H, W], -1..1 -> grey, black for none and white for the strongest."""
    grey = (127.5 * (np.clip(responses[0], -1, 1) + 1)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def save_sheet(path: Path, rows: Sequence[Mapping[str, RGB | None]], title: str) -> None:
    """Save rows of pictures with a title over each, as a PNG; None leaves a place empty."""
    columns = max(len(row) for row in rows)
    height, width = next(iter(rows[0].values())).shape[:2]
    figure = new_figure(2.6 * columns, 0.4 + len(rows) * (0.3 + 2.6 * height / width))
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row_of_axes, row in zip(axes, rows, strict=True):
        for axis, (name, picture) in zip(row_of_axes, row.items(), strict=False):
            axis.set_title(name, fontsize=8)
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
    save_figure(path, figure)


def save_shares(path: Path, shares: Mapping[str, Sequence[float]], title: str) -> None:
    """Save rows of numbers in [0, 1], one cell per block, as a PNG: dark cells are executed."""
    names, values = list(shares), np.array(list(shares.values()))
    figure = new_figure(1.6 + 0.45 * values.shape[1], 1.2 + 0.45 * len(names))
    axis = figure.subplots()
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.6 else "black"
        axis.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1), fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("block", fontsize=8)
    axis.set_title(title, fontsize=9)
    save_figure(path, figure)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure: "Figure") -> None:
    """Save a figure as a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
