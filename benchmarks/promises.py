"""What is promised of speed and memory, and what of it the measurements have found.

A new promise is a line in `PROMISES`, with a function that finds its figure among the results.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.growth import ONE_POLICY
from benchmarks.loading import CACHE, FILES, PICTURES
from benchmarks.measure import times_faster
from benchmarks.variants import BASELINE, BASELINE_TF32, LEAST_MEMORY

Results = dict[str, Any]
"""Part of the benchmark -> what it returned; parts that were not measured are absent. "format" is `FORMAT`."""

BASELINES = {BASELINE.name, BASELINE_TF32.name}
"""Names of the implementations that are the release's way."""

FORMAT = 5
"""Another number for every change after which older files cannot be read."""


@dataclass(frozen=True)
class Figure:
    """A measured value, with the least and the greatest of its rounds where it is a ratio of such."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Promise:
    """One figure and its bound.

    Attributes:
        text: what it is about.
        bound: what the figure must reach, or with `at_most` must not exceed.
        find: looks the figure up; None where it was not measured.
        unit: of both; "x" is the baseline's.
    """

    text: str
    bound: float
    find: Callable[[Results], Figure | None]
    at_most: bool = False
    unit: str = "x"

    def is_kept_by(self, figure: Figure) -> bool:
        """Whether the figure is on the right side of the bound."""
        return figure.value <= self.bound if self.at_most else figure.value >= self.bound


def step_speed(results: Results, phase: str, implementation: str) -> Figure | None:
    """How many times faster than the baseline a phase of the headline's work is."""
    steps = results.get("headline", {}).get("steps", [])
    for step in steps:
        if (step["phase"], step["implementation"]) == (phase, implementation):
            return ratio_figure(step["times_faster"])
    return None


def curriculum_speed(results: Results, phase: str) -> Figure | None:
    """How many times faster the average step of a curriculum is; of every opening where those were measured."""
    averages = results.get("curriculum", results.get("headline", {})).get("averages", [])
    for average in averages:
        if (average["phase"], average["implementation"]) == (phase, "fp32"):
            return ratio_figure(average["times_faster"])
    return None


def best_speed(results: Results, phase: str) -> Figure | None:
    """The fastest of our implementations in a phase."""
    names = {step["implementation"] for step in results.get("headline", {}).get("steps", [])} - BASELINES
    figures = [figure for name in names if (figure := step_speed(results, phase, name))]
    return max(figures, key=lambda figure: figure.value, default=None)


def peak_share(results: Results, key: str) -> Figure | None:
    """The peak memory of a retraining step that takes the least, as a share of the baseline's.

    Args:
        key: of `memory.MEASURES`.
    """
    measured = results.get("memory", {"peaks": []})
    for peak in measured["peaks"]:
        of_step = (peak["phase"], peak["implementation"], peak["images"])
        if of_step == ("retraining", LEAST_MEMORY, measured["work"]["batch_size"]):
            return Figure(peak["of_baseline"][key])
    return None


def rate_of_heads(results: Results, implementation: str) -> Figure | None:
    """What the heads reach of the machine's rate of matrix products."""
    for step in results.get("headline", {}).get("steps", []):
        if (step["phase"], step["implementation"]) == ("heads", implementation):
            return Figure(step["flops_per_second"] / results["machine"]["matmul"][step["rate"]])
    return None


def loading_speed(results: Results, way: str, pictures: str) -> Figure | None:
    """How many times faster than the straightforward way one worker makes a training sample."""
    for row in results.get("loading", {}).get("samples", []):
        if (row["name"], row["pictures"]) == (way, pictures):
            return ratio_figure(row["times_faster"])
    return None


def cost_of_tasks(results: Results) -> Figure | None:
    """The backbone's cost with the most tasks of one policy, in units of that with one task."""
    curve = results.get("growth", {}).get("tasks")
    if curve is None:
        return None
    fewest, *_, most = curve["series"][ONE_POLICY]
    return ratio_figure(asdict(times_faster(fewest, than=most)))


def largest_change(results: Results, precision: str) -> Figure | None:
    """Of a metric, in percent of its value in float32."""
    metrics = results.get("metrics", {}).get("metrics", [])
    changes = [metric["differences"][precision] for metric in metrics if precision in metric["differences"]]
    return Figure(100 * max(changes)) if changes else None


def speed_of_processes(results: Results) -> Figure | None:
    """How many times as much two processes do, each with the headline's batch."""
    measured = results.get("processes", {"batches": []})
    for batch in measured["batches"]:
        if batch["images"] == 2 * measured["work"]["batch_size"]:
            return ratio_figure(batch["times_faster"])
    return None


def difference_of_processes(results: Results) -> Figure | None:
    """The largest of a loss from that of one process, relative."""
    batches = results.get("processes", {}).get("batches")
    return Figure(max(batch["differences"]["two"] for batch in batches)) if batches else None


def ratio_figure(ratio: dict[str, float]) -> Figure:
    """A `measure.Ratio` as it is kept in results."""
    return Figure(ratio["median"], ratio["low"], ratio["high"])


OF_ANY_DEVICE = (
    *(
        Promise(f"a training sample from {way}, {pictures}", bound, partial(loading_speed, way=way, pictures=pictures))
        for way, bound in ((FILES, 2.5), (CACHE, 8.0))
        for pictures in PICTURES
    ),
    Promise("20 tasks of one policy, cost of the backbone", 1.1, cost_of_tasks, at_most=True),
    Promise("bf16, change of a metric", 0.5, partial(largest_change, precision="bf16"), at_most=True, unit=" %"),
    Promise("two processes of one thread, each with the headline's images, images per second", 1.6, speed_of_processes),
    Promise("two processes, difference of a loss", 1e-5, difference_of_processes, at_most=True, unit=""),
)

PROMISES = {
    "cpu": (
        Promise("fp32, test", 1.6, partial(step_speed, phase="test", implementation="fp32")),
        Promise("fp32, retraining step", 1.25, partial(step_speed, phase="retraining", implementation="fp32")),
        Promise("fp32, weight steps of a curriculum", 1.3, partial(curriculum_speed, phase="weights")),
        Promise("fp32, policy steps of a curriculum", 1.2, partial(curriculum_speed, phase="policy")),
        Promise(
            f"{LEAST_MEMORY}, retraining step",
            1.0,
            partial(step_speed, phase="retraining", implementation=LEAST_MEMORY),
        ),
        *(
            Promise(f"{LEAST_MEMORY}, peak of {of_what}", 0.6, partial(peak_share, key=key), at_most=True)
            for key, of_what in (("own", "the process's own memory"), ("growth", "what the work adds"))
        ),
        Promise("bf16, test", 4.0, partial(step_speed, phase="test", implementation="bf16")),
        Promise("bf16, retraining step", 2.4, partial(step_speed, phase="retraining", implementation="bf16")),
        *OF_ANY_DEVICE,
    ),
    "cuda": (
        Promise("fastest test", 5.0, partial(best_speed, phase="test")),
        Promise("fastest retraining step", 3.0, partial(best_speed, phase="retraining")),
        Promise("bf16, share of the matmul rate in the heads", 0.6, partial(rate_of_heads, implementation="bf16")),
        *OF_ANY_DEVICE,
    ),
}
"""Type of the device -> promises; times are in units of the baseline's in the same run."""
