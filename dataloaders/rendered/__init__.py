"""Data sets without any download, as large as you like, in the formats of the real ones.

    python -m dataloaders.rendered nyu_v2 FOLDER --train 400 --test 80 --height 240 --width 320 --seed 0
    python -m dataloaders.rendered fdu_mtl FOLDER --train 400 --test 100
    python -m dataloaders.rendered samples FOLDER

`dataloaders.rooms` draws furnished rooms and takes their pictures; here frames become files, one module per
format: NYU v2, CityScapes and Taskonomy show the same rooms, DomainNet single pieces of furniture, and FDU-MTL
is made of written reviews. `folders` holds what all of them share. A new format is one module and its line in
`WRITERS`.
"""

from collections.abc import Callable
from pathlib import Path

from dataloaders.rendered.cityscapes import write_cityscapes
from dataloaders.rendered.domainnet import write_domainnet
from dataloaders.rendered.fdu_mtl import write_fdu_mtl
from dataloaders.rendered.nyu_v2 import write_nyu_v2, write_samples
from dataloaders.rendered.taskonomy import write_taskonomy
from dataloaders.rooms.view import render, render_frame

__all__ = [
    "WRITERS",
    "render",
    "render_frame",
    "write_cityscapes",
    "write_domainnet",
    "write_fdu_mtl",
    "write_nyu_v2",
    "write_samples",
    "write_taskonomy",
]

WRITERS: dict[str, Callable[..., Path]] = {
    "nyu_v2": write_nyu_v2,
    "cityscapes": write_cityscapes,
    "taskonomy": write_taskonomy,
    "domainnet": write_domainnet,
    "fdu_mtl": write_fdu_mtl,
}
"""Format -> function that writes a data set: (folder, split_sizes, height, width, seed, num_workers) -> the list of
its splits. Texts have no size, take one process, and no list: (folder, split_sizes, seed) -> the folder."""
