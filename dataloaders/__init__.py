"""From files to batches.

A new data set is one file in this folder and one line in `DATASETS`.
"""

from collections.abc import Callable

from torch.utils.data import Dataset

from dataloaders.nyu_v2 import open_nyu_v2
from dataloaders.options import DataOptions
from utils.errors import UserError

DATASETS: dict[str, Callable[[DataOptions, str, bool], Dataset | dict[str, Dataset]]] = {
    "NYU_v2": open_nyu_v2,
}
"""Name in the configuration -> opener of a split: (options, split, whether it is to be trained on) -> the data set
of which every task takes one target, or, where tasks have their own inputs, {task: its data set}."""


def open_dataset(name: str, options: DataOptions, split: str, training: bool) -> Dataset | dict[str, Dataset]:
    """A split of the data set called `name` in the configuration.

    Raises: UserError if there is no such data set; whatever is wrong with its data root.
    """
    if name not in DATASETS:
        raise UserError(f"dataload.dataset is {name!r}, which is unknown: choose one of {', '.join(DATASETS)}")
    return DATASETS[name](options, split, training)
