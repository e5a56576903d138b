"""One pair of processes for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.distributed.pairs import Pair


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes that share the work of one."""
    with Pair() as pair:
        yield pair
