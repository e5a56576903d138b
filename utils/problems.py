"""Pydantic's errors as lines that a user can act on: key, what was expected, what was found."""

import difflib
import json
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
RANGES = {
    "greater_than": " above {gt:.10g}",
    "greater_than_equal": " of at least {ge:.10g}",
    "less_than": " below {lt:.10g}",
    "less_than_equal": " of at most {le:.10g}",
    "string_too_short": " that is not empty",
    "too_short": " that is not empty",
    "too_long": " of at most {max_length} entries",
    "finite_number": " that is finite",
}


def describe(schema: type[BaseModel], error: ErrorDetails) -> str:
    """One line for one error of `schema`'s validation: key, what was expected, what was found."""
    location, key = error["loc"], show_key(error["loc"])
    if error["type"] == "extra_forbidden":
        nearest = _nearest_key(schema, location)
        return f"{key}: expected a known key, found an unknown one, did you mean {nearest}?"
    found = "nothing, the key is missing" if error["type"] == "missing" else show(error["input"])
    if error["type"] == "expected":
        return f"{key}: expected {error['msg']}, found {found}"
    limits = RANGES.get(error["type"], "").format(**error.get("ctx", {}))
    return f"{key}: expected {_kind(_annotation_at(schema, location), limits)}, found {found}"


def show_key(location: Sequence[str | int]) -> str:
    """The dotted name of a key, `train.lr` or `seed[1]`."""
    names = (f"[{step}]" if isinstance(step, int) else "." + (shorten(step) or '""') for step in location)
    return "".join(names).removeprefix(".")


def show(value: Any) -> str:
    """A value as it was found, on one line and cut after 60 characters."""
    try:
        shown = shorten(json.dumps(value, ensure_ascii=False, default=str))
    except ValueError:
        shown = "a number of thousands of digits"  # Python refuses to write it
    return f"the text {shown}" if isinstance(value, str) else shown


def shorten(text: str) -> str:
    """A text cut after 60 characters, line breaks and what else would upset a terminal written as escapes."""
    cut = text if len(text) <= 60 else f"{text[:57]}..."
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in cut)


def is_section(annotation: Any) -> bool:
    """Whether a field's type is a group of keys."""
    # The origin first: Python 3.10 takes `tuple[int, ...]` for a class and `issubclass` then fails on it.
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _nearest_key(schema: type[BaseModel], location: Sequence[str | int]) -> str:
    """The known key, of any section, whose name is nearest; at a tie the one of the same section."""
    *sections, name = (str(step) for step in location)
    section = ".".join(sections)
    # In a file, `train.lr: 1` at the top level means lr of train: its last part is the name.
    name = shorten(name.rpartition(".")[2].lower())

    def likeness(known: tuple[str, str]) -> tuple[float, bool]:
        known_section, known_name = known
        return difflib.SequenceMatcher(None, name, known_name.lower()).ratio(), known_section == section

    nearest_section, nearest_name = max(_known_keys(schema), key=likeness)
    if nearest_section == section:
        return ".".join([*sections, nearest_name])
    return f"{nearest_name}, {f'in the section {nearest_section}' if nearest_section else 'at the top level'}"


def _known_keys(schema: type[BaseModel], section: str = "") -> Iterator[tuple[str, str]]:
    """(section, name) of every key; the section is "" at the top level."""
    for name, field in schema.model_fields.items():
        yield section, name
        if is_section(field.annotation):
            yield from _known_keys(field.annotation, name)


def _annotation_at(schema: type[BaseModel], location: Sequence[str | int]) -> Any:
    """The type at ("train", "lr") or, in a list, at ("seed", 3)."""
    annotation: Any = schema
    for step in location:
        in_list = isinstance(step, int)
        annotation = get_args(annotation)[0] if in_list else annotation.model_fields[step].annotation
    return annotation


def _kind(annotation: Any, limits: str) -> str:
    """What a type admits, in words: "a number", and with `limits` "a number above 0"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], limits)
    if origin in (Union, types.UnionType):
        return f"{_kind(arguments[0], limits)} or null"
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"a list{limits}"
    return "a section of keys" if is_section(annotation) else f"{KINDS[annotation]}{limits}"
