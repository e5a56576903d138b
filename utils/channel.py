"""How processes of one run talk to each other: by PyTorch's distributed package, over the CPU."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from utils.errors import UserError

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that tell a process its place among the others, as torchrun and `utils.launching` set them."""


class Channel:
    """From each process to all others. It stays in order whatever a GPU is at.

    Args:
        patience: how long processes wait for each other where they compute together.
        long_patience: how long they wait in this channel where nothing else is said.

    Attributes:
        num_processes: how many there are.
        rank: which one this is, from 0 on.

    Raises: `UserError` where the environment does not say all of this process's place.
    """

    def __init__(self, patience: timedelta, long_patience: timedelta) -> None:
        missing = [name for name in PLACE if name not in os.environ]
        if missing:
            raise UserError(
                f"RANK is set, as in one of several processes, but not {', '.join(missing)}: let torchrun, or --gpus "
                "and --processes, start them; for a single one, unset RANK."
            )
        on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=patience)
        self._group = dist.new_group(backend="gloo", timeout=long_patience)
        self.num_processes = self._group.size()
        self.rank = self._group.rank()
        # Kept, not made for each message: gloo's threads let go of a message's tensors some time later, and were these
        # the last to hold them, they would wait for Python, which in `close` waits for the threads.
        self._own = torch.zeros(1, dtype=torch.int64)
        self._of_all = [torch.zeros(1, dtype=torch.int64) for _ in range(self.num_processes)]

    def close(self) -> None:
        """Part from the others, after a message of numbers. Nothing may be under way: it would be waited for."""
        dist.destroy_process_group()

    def numbers_of_all(self, number: int, patience: timedelta) -> list[int]:
        """Each process's integer, in their order.

        Raises: `RuntimeError` where one is gone, or has not come after so long.
        """
        self._own.fill_(number)
        dist.all_gather(self._of_all, self._own, group=self._group, async_op=True).wait(patience)
        return [int(number) for number in self._of_all]

    @torch.inference_mode(False)  # gloo's threads may not write to tensors of inference
    def values_of_all(self, value: Any) -> list[Any]:
        """Each process's value, in their order: whatever can be pickled. Raises as `numbers_of_all`."""
        values: list[Any] = [None] * self.num_processes
        dist.all_gather_object(values, value, group=self._group)
        return values
