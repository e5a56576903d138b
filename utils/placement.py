"""How many processes a script is to have, and on which GPUs, as its command line asks."""

import os
from collections.abc import Sequence

import torch

from utils.children import num_cores
from utils.errors import UserError
from utils.launching import is_launched


def usable_gpus(gpus: Sequence[int] | None) -> list[int]:
    """Those of `--gpus` (None: all); none where the CPU is asked for, or where PyTorch finds no CUDA device.

    Takes no memory of any GPU, which a process that only starts others does not need.

    Raises:
        UserError: a GPU number that this machine does not have.
    """
    if gpus == [-1] or not torch.cuda.is_available():
        return []
    available = torch.cuda.device_count()
    if gpus is None:
        return list(range(available))
    for gpu in gpus:
        if not 0 <= gpu < available:
            raise UserError(f"--gpus {gpu}: this machine has GPUs 0 to {available - 1}; choose among them.")
    return list(gpus)


def processes_of_run(gpus: Sequence[int] | None, processes: int | None) -> int:
    """How many processes share one run: `--processes`, or one for each of `--gpus`, or one.

    Raises:
        UserError: there is not exactly one GPU for each; or torchrun has started another number.
    """
    started = int(os.environ["WORLD_SIZE"]) if is_launched() else None
    if started and processes not in (None, started):
        raise UserError(
            f"--processes {processes}: {started} are started already, as WORLD_SIZE says; leave --processes to "
            "torchrun."
        )
    usable = usable_gpus(gpus)
    if not usable:
        return started or processes or 1
    if gpus is None:
        usable = usable[: processes or 1]
    # Processes of torchrun may be on several machines: there, each sees for itself whether it has a GPU.
    is_one_for_each = started or processes in (None, len(usable))
    if len(set(usable)) < len(usable) or not is_one_for_each:
        asked_for = " ".join(map(str, usable))
        raise UserError(
            f"--gpus {asked_for} with {processes or len(usable)} processes: each needs a GPU of its own; name as many "
            "different GPUs as processes, and leave --processes out."
        )
    return started or len(usable)


def places_side_by_side(gpus: Sequence[int] | None, parallel: int) -> tuple[list[int], str]:
    """The GPU of each run that is to run at once (-1: the CPU), and a line that says what was chosen.

    Args:
        parallel: how many at once; 0 for one per GPU, and on the CPU for one per two cores.

    Raises:
        UserError: a GPU number that this machine does not have, or torchrun has started this process.
    """
    if is_launched():
        raise UserError("--parallel starts its processes by itself: run the script with python, not with torchrun.")
    usable = usable_gpus(gpus)
    if not usable:
        at_once = parallel or max(num_cores() // 2, 1)
        return [-1] * at_once, f"device: CPU, {num_cores()} cores; {at_once} at once"
    places = [usable[number % len(usable)] for number in range(parallel or len(usable))]
    return places, f"device: GPUs {', '.join(map(str, dict.fromkeys(places)))}; {len(places)} at once"
