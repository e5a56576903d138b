"""The growth curves as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from utils.pictures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2


def draw_growth(path: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Draw curves, `growth.Curve` as plain values, each in a field of its own, and save them as a PNG."""
    rows = -(-len(curves) // COLUMNS)
    figure = new_figure(5.2 * COLUMNS, 3.4 * rows)
    fields = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for field in fields:
        field.axis("off")
    for field, curve in zip(fields, curves, strict=False):
        draw_curve(field, curve)
    save_figure(path, figure)


def draw_curve(field: "Axes", curve: Mapping[str, Any]) -> None:
    """One line of medians per series, in the band of its rounds, from zero upwards; the baseline's grey and dashed."""
    field.axis("on")
    for name, rounds in curve["series"].items():
        style = {"color": "grey", "linestyle": "--"} if name == "baseline" else {}
        (line,) = field.plot(curve["x"], list(map(median, rounds)), marker="o", markersize=3, label=name, **style)
        band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
        field.fill_between(curve["x"], list(map(min, rounds)), list(map(max, rounds)), **band)
    field.set_title(curve["title"], fontsize=10)
    field.set_xlabel(curve["x_label"], fontsize=8)
    field.set_ylabel(curve["y_label"], fontsize=8)
    field.set_xticks(curve["x"])
    field.set_ylim(bottom=0)
    field.tick_params(labelsize=7)
    field.legend(fontsize=7, frameon=False)
