"""What every data set is: something that makes a sample of a key, and all its draws from a generator of the key's.

PyTorch's own `Dataset` asks for no more, but takes seconds to load, in every process that only writes or checks files.
"""

import zlib
from typing import Any, Protocol

import numpy as np

Key = tuple[int, int]
"""(pass number, index of the sample)."""


class Dataset(Protocol):
    """Samples by key.

    A data set may tell its `split`, its `source_of(index)`, the file a sample is made from, and what `decoded()` it is:
    the same with samples from a cache, which is made now if there is none.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> dict[str, Any]: ...


def keyed_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of one draw: the same arguments give the same numbers in every process and every run."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *numbers])
