"""Strategies for configurations: sound values of every key, values of no sense, and text that is nearly YAML."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from utils.config import TestingConfig, TrainingConfig

Tree = dict[str, Any]

SHIPPED = {
    path.stem: yaml.safe_load(path.read_text())
    for folder in ("adashare", "demo")
    for path in sorted((Path(__file__).parents[2] / "yamls" / folder).glob("*.yml"))
    if not path.stem.endswith("_test")
}
"""Name -> the values of a configuration of train.py, one or two for every data set."""

MOST_COUNT = 10**9

# ---------------------------------------------------------------------------------------- values of every kind

UNUSUAL_TEXTS = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "null",
    "1e5",
    "0x10",
    "1:30",
    "=",
    "<<",
    "~",
    "\0",
    "\n",
    "\x1b[2J",
    "\x85",
]
UNUSUAL_NUMBERS = [0, -1, 2**31, 2**32, 2**63, 10**30, 16**400, 1e-320, 1e300, float("nan"), float("inf"), -0.0]

texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(UNUSUAL_TEXTS),
    st.characters(categories=["Cs"]),  # surrogates: text for Python, but not for UTF-8
    st.integers(1, 400).map("long".__mul__),
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from(UNUSUAL_NUMBERS))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
any_value = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
any_tree = st.dictionaries(texts, any_value, max_size=4)

# ------------------------------------------------------------------------------------- sound values of the keys


def sound_values(schema: dict) -> st.SearchStrategy:
    """Values that a key allows by itself, from its JSON schema; so that new keys are covered without a word here."""
    if "anyOf" in schema:
        return st.one_of(*(sound_values(choice) for choice in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(sound_values(schema["items"]), min_size=1, max_size=4, unique=True)
    if schema["type"] == "integer":
        most = schema.get("maximum", schema.get("exclusiveMaximum", MOST_COUNT + 1) - 1)
        return st.integers(schema["minimum"], most)
    if schema["type"] == "number":
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        return st.floats(
            least,
            schema.get("maximum"),
            exclude_min="exclusiveMinimum" in schema,
            allow_nan=False,
            allow_infinity=False,
        )
    return {"boolean": st.booleans(), "null": st.none(), "string": st.text("aZ0-_ü日", min_size=1)}[schema["type"]]


def keys_of(schema: dict, definitions: dict, section: str = "") -> Iterator[tuple[str, dict]]:
    """(dotted key, its JSON schema) of every key that is no section."""
    for name, of_key in schema["properties"].items():
        (of_section,) = of_key.get("allOf", [of_key])  # pydantic wraps a section with a default, or does not
        if "$ref" in of_section:
            yield from keys_of(definitions[of_section["$ref"].rpartition("/")[2]], definitions, f"{name}.")
        else:
            yield section + name, of_key


def _sound_values_of_keys(model: type[TestingConfig]) -> dict[str, st.SearchStrategy]:
    schema = model.model_json_schema()
    definitions = schema["$defs"]
    return {key: sound_values(of_key) for key, of_key in keys_of(schema, definitions)}


SOUND_VALUES = _sound_values_of_keys(TrainingConfig)
"""Dotted key -> values that are right by themselves."""

REQUIRED = [
    *(key for key in TrainingConfig.model_json_schema()["required"] if key not in ("train", "dataload")),
    *(f"train.{key}" for key in TrainingConfig.model_fields["train"].annotation.model_json_schema()["required"]),
    *("dataload.dataset", "dataload.dataroot"),
]

# ----------------------------------------------------------------------------------------- whole configurations


def with_value(tree: Tree, key: str, value: Any) -> Tree:
    """A copy of the tree in which the dotted key has another value."""
    section, _, name = key.rpartition(".")
    if not section:
        return tree | {name: value}
    return tree | {section: section_of(tree, section) | {name: value}}


def without(tree: Tree, key: str) -> Tree:
    """A copy of the tree without the dotted key."""
    section, _, name = key.rpartition(".")
    if not section:
        return {other: value for other, value in tree.items() if other != name}
    return tree | {section: without(section_of(tree, section), name)}


def section_of(tree: Tree, section: str) -> Tree:
    """The values of a section; none where it is missing, or no section any more."""
    values = tree.get(section)
    return values if isinstance(values, dict) else {}


shipped_trees = st.sampled_from(list(SHIPPED)).map(SHIPPED.__getitem__)


@st.composite
def nearly_sound_trees(draw: st.DrawFn) -> Tree:
    """A shipped configuration with a few keys changed to other sound values; what keys say together may not fit."""
    tree = draw(shipped_trees)
    for key in draw(st.lists(st.sampled_from(list(SOUND_VALUES)), max_size=5, unique=True)):
        tree = with_value(tree, key, draw(SOUND_VALUES[key]))
    return tree


@st.composite
def mutated_trees(draw: st.DrawFn) -> Tree:
    """A shipped configuration with keys dropped, replaced and added without regard to what they mean."""
    tree = draw(shipped_trees)
    known_keys = st.sampled_from([*SOUND_VALUES, "train", "test", "paths", "dataload"])
    for key in draw(st.lists(known_keys | texts, min_size=1, max_size=5)):
        tree = without(tree, key) if draw(st.booleans()) else with_value(tree, key, draw(any_value))
    return tree


# ---------------------------------------------------------------------------------------------- text of a file

SURPRISING_YAML = [
    *("&a ", "*a", "!!int ", "!<tag:%0A> ", "<<: ", "? ", "- ", "| ", "> ", "# ", "%YAML 9.9\n", "---\n", "...\n"),
    *("{", "}", "[", "]", ",", ": ", "'", '"', "\t", "\x85", "\u2028", "\ufeff", "\0", "\ud800"),
    *(r'"\ud800"', r'"\0"', r'"\UFFFFFFFF"', r'"\U00110000"', r'"\x1b[2J"'),
    *("0x" + "f" * 5000, "9" * 5000, "1" + ":59" * 300, "1" + ":59" * 300 + ".0", "1e999", "-.inf", ".nan", "0b_"),
]
"""Pieces of text that mean something in YAML, or break it."""


@st.composite
def nearly_yaml_texts(draw: st.DrawFn) -> str:
    """The text of a shipped configuration with a few pieces cut out and others put in."""
    text = yaml.safe_dump(draw(shipped_trees))
    pieces = st.sampled_from(SURPRISING_YAML) | st.text(max_size=5)
    for _ in range(draw(st.integers(1, 3))):
        before_values = [match.end() for match in re.finditer(": |- ", text)] or [0]
        start = draw(st.sampled_from(before_values) | st.integers(0, len(text)))
        end = draw(st.sampled_from([start, start + 1, max(text.find("\n", start), start)]))
        text = text[:start] + draw(pieces) + text[end:]
    return text


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """A text as it may follow `--set`: a known key or any other, with a value of YAML or of no sense."""
    key = draw(st.sampled_from([*SOUND_VALUES, "train", "nonsense", "a.b.c", "a" + ".a" * 2000]) | texts)
    value = draw(st.sampled_from(SURPRISING_YAML) | texts | any_value.map(inline_yaml))
    return key + draw(st.sampled_from(["=", "=", "=", "", " = "])) + value


def inline_yaml(value: Any) -> str:
    """A value as one writes it on a command line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n")
