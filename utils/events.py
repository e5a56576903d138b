"""Scalars for tensorboard."""

import os
import time
from pathlib import Path

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2


class EventLog:
    """One event file of tensorboard's.

    tensorboardX's own SummaryWriter hands events to a thread; where that thread meets a full disk it dies, and the
    run would wait for it for ever. Here the caller writes, and hears of it.

    Args:
        folder: an existing one; earlier event files in it stay.
        first: iterations from this one on, in earlier event files, are no longer shown.
    """

    def __init__(self, folder: Path, first: int) -> None:
        # Files bear the second they were made in: a run that soon goes on must not write over its own.
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._write(first, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalar(self, name: str, value: float, iteration: int) -> None:
        """Add a point to the curve of that name."""
        self._write(iteration, summary=summary.scalar(name, value))

    def flush(self) -> None:
        """Hand everything to the system."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _write(self, iteration: int, **content: object) -> None:
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=iteration, **content))
