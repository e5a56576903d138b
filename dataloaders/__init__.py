"""From files to batches.

A new data set is one file in this folder and one line in `DATASETS`.
"""

from collections.abc import Callable

from dataloaders.cityscapes import open_cityscapes
from dataloaders.domainnet import open_domainnet
from dataloaders.fdu_mtl import open_fdu_mtl
from dataloaders.keys import Dataset
from dataloaders.nyu_v2 import open_nyu_v2
from dataloaders.options import DataOptions
from dataloaders.taskonomy import open_taskonomy
from utils.errors import UserError

DATASETS: dict[str, Callable[[DataOptions, str, bool], Dataset | dict[str, Dataset]]] = {
    "NYU_v2": open_nyu_v2,
    "CityScapes": open_cityscapes,
    "Taskonomy": open_taskonomy,
    "DomainNet": open_domainnet,
    "FDU_MTL": open_fdu_mtl,
}
"""Name in the configuration -> opener of a split: (options, split, whether it is to be trained on) -> the data set
of which every task takes one target, or, where tasks have their own inputs, {task: its data set}."""

TEXT_DATASETS = frozenset({"FDU_MTL"})
"""Those whose inputs are texts; the others hold images."""


def open_dataset(name: str, options: DataOptions, split: str, training: bool) -> Dataset | dict[str, Dataset]:
    """A split of the data set called `name` in the configuration.

    Raises: UserError if there is no such data set; whatever is wrong with its data root.
    """
    if name not in DATASETS:
        raise UserError(f"dataload.dataset is {name!r}, which is unknown: choose one of {', '.join(DATASETS)}")
    return DATASETS[name](options, split, training)
