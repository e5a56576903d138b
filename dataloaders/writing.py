"""Arrays -> the files of a data set, each whole or not there."""

from pathlib import Path

import cv2
import numpy as np

from utils.files import replacing

PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 4]
# Of the filters this one is undone fastest: a picture is decoded in two thirds of the time, and is not larger.
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # Before version 4.12, OpenCV chose filters by itself.
    PNG_SETTINGS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 or uint16 [H, W], or uint8 RGB [H, W, 3], as a picture file."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".png", picture, PNG_SETTINGS)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as a .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def normals_to_colours(normal: np.ndarray) -> np.ndarray:
    """Unit vectors [H, W, 3] as colours, (n + 1) / 2 * 255 rounded: uint8."""
    return np.rint((normal + 1) * 127.5).astype(np.uint8)


def masked_normal_colours(normal: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Normals as NYU v2's pictures hold them, white where invalid: [H, W, 3] uint8 RGB.

    White is no normal: at least one component of a unit vector is below 0.58, that is 202 of 255.
    """
    return np.where(valid[..., None], normals_to_colours(normal), np.uint8(255))
