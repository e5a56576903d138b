"""What a run says: progress on the screen, scalars for tensorboard, one JSON line per report."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from utils.files import make_folder
from utils.progress import progress_bar


class RunLogger:
    """Writes `metrics.jsonl`, `log.txt` and tensorboardX events into one folder.

    Usable as a context manager, which closes the files. A new run replaces the metrics of an earlier one in the
    folder; one that goes on after iteration `finished` keeps them up to there. `log.txt` is always continued.
    """

    def __init__(self, folder: Path, finished: int = 0) -> None:
        make_folder(folder)
        self._events = SummaryWriter(str(folder), purge_step=finished + 1)
        metrics = folder / "metrics.jsonl"
        kept = finished_lines(metrics, finished) if finished and metrics.is_file() else []
        self._lines = metrics.open("w", encoding="utf-8")
        self._lines.writelines(kept)
        self._log = (folder / "log.txt").open("a", encoding="utf-8")
        self._bar: tqdm | None = None

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()
        self._lines.close()
        self._log.close()

    def message(self, text: str) -> None:
        """Print above the progress bars, and keep in `log.txt` with the time."""
        tqdm.write(text)
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
        self._lines.write(json.dumps({"kind": kind, "iteration": iteration, **line}) + "\n")
        self._lines.flush()
        for name, value in line.items():
            if value is not None:
                self._events.add_scalar(f"{kind}/{name}", value, iteration)


def finished_lines(metrics: Path, finished: int) -> list[str]:
    """The lines of a `metrics.jsonl` up to iteration `finished`; what a kill cut off, or is no report, is left out."""
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):
            kept += [line] if line.endswith("\n") and json.loads(line)["iteration"] <= finished else []
    return kept


class RunningMeans:
    """Means of named scalars between two reports, kept on their device so that no step waits for it.

    Attributes:
        count: steps since the last report.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values, scalars without gradient; every step has the same names."""
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def pop(self) -> dict[str, float]:
        """The means since the last call; empty where there was no step."""
        means = {name: float(total) / self.count for name, total in self._sums.items()}
        self.count, self._sums = 0, {}
        return means
