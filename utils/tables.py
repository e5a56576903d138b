"""Plain-text tables and pictures for the terminal and the log."""

from collections.abc import Mapping, Sequence

SHADES = "·▁▂▃▄▅▆▇█"


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need to be; numbers to the right, text to the left, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    numeric = [all(isinstance(row[column], int | float | None) for row in rows) for column in range(len(header))]

    def line(values: Sequence[str]) -> str:
        aligned = (
            value.rjust(width) if number else value.ljust(width)
            for value, width, number in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(list(header)), line(["-" * width for width in widths]), *map(line, cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10 else f"{value:.2f}"
    return str(value)


def format_shares(rows: Mapping[str, Sequence[float]]) -> str:
    """Rows of numbers in [0, 1] as shaded cells, dot for 0 and full block for 1, with each row's mean."""
    width = max(len(name) for name in rows)
    return "\n".join(
        f"{name.ljust(width)}  {' '.join(map(_shade, values))}   mean {sum(values) / len(values):.2f}"
        for name, values in rows.items()
    )


def _shade(value: float) -> str:
    return SHADES[round(value * (len(SHADES) - 1))]
