"""Results -> tables in Markdown: `python -m benchmarks.report FILE` prints them anew."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from benchmarks.comparison import Record
from benchmarks.loading import loading_tables
from benchmarks.memory import MEASURES
from benchmarks.promises import FORMAT, PROMISES, Figure, Results, ratio_figure
from benchmarks.tables import cell, markdown_table
from utils.errors import UserError, exit_on_user_error
from utils.files import read_json

PARTS_OF_A_STEP = ("forward", "backward", "optimiser")


def format_report(results: Results) -> str:
    """All tables, each under its title."""
    return "\n\n".join(sections(results)) + "\n"


def sections(results: Results) -> Iterator[str]:
    """The tables of those parts that were measured."""
    machine = results["machine"]
    yield f"## The machine\n\n{machine_table(machine)}"
    yield f"## What was promised\n\n{promise_table(results)}"
    works = {"headline": results.get("headline"), "curriculum": results.get("curriculum")}
    for part, compared in {**works, **results.get("configurations", {})}.items():
        if compared:
            yield f"## {part}: {work_line(compared['work'])}\n\n{step_table(compared['steps'], machine)}"
            yield agreement_table(compared["agreement"])
            if compared.get("averages"):
                yield f"Averaged over the curriculum:\n\n{average_table(compared['averages'])}"
    if "memory" in results:
        yield f"## Memory: {work_line(results['memory']['work'])}\n\n{memory_table(results['memory']['peaks'])}"
    if results.get("metrics", {}).get("metrics"):
        yield f"## Metrics: {metrics_line(results['metrics'])}\n\n{metrics_table(results['metrics']['metrics'])}"
    if "processes" in results:
        measured = results["processes"]
        yield f"## Processes: {measured['work']['configuration']}\n\n{processes_table(measured['batches'])}"
    if "loading" in results:
        yield f"## Loading\n\n{loading_tables(results['loading'])}"
    for curve in results.get("growth", {}).values():
        yield f"## Growth: {curve['title']}\n\n{curve_table(curve)}"


def machine_table(machine: Record) -> str:
    """What it is, and its measured limits."""
    features = f" ({', '.join(machine['features'])})" if machine["features"] else ""
    threads = f", {machine['threads']} threads" if machine["device"] == "cpu" else ""
    rows = [
        ["device", f"{machine['name']}{features}{threads}"],
        ["PyTorch", machine["torch"]],
        *([f"matrix products, {rate}", f"{cell(value / 1e9)} GFLOP/s"] for rate, value in machine["matmul"].items()),
        ["copying, read and written", f"{cell(machine['copy'] / 1e9)} GB/s"],
    ]
    return markdown_table(["", "measured here"], rows)


def promise_table(results: Results) -> str:
    """Every promise beside its figure."""
    rows = []
    for promise in PROMISES[results["machine"]["device"]]:
        figure = promise.find(results)
        kept = None if figure is None else ("yes" if promise.is_kept_by(figure) else "NO")
        bound = f"at {'most' if promise.at_most else 'least'} {promise.bound:g}{promise.unit}"
        measured = "not measured" if figure is None else figure_text(figure, promise.unit)
        rows.append([promise.text, bound, measured, kept])
    return markdown_table(["", "promised", "measured (rounds)", "kept"], rows)


def figure_text(figure: Figure, unit: str = "x") -> str:
    """A value with its spread."""
    spread = "" if figure.low is None else f" ({figure.low:.3g} to {figure.high:.3g})"
    return f"{figure.value:.3g}{unit}{spread}"


def work_line(work: Record) -> str:
    """What was computed, in one line."""
    tasks = ", ".join(f"{task} {outputs}" for task, outputs in work["tasks"].items())
    height, width = work["size"]
    test_height, test_width = work["test_size"]
    return (
        f"{work['configuration']}, {work['backbone']}, {tasks}; steps on {work['batch_size']} images of "
        f"{height}x{width}, test on one of {test_height}x{test_width}"
    )


def step_table(steps: Sequence[Record], machine: Record) -> str:
    """Times of the phases, and what was executed in them."""
    rows = [
        [
            step["title"],
            step["implementation"],
            step["median"],
            step["least"],
            *(step["parts"].get(part) for part in PARTS_OF_A_STEP),
            step["images_per_second"],
            step["flops"] / 1e9,
            step["flops_per_second"] / 1e9,
            f"{step['flops_per_second'] / machine['matmul'][step['rate']]:.0%}",
            times_faster_text(step),
        ]
        for step in steps
    ]
    header = ["phase", "", "seconds", "least", *PARTS_OF_A_STEP, "images/s", "GFLOP", "GFLOP/s", "of matmul", "faster"]
    return markdown_table(header, rows)


def times_faster_text(step: Record) -> str:
    """How many times faster than the baseline a step is."""
    return figure_text(ratio_figure(step["times_faster"]))


def average_table(averages: Sequence[Record]) -> str:
    """The average steps of a curriculum."""
    rows = [
        [step["phase"], step["implementation"], step["median"], step["least"], times_faster_text(step)]
        for step in averages
    ]
    return markdown_table(["phase", "", "seconds", "least", "faster"], rows)


def agreement_table(agreement: dict[str, dict[str, float]]) -> str:
    """How far predictions are from the baseline's."""
    rows = [[name, *(f"{value:.1e}" for value in kinds.values())] for name, kinds in agreement.items()]
    kinds = list(next(iter(agreement.values())))
    return markdown_table(["largest difference, of the largest prediction", *kinds], rows)


def memory_table(peaks: Sequence[Record]) -> str:
    """Peak memory of the phases."""
    rows = [
        [
            peak["title"],
            peak["images"],
            peak["implementation"],
            *(value for key in MEASURES for value in (peak[key] / 1e9, f"{peak['of_baseline'][key]:.2f}x")),
        ]
        for peak in peaks
    ]
    titles = ("whole process, GB", "its own memory, GB", "what the work adds, GB")
    header = ["phase", "images", "", *(text for title in titles for text in (title, "of the baseline's"))]
    return markdown_table(header, rows)


def metrics_line(measured: Record) -> str:
    """What the metrics are of, in one line."""
    frames, (height, width) = measured["frames"], measured["size"]
    networks = len({record["seed"] for record in measured["metrics"]})
    return (
        f"{networks} small networks, {measured['iterations']} steps on {frames['train']} rendered rooms of "
        f"{height}x{width}, tested on {frames['test']}"
    )


def metrics_table(metrics: Sequence[Record]) -> str:
    """The mean of each metric in float32, and how far other precisions are from it at most."""
    precisions = [precision for precision in metrics[0]["differences"] if precision != "fp32"]
    by_metric: dict[str, list[Record]] = {}
    for record in metrics:
        by_metric.setdefault(record["metric"], []).append(record)
    rows = [
        [
            metric,
            fmean(record["fp32"] for record in of_seeds),
            *(f"{max(record['differences'][precision] for record in of_seeds):.2%}" for precision in precisions),
        ]
        for metric, of_seeds in by_metric.items()
    ]
    return markdown_table(["", "fp32, mean", *(f"{precision}, largest difference" for precision in precisions)], rows)


def processes_table(batches: Sequence[Record]) -> str:
    """Steps of one and of two processes, and of one process with two threads."""
    rows = [
        [
            batch["images"],
            *(median(batch["seconds"][crew]) for crew in ("one", "two", "two threads")),
            times_faster_text(batch),
            *(f"{batch['differences'][crew]:.0e}" for crew in ("two", "two threads")),
        ]
        for batch in batches
    ]
    seconds = ["one process, seconds", "two processes", "one, two threads"]
    differences = ["two processes, difference of a loss", "one, two threads"]
    return markdown_table(["images", *seconds, "two processes faster", *differences], rows)


def curve_table(curve: Record) -> str:
    """The medians of a curve, and how often they are that of its first point."""
    rows = [
        [name, *(f"{cell(value)} ({value / values[0]:.2f}x)" for value in values)]
        for name, values in ((name, list(map(median, rounds))) for name, rounds in curve["series"].items())
    ]
    return markdown_table([curve["x_label"], *map(str, curve["x"])], rows)


def main() -> None:
    """Print the tables of a file of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Print the tables of results.")
    parser.add_argument("file", type=Path, metavar="FILE", help="what benchmarks.run wrote")
    file = parser.parse_args().file
    with exit_on_user_error():
        results = read_json(file)
        if not isinstance(results, dict) or results.get("format") != FORMAT:
            raise UserError(
                f"{file} does not hold results of this version of benchmarks.run: choose a file that it has written."
            )
        print(format_report(results))


if __name__ == "__main__":
    main()
