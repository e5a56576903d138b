"""Steps of policy learning, averaged over a whole curriculum.

With speed 1 every number of open blocks, 1 to L, lasts equally long.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from statistics import median

import numpy as np

from benchmarks.comparison import Record
from benchmarks.measure import times_faster
from benchmarks.work import Work
from models.resnet import LAYOUTS


def turning_points(work: Work) -> list[int]:
    """1, and the numbers of open blocks after which the next one to open is of an earlier stage; L at last.

    Blocks of one stage cost alike, so that between these points the seconds of a step lie on a line.
    """
    stages = LAYOUTS[work.config.backbone].stages
    return sorted({1, *accumulate(reversed(stages))})


def curriculum_averages(steps: Sequence[Record]) -> list[Record]:
    """Average the records of phases with open blocks, as `comparison.step_record` returns them.

    Returns:
        One record for each phase and implementation: "phase", "implementation", "rounds" (seconds of the average step,
        by round), "median", "least" and "times_faster" than the baseline.
    """
    kinds = dict.fromkeys((step["phase"], step["implementation"]) for step in steps if step["num_open"] is not None)
    rounds = {kind: average_step(of_kind(steps, *kind)) for kind in kinds}
    return [
        {
            "phase": phase,
            "implementation": implementation,
            "rounds": seconds,
            "median": median(seconds),
            "least": min(seconds),
            "times_faster": asdict(times_faster(seconds, rounds[phase, "baseline"])),
        }
        for (phase, implementation), seconds in rounds.items()
    ]


def of_kind(steps: Sequence[Record], phase: str, implementation: str) -> dict[int, list[float]]:
    """Open blocks -> seconds by round, in ascending order."""
    found = {
        step["num_open"]: step["rounds"]
        for step in steps
        if (step["phase"], step["implementation"]) == (phase, implementation) and step["num_open"] is not None
    }
    return dict(sorted(found.items()))


def average_step(seconds: dict[int, list[float]]) -> list[float]:
    """The mean over 1 .. L open blocks, by round; between those that were measured, seconds lie on a line.

    Args:
        seconds: open blocks -> seconds by round; the largest key is L.
    """
    measured = list(seconds)
    every = range(1, measured[-1] + 1)
    return [float(np.interp(every, measured, of_round).mean()) for of_round in zip(*seconds.values(), strict=True)]
