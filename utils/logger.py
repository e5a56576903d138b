"""What a run says: progress on the screen, scalars for tensorboard, one JSON line per report."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from utils.distributed import is_first_process
from utils.errors import discard_output
from utils.events import EventLog
from utils.files import make_folder
from utils.progress import progress_bar


class RunLogger:
    """Writes `metrics.jsonl`, `log.txt` and tensorboard events into one folder.

    Usable as a context manager, which closes the files. A new run replaces the metrics of an earlier one in the
    folder; one that goes on keeps those up to the `position` that its checkpoint names. `log.txt` is always continued.

    Args:
        iteration: the last one that counts of an earlier run.
        position: bytes of its `metrics.jsonl` that count; 0 begins anew.

    Attributes:
        folder: where the files are.

    Raises: UserError where the folder cannot be written to.
    """

    def __init__(self, folder: Path, iteration: int = 0, position: int = 0) -> None:
        make_folder(folder)
        self.folder = folder
        metrics = folder / "metrics.jsonl"
        found = metrics.stat().st_size if metrics.is_file() else 0
        self._lines = metrics.open("ab")
        self._lines.truncate(min(position, found))
        self._lines.seek(0, os.SEEK_END)
        self._events = EventLog(folder, first=iteration + 1)
        self._log = (folder / "log.txt").open("a", encoding="utf-8")
        self._bar: tqdm | None = None
        if found < position:
            self.message(f"{metrics} is shorter than when the run was saved: some of its earlier lines are lost")

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()
        self._lines.close()
        self._log.close()

    def position(self) -> int:
        """How many bytes of metrics there are; by then they are on the disk, for a checkpoint to rely on."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        return self._lines.tell()

    def message(self, text: str) -> None:
        """Print above the progress bars, and keep in `log.txt` with the time."""
        try:
            tqdm.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # Ctrl+C ends whoever reads along (`| tee`) too. The run has its log, and is yet to be saved.
            discard_output()
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._log.flush()

    def progress(self, iterations: range, title: str, total: int) -> Iterator[int]:
        """The iterations, numbered from 1, under a progress bar that runs to `total`."""
        with progress_bar(iterations, title, total, iterations.start - 1) as self._bar:
            yield from self._bar

    def show(self, iteration: int, values: Mapping[str, float]) -> None:
        """Show a step's values in the progress bar; without a terminal, as a line of their own."""
        if self._bar is None or self._bar.disable:
            values_in_line = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            self.message(f"iteration {iteration}: {values_in_line}")
        else:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()})

    def scalars(self, kind: str, iteration: int, values: Mapping[str, float | None]) -> None:
        """Record named values of one iteration; None and values that are not finite become null in the JSON line.

        Args:
            kind: what the line is about, such as "weights" or "evaluation"; leads the names in tensorboard.
        """
        line = {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        self.line(kind, iteration, **line)
        for name, value in line.items():
            if value is not None:
                self._events.scalar(f"{kind}/{name}", value, iteration)
        self._events.flush()

    def line(self, kind: str, iteration: int, **values: Any) -> None:
        """Add a line to `metrics.jsonl`: numbers, names, lists of them."""
        self._lines.write(json.dumps({"kind": kind, "iteration": iteration, **values}).encode() + b"\n")
        self._lines.flush()


class SilentLogger(RunLogger):
    """What says nothing and writes nothing, in the place of a RunLogger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __exit__(self, *exception: object) -> None:
        pass

    def position(self) -> int:
        """Where nothing is written, there is nothing before."""
        return 0

    def message(self, text: str) -> None:
        pass

    def progress(self, iterations: range, title: str, total: int) -> Iterator[int]:
        """The iterations."""
        yield from iterations

    def show(self, iteration: int, values: Mapping[str, float]) -> None:
        pass

    def scalars(self, kind: str, iteration: int, values: Mapping[str, float | None]) -> None:
        pass

    def line(self, kind: str, iteration: int, **values: Any) -> None:
        pass


def open_log(folder: Path, iteration: int = 0, position: int = 0) -> RunLogger:
    """The log of a run, as `RunLogger`; of several processes, the first one alone has something to say."""
    return RunLogger(folder, iteration, position) if is_first_process() else SilentLogger(folder)


class RunningMeans:
    """Means of named scalars between two reports, kept on their device so that no step waits for it.

    Attributes:
        count: steps since the last report.
        sums: of each value over these steps.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values, scalars without gradient; every step has the same names."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def pop(self) -> dict[str, float]:
        """The means since the last call; empty where there was no step."""
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means
