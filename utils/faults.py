"""Faults of the machine: how each is recognised, and what its user can do.

Libraries report them under many types and wordings, some from another process as a mere text. So they are recognised
by what their messages have in common, and nothing else is: a fault of the program keeps its traceback.
"""

import errno
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_REASON = 200


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        signs: patterns; one of them is in an error's types, its system error's name or the first line of its message.
        meaning: what has happened, in plain words.
        remedy: what to do about it.
    """

    signs: tuple[str, ...]
    meaning: str
    remedy: str

    def explains(self, error: BaseException) -> bool:
        """Whether an error shows a sign of this fault."""
        return re.search("|".join(self.signs), _description(error)) is not None


LOST_PROCESS = Fault(
    ("gloo/transport", "NCCL", "Operation timed out!", "DistNetworkError", "DistStoreError"),
    "another process of this run has ended, or does not answer",
    "look for what it, or the system, has to say about it",
)

FAULTS = (
    Fault(
        (r"signal: Bus error", r"shared memory.*No space left", r"ENOSPC.*/dev/shm", rf"exit code {errno.ENOSPC}\b"),
        "shared memory, through which data loading processes hand over their batches, is full",
        "give it more room (docker run --shm-size=8g; mount -o remount,size=8g /dev/shm) or lower dataload.num_workers",
    ),
    Fault(
        (
            r"EMFILE|ENFILE",
            r"[Tt]oo many open files",
            r"items of ancdata",
            rf"exit code ({errno.EMFILE}|{errno.ENFILE})\b",
        ),
        "too many files are open",
        "raise the limit (ulimit -n 65536) or lower dataload.num_workers",
    ),
    Fault(
        (r"OutOfMemoryError", r"CUDA( driver)? error: out of memory", r"CU\w+_STATUS_ALLOC_FAILED"),
        "the GPU's memory is exhausted",
        "lower train.batch_size or dataload.crop_h and crop_w, or end other programs on this GPU",
    ),
    Fault(
        (r"MemoryError", r"ENOMEM", r"(can't|annot) allocate memory", r"not enough memory", r"Insufficient memory"),
        "memory is exhausted",
        "lower dataload.num_workers or train.batch_size, or end other programs",
    ),
    Fault(
        (r"ENOSPC|EDQUOT", r"No space left on device", r"Disk quota exceeded"),
        "a disk is full, or its quota is used up",
        "make room, or write elsewhere with --set paths",
    ),
    Fault(
        (r"DataLoader worker \(pid", r"Pin memory thread exited"),
        "a data loading process died, most often because the system ended it for want of memory",
        "lower dataload.num_workers",
    ),
    LOST_PROCESS,
)
"""From the particular to the general: the first that explains an error is meant.

Exit codes are those of workers that could say nothing any more: the number of the system's error.
"""


def explanation(error: BaseException | None) -> str | None:
    """One sentence for a fault of the machine, and None for any other error, and for none.

    The errors that were given as causes (`raise ... from`) are looked at too, since they may know more.
    """
    chain = list(_with_causes(error))
    for fault in FAULTS:
        for link in chain:
            if fault.explains(link):
                return f"{fault.meaning} ({_reason(link)}): {fault.remedy}; a training run goes on with --resume"
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _description(error: BaseException) -> str:
    types = " ".join(kind.__name__ for kind in type(error).__mro__)
    system_error = errno.errorcode.get(getattr(error, "errno", None), "")
    return f"{types} {system_error}: {_first_line(error)}"


def _reason(error: BaseException) -> str:
    line = _first_line(error) or type(error).__name__
    return textwrap.shorten(line, LONGEST_REASON, placeholder=" ...").rstrip(".")


def _first_line(error: BaseException) -> str:
    # Errors of workers go on with a whole traceback, whose lines of code are no signs.
    return str(error).strip().partition("\n")[0].strip()
