"""From files to batches.

A new data set is one file in this folder and one line in `DATASETS`.
"""

from torch.utils.data import Dataset

from dataloaders.nyu_v2 import NYUv2
from utils.errors import UserError

DATASETS: dict[str, type[Dataset]] = {
    "NYU_v2": NYUv2,
}


def build_dataset(name: str, **options: object) -> Dataset:
    """The data set called `name` in the configuration, made with the options of its class.

    Raises: UserError if there is no such data set; whatever the class raises.
    """
    if name not in DATASETS:
        raise UserError(f"dataload.dataset is {name!r}, which is unknown: choose one of {', '.join(DATASETS)}")
    return DATASETS[name](**options)
