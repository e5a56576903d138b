"""Measure everything: `python -m benchmarks.run`.

Writes the results as JSON after each part, prints their tables, and draws the growth curves beside the JSON.
"""

import argparse
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth import over_processes, over_workers
from benchmarks.machine import at_its_best, describe_machine, slow_rates
from benchmarks.picture import draw_growth
from benchmarks.promises import FORMAT, Results
from benchmarks.report import format_report
from benchmarks.settings import IMAGES, TINY_SIZE, Settings
from benchmarks.suites import SUITES
from utils.children import num_cores
from utils.command_line import positive
from utils.errors import UserError, exit_on_user_error
from utils.files import make_folder, write_json


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SUITES), metavar="PART", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="timed rounds (default: 3)")
    parser.add_argument("--device", choices=list(IMAGES), default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of the CPU (default: one per core)")
    parser.add_argument("--batch", type=positive, metavar="N", help="images of a training step (default: 2, GPU: 16)")
    parser.add_argument("--size", type=positive, metavar="N", help="their height and width (default: 224, GPU: 321)")
    parser.add_argument("--tiny", action="store_true", help="a trial of the benchmark itself: seconds for each part")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results (default: runs/benchmarks/{date}.json)")
    return parser.parse_args(arguments)


def chosen_settings(options: argparse.Namespace) -> Settings:
    """What the options mean on this machine.

    Raises:
        UserError: there is no such device, or images would be too small.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; choose cpu.")
    if options.size and options.size < TINY_SIZE:
        raise UserError(f"--size {options.size}: the networks need images of {TINY_SIZE}x{TINY_SIZE} at least.")
    batch_size, size = IMAGES[options.device]
    return Settings(
        device=torch.device(options.device),
        repeats=options.repeats,
        threads=options.threads or num_cores(),
        batch_size=options.batch or batch_size,
        size=options.size or (TINY_SIZE if options.tiny else size),
        tiny=options.tiny,
    )


def output_file(chosen: Path | None, date: str) -> Path:
    """Where the results go; its folder is made.

    Raises:
        UserError: the name is not that of a JSON file, or nothing can be written there.
    """
    out = chosen or Path("runs", "benchmarks", f"{date}.json")
    if out.suffix != ".json":
        raise UserError(
            f"--out {out}: results are JSON, and the curves a PNG beside it; choose a name ending in .json."
        )
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: choose the name of a file, such as {out / 'results.json'}.")
    make_folder(out.parent)
    return out


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line; bad input ends with one sentence and exit code 2."""
    options = parse_arguments(arguments)
    with exit_on_user_error():
        settings = chosen_settings(options)
        date = datetime.now().strftime("%Y-%m-%d-%H%M")
        out = output_file(options.out, date)
        torch.set_num_threads(settings.threads)
        machine = describe_machine(settings)
        if not settings.tiny:  # where rates mean nothing
            settings = replace(settings, slow_rates=slow_rates(machine))
        results: Results = {"format": FORMAT, "date": date, "repeats": settings.repeats, "machine": machine}
        for name in options.only or SUITES:
            results[name] = SUITES[name](settings)
            results["machine"] = at_its_best(results["machine"], describe_machine(settings))
            # After each part, so that an hour's work outlives whatever comes next.
            write_json(out, results)
        print(format_report(results))
        print(f"results  {out}")
        if curves := all_curves(results):
            draw_growth(out.with_suffix(".png"), curves)
            print(f"picture  {out.with_suffix('.png')}")


def all_curves(results: Results) -> list[dict[str, Any]]:
    """Those of the parts that have any."""
    curves = list(results.get("growth", {}).values())
    if "processes" in results:
        curves.append(asdict(over_processes(results["processes"]["batches"])))
    if "loading" in results:
        curves.append(asdict(over_workers(results["loading"]["workers"])))
    return curves


if __name__ == "__main__":
    main()
