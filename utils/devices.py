"""Where a run computes, and from which random state it starts."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.distributed import local_rank, num_processes
from utils.errors import UserError
from utils.placement import usable_gpus


def choose_device(gpus: Sequence[int] | None) -> tuple[torch.device, str]:
    """The device for `--gpus`, and a line that says what was chosen; each of several processes has its own GPU.

    `-1` asks for the CPU; without a CUDA device any choice falls back to it. None: the first GPUs.

    Raises:
        UserError: a GPU number that this machine does not have, or fewer GPUs than processes on it.
    """
    usable, number, processes = usable_gpus(gpus), local_rank(), num_processes()
    shared = f"; {processes} processes share the batches" if processes > 1 else ""
    if not usable:
        reason = "as asked for by --gpus -1" if gpus == [-1] else "since PyTorch finds no CUDA device"
        return torch.device("cpu"), f"device: CPU, {torch.get_num_threads()} threads, {reason}{shared}"
    if number >= len(usable):
        there_are = "this machine has" if gpus is None else "--gpus names"
        raise UserError(f"{there_are} {len(usable)} GPUs, fewer than there are processes; let each have one.")
    gpu = usable[number]
    # Else pinned memory and random states would open a context on GPU 0 as well.
    torch.cuda.set_device(gpu)
    if processes == 1 and len(usable) > 1:
        shared = f"; one process uses one GPU, so {', '.join(map(str, usable[1:]))} stay free"
    return torch.device("cuda", gpu), f"device: GPU {gpu}, {torch.cuda.get_device_name(gpu)}{shared}"


def seed_everything(seed: int) -> None:
    """Start Python's, NumPy's and torch's generators (all devices) from `seed`, in 0 .. 2^32 - 1."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def derived_seed(*numbers: int) -> int:
    """A seed in 0 .. 2^32 - 1 that belongs to `numbers`, such as (seed of the run, iteration); always as many."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain values and tensors.

    Gumbel noise and dropout are drawn from torch's. The loaders' processes have none worth keeping: every draw of the
    data pipeline has a generator of its own.
    """
    version, python_numbers, python_gauss = random.getstate()
    _, numpy_numbers, *numpy_rest = np.random.get_state()
    states = {
        "python": [version, list(python_numbers), python_gauss],
        "numpy": [numpy_numbers.tolist(), *numpy_rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back into the states that `random_states` returned.

    Without a GPU the state of one is left out, and a GPU without a state goes on from its seed.

    Raises: `KeyError`, `TypeError`, `ValueError` or `RuntimeError` for what are no such states.
    """
    version, python_numbers, python_gauss = states["python"]
    numpy_numbers, *numpy_rest = states["numpy"]
    random.setstate((version, tuple(python_numbers), python_gauss))
    np.random.set_state(("MT19937", np.array(numpy_numbers, dtype=np.uint32), *numpy_rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])


def to_device(value: Any, device: torch.device | str) -> Any:
    """A tensor, or a dict of tensors at any depth, on `device`; copies from pinned memory do not block."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: to_device(entry, device) for name, entry in value.items()}
    return value


def on_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches as `to_device` takes them, on `device`; a GPU is given the next one while it computes with the last."""
    if device.type == "cuda":
        return _copied_ahead(batches, device)
    return (to_device(batch, device) for batch in batches)


def _copied_ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    # A step ends when the host has read its losses: copies that were begun after that would overlap with nothing.
    copying, computing = _copying_stream(device), torch.cuda.current_stream(device)
    remaining, copied, fault = iter(batches), None, None
    while fault is None:
        computing.wait_stream(copying)  # for the last batch, and not for the copies of the next one
        last, copied = copied, None
        try:
            batch = next(remaining)
        except Exception as error:  # StopIteration too: it comes after the last batch
            fault = error
        else:
            with torch.cuda.stream(copying):
                copied = to_device(batch, device)
            _keep_until_used_by(computing, copied)
        if last is not None:
            yield last
    if not isinstance(fault, StopIteration):
        raise fault


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: memory that was taken for a stream is not given to another.
    return torch.cuda.Stream(device)


def _keep_until_used_by(stream: torch.cuda.Stream, value: Any) -> None:
    # Memory belongs to the stream that it was taken for, here to the copies.
    if isinstance(value, Tensor):
        value.record_stream(stream)
    elif isinstance(value, Mapping):
        for entry in value.values():
            _keep_until_used_by(stream, entry)
