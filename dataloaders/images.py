"""A folder of one's own images, without targets."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataloaders.frames import read_image
from dataloaders.keys import Key
from dataloaders.transforms import subtract_mean
from utils.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class ImageFolder:
    """Images of a folder in the order of their names: "img" float32 [3, H, W], and "name".

    Args:
        encode: uint8 BGR [H, W, 3] -> the network's input. Dense tasks take BGR minus the mean; classification takes
            `dataloaders.domainnet.encode_frame`, at the size of its crops.

    Raises:
        UserError: no such folder, no image in it, or (when fetched) a file that is no image.
    """

    def __init__(self, folder: str | Path, encode: Callable[[np.ndarray], np.ndarray] = subtract_mean) -> None:
        folder = Path(folder)
        if not os.path.isdir(folder):
            raise UserError(f"--images {folder} is not a folder; give one that holds {', '.join(ENDINGS)} files.")
        try:
            self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
        except OSError as error:
            raise UserError(f"--images {folder} cannot be listed ({error.strerror}); give another folder.") from error
        if not self.paths:
            raise UserError(f"--images {folder} holds no image; expected {', '.join(ENDINGS)} files.")
        self.encode = encode

    def __len__(self) -> int:
        return len(self.paths)

    def source_of(self, index: int) -> str:
        """The file of an image, for messages."""
        return str(self.paths[index])

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | str]:
        path = self.paths[key[1]]
        return {"img": self.encode(read_image(path)), "name": path.stem}
