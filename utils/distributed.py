"""Several processes that work on one run together, and end as one.

`utils.launching` or torchrun starts them, and says by environment variables how many they are and which is which.
Where there is one, nothing here does anything, so that nobody has to ask. What they compute together is in
`utils.collectives`.

A process that fails says so, once, in a number that the others read wherever they next wait for each other; they end
then, without a word. That has a channel of its own, over the CPU: it stays in order whatever a GPU is at.

Torch is imported where there are several: processes that load data ask here who they are too, and need none of it.
"""

import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from utils.errors import FAILED, INTERRUPTED
from utils.faults import LOST_PROCESS

if TYPE_CHECKING:
    from utils.channel import Channel

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long processes wait for each other where all do the same: a disk or a network may be slow."""
LONG_PATIENCE = timedelta(days=2)
"""How long they wait where one alone has something to do. Should it end, they notice at once."""
FAREWELL = timedelta(seconds=10)
"""How long a process that fails waits to be heard."""
LINGERING = 1.0
"""Seconds by which processes that are not at fault end later: whoever started them looks at who ended first."""

_channel: "Channel | None" = None
"""Over which these processes talk; None where there is one."""


class EndedElsewhere(SystemExit):
    """Ends this process quietly, since another one has failed, which says why."""

    def __init__(self) -> None:
        super().__init__(FAILED)


def num_processes() -> int:
    """How many there are: the world size."""
    return 1 if _channel is None else _channel.num_processes


def rank() -> int:
    """Which one this is, from 0 on."""
    return 0 if _channel is None else _channel.rank


def is_first_process() -> bool:
    """Whether this is the one that speaks and writes for all."""
    return rank() == 0


def local_rank() -> int:
    """Which one this is among those of this machine, from 0 on."""
    return 0 if _channel is None else int(os.environ["LOCAL_RANK"])


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the others in the block, if this is one of several; what the first one prints is shown, and no other's.

    Raises what the block raises. An error that several processes have in common is raised by the first of them; the
    others end with `EndedElsewhere`.
    """
    global _channel
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        yield
        return
    from utils.channel import Channel  # only here, for it needs torch

    _channel = Channel(PATIENCE, LONG_PATIENCE)
    try:
        with open(os.devnull, "w") as nowhere, nullcontext() if is_first_process() else redirect_stdout(nowhere):
            yield
        barrier()
        _channel.close()
    except EndedElsewhere:
        time.sleep(LINGERING)
        raise
    except SystemExit:  # told to stop, which all are at the same step
        with suppress(RuntimeError):  # one is gone already
            barrier()
            _channel.close()
        raise
    except KeyboardInterrupt:
        if is_first_process():
            raise
        sys.exit(INTERRUPTED)
    except Exception as error:
        is_lost = LOST_PROCESS.explains(error)
        is_said = not is_first_process() if is_lost else _others_say(error)
        if is_lost or is_said:
            time.sleep(LINGERING)
        if is_said:
            raise EndedElsewhere from error
        raise
    finally:
        _channel = None


def _others_say(error: Exception) -> bool:
    """Let the others know that this process fails; returns whether one of those before it fails in the same way."""
    mark = -1 - zlib.crc32(f"{type(error).__name__}: {error}".encode())
    try:
        marks = _channel.numbers_of_all(mark, FAREWELL)
    except RuntimeError:  # they are busy elsewhere, or gone
        return False
    return mark in marks[: rank()]


# Waiting for each other


def barrier() -> None:
    """Wait until all have come here.

    Raises: `EndedElsewhere` if one of them has failed on its way.
    """
    _agree()


def max_over_processes(number: int) -> int:
    """The highest of all processes' numbers, none below 0; raises as `barrier`."""
    return max(_agree(number))


@contextmanager
def first_process_ahead() -> Iterator[None]:
    """Let the first process pass the block alone, then the others, and go on when all have.

    So what is wrong is found by one, and what it makes or removes the others find made or removed. Raises as `barrier`.
    """
    if not is_first_process():
        _agree(patience=LONG_PATIENCE)
    yield
    _agree(patience=LONG_PATIENCE)
    if is_first_process():
        _agree(patience=LONG_PATIENCE)


def done_by_first(work: Callable[..., T], *arguments: Any) -> T:
    """What `work(*arguments)` returns, which the first process alone does; the others wait. Raises as `barrier`."""
    result = work(*arguments) if is_first_process() else None
    _agree(patience=LONG_PATIENCE)
    return all_gather_object(result)[0]


def in_step(items: Iterable[T], before_each: Callable[[], object] | None = None) -> Iterator[T]:
    """This process's items, while the others go through theirs, of which there may be more or fewer.

    Args:
        before_each: called by all processes together, also by those that have no item left.
    """
    left = iter(items)
    while max_over_processes(len(item := list(islice(left, 1)))):
        if before_each:
            before_each()
        yield from item


def all_gather_object(value: T) -> list[T]:
    """The values of all processes, in their order: whatever can be pickled, tensors on the CPU. Raises as `barrier`."""
    if _channel is None:
        return [value]
    barrier()
    return _channel.values_of_all(value)


def _agree(number: int = 0, patience: timedelta = PATIENCE) -> list[int]:
    if _channel is None:
        return [number]
    numbers = _channel.numbers_of_all(number, patience)
    if min(numbers) < 0:
        raise EndedElsewhere
    return numbers
