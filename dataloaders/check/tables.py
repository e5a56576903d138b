"""What a data set holds, as tables: its splits, and what its tasks learn from."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from dataloaders.check.inspection import Summaries
from dataloaders.check.memberships import SPLITS, told_apart
from dataloaders.check.parts import Part, Parts
from dataloaders.check.readers import TextReader
from dataloaders.check.summary import Summary, Values
from utils.tables import format_table

MOST_COMMON = 5
"""Classes that a table names."""

SAMPLES = ("samples", *SPLITS, "image size")
VALUES = ("values", "split", "unit", "min", "max", "valid %")
PIXEL_CLASSES = ("classes of pixels", "split", "classes", "never occur", "labelled %", "most common")
SAMPLE_CLASSES = ("classes of samples", "split", "classes", "never occur", "fewest", "most", "most common")
TEXTS = ("words of texts", "split", "median", "95 %", "most", "cut off %", "unknown %")

Row = list[object]


def format_summaries(parts: Parts, summaries: Summaries) -> str:
    """All tables that have a row, one below the other."""
    tables: dict[tuple[str, ...], list[Row]] = {
        SAMPLES: [samples_row(name, part, summaries[name]) for name, part in parts.items()],
        VALUES: [],
        PIXEL_CLASSES: [],
        SAMPLE_CLASSES: [],
        TEXTS: [],
    }
    for name, part in parts.items():
        for split in told_apart(part.splits):
            for header, row in rows_of(name, part, split, summaries[name][split]):
                tables[header].append(row)
    return "\n\n".join(format_table(header, rows) for header, rows in tables.items() if rows)


def rows_of(name: str, part: Part, split: str, summary: Summary) -> Iterator[tuple[tuple[str, ...], Row]]:
    """The rows that tell of a split: the table's header, and the row."""
    for task, values in summary.values.items():
        if values.counts is None:
            yield VALUES, values_row(task, split, part.targets[task].unit, values)
        elif values.per_pixel:
            yield PIXEL_CLASSES, pixel_classes_row(task, split, values)
        else:
            yield SAMPLE_CLASSES, sample_classes_row(task, split, values, part.class_names)
    if isinstance(part.reader, TextReader):
        yield TEXTS, texts_row(name, split, summary, part.reader.max_tokens)


def samples_row(name: str, part: Part, of_splits: Mapping[str, Summary]) -> Row:
    """How many samples the splits of a part list, and how large their images are."""
    sizes: Counter[tuple[int, int]] = Counter()
    for split in told_apart(part.splits):
        sizes.update(of_splits[split].sizes)
    listed = [len(part.splits.members[split]) if split in part.splits.members else None for split in SPLITS]
    return [name, *listed, format_sizes(list(sizes))]


def format_sizes(sizes: list[tuple[int, int]]) -> str | None:
    """Height x width of images, the smallest and the largest area where they differ; None without one."""
    if not sizes:
        return None
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    smallest, largest = (f"{height}x{width}" for height, width in (ordered[0], ordered[-1]))
    return smallest if len(ordered) == 1 else f"{smallest} to {largest} ({len(ordered)} sizes)"


def values_row(task: str, split: str, unit: str | None, values: Values) -> Row:
    """The range of continuous values, and which share of the pixels has one."""
    limits = [values.lowest, values.highest] if values.num_valid else [None, None]
    return [task, split, unit, *limits, percent(values.num_valid, values.num_values)]


def pixel_classes_row(task: str, split: str, values: Values) -> Row:
    """Which classes the pixels of maps have, the most common ones with their shares of the labelled pixels."""
    shares = [f"{label} ({percent(count, values.num_valid):.1f} %)" for label, count in most_common(values.counts)]
    labelled = percent(values.num_valid, values.num_values)
    return [task, split, len(values.counts), never(values.counts), labelled, ", ".join(shares)]


def sample_classes_row(task: str, split: str, values: Values, class_names: Mapping[int, str]) -> Row:
    """Which classes samples have, the most common ones with their numbers."""
    numbers = [f"{class_names.get(label, label)} ({count})" for label, count in most_common(values.counts)]
    occurring = values.counts[values.counts > 0]
    limits = [int(occurring.min()), int(occurring.max())] if occurring.size else [None, None]
    return [task, split, len(values.counts), never(values.counts), *limits, ", ".join(numbers)]


def never(counts: np.ndarray) -> int:
    """How many classes do not occur."""
    return int((counts == 0).sum())


def most_common(counts: np.ndarray) -> list[tuple[int, int]]:
    """The classes that occur most often, and how often, the most common first."""
    order = np.argsort(-counts, kind="stable")[:MOST_COMMON].tolist()
    return [(label, int(counts[label])) for label in order if counts[label]]


def texts_row(domain: str, split: str, summary: Summary, max_tokens: int) -> Row:
    """How long texts are, in words, which share of them is cut, and which share of the words is not known."""
    lengths = sorted(summary.lengths.elements())
    if not lengths:
        return [domain, split, None, None, None, None, None]
    median, nearly_all = np.percentile(lengths, [50, 95], method="nearest").tolist()
    cut = sum(length > max_tokens for length in lengths)
    return [
        domain,
        split,
        median,
        nearly_all,
        lengths[-1],
        percent(cut, len(lengths)),
        percent(summary.num_unknown, summary.num_words),
    ]


def percent(count: int, total: int) -> float | None:
    """A share in %; None of nothing."""
    return 100 * int(count) / int(total) if total else None


def sample_texts(parts: Parts, count: int = 3, num_words: int = 30) -> list[str]:
    """The beginnings of the first texts of as many domains, each with its domain and label."""
    texts = []
    for name, part in parts.items():
        reviews = next((part.splits.members[split] for split in told_apart(part.splits)), [])
        if isinstance(part.reader, TextReader) and reviews:
            words = reviews[0].text.split()
            shown = " ".join(words[:num_words]) + (" ..." if len(words) > num_words else "")
            texts.append(f"{name}, class {reviews[0].label}: {shown}")
    return texts[:count]
