"""YAML as configurations need it: plain values, lists and mappings, and nothing that can surprise."""

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError
from utils.files import read_bounded
from utils.problems import shorten

# A configuration has a hundred keys in 3 KB. Within these bounds no document takes a second, however it is made.
MAX_BYTES = 64_000
MAX_DEPTH = 16
MAX_VALUES = 1000
MAX_KEY_LENGTH = 100
MAX_NUMBER_LENGTH = 100  # so that every number can be written out again, and turned into a float

# Escapes can write what a file's text may not hold: half a character, or a line break in the middle of a path.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
PLAIN = {INTEGER, FLOAT, "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"}
"""What a value without quotes may be, other than text."""

# YAML 1.1, which PyYAML speaks, takes 1e-3 and 1.5e3 for text: it wants a dot and a sign.
EXPONENT_NUMBER = re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file whose top is a mapping.

    Raises:
        UserError: for a path that is no readable file, a file over 64 KB, broken YAML (with its line), what
            `parse_yaml` refuses, and a top that is not a mapping.
    """
    try:
        if not path.is_file():
            found = "something else" if path.exists() else "nothing"
            found = "a folder" if path.is_dir() else found
            raise UserError(f"{path}: expected a YAML file, found {found}; check the path")
        if path.stat().st_size > MAX_BYTES:
            most = f"{MAX_BYTES // 1000} KB"
            raise UserError(f"{path}: expected a configuration of at most {most}, found more; check the path")
        value = parse_yaml(read_bounded(path, MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, found other bytes at {error.start}; save it anew") from error
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: expected valid YAML, found {yaml_problem(error)}; correct the file") from error
    if not isinstance(value, dict):
        found = "an empty file" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{path}: expected `key: value` lines at the top level, found {found}; check the path")
    return value


def parse_yaml(text: str) -> Any:
    """The value of one YAML document.

    Raises `yaml.YAMLError` for broken YAML, anchors, aliases, tags, keys that stand twice or are not text, and more
    values, nesting or digits than any configuration has.
    """
    try:
        _refuse_what_no_configuration_needs(text)
        return yaml.load(text, Loader=_Loader)
    # What PyYAML leaves to Python: the number 0b_, or a character "\\UFFFFFFFF".
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from error


def format_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads back to an equal value, if it could come from there; lists on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong, on one line, with the line number where there is one."""
    problem, place = str(error), ""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem, place = str(error.problem), f"in line {error.problem_mark.line + 1}: "
    return place + textwrap.shorten(problem, width=150, placeholder=" ...")


def _refuse_what_no_configuration_needs(text: str) -> None:
    """Look at the document's events, before any value is built that aliases or nesting make huge."""
    depth = num_values = 0
    for event in yaml.parse(text, Loader=_Loader):
        num_values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None) is not None:
            refused = "an anchor or alias (& or *), write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = f"the tag {shorten(event.tag)}, write a plain value"
        elif isinstance(event, yaml.ScalarEvent) and UNPRINTABLE.search(event.value):
            refused = "text with a line break or a character that cannot be printed, write it without"
        elif depth > MAX_DEPTH:
            refused = f"more than {MAX_DEPTH} levels of nesting"
        elif num_values > MAX_VALUES:
            refused = f"more than {MAX_VALUES} keys and values"
        else:
            continue
        raise yaml.MarkedYAMLError(problem=refused, problem_mark=event.start_mark)


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses keys which are not text, stand twice or are endless, and endless numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(f"the key {shorten(repr(key))}, which is not text", key_node)
            if len(key) > MAX_KEY_LENGTH:
                raise _refusal(f"a key of {len(key)} characters, write one of at most {MAX_KEY_LENGTH}", key_node)
            if key in seen:
                raise _refusal(f"the key {shorten(repr(key))}, a second time", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > MAX_NUMBER_LENGTH:
            raise _refusal(f"a number of {len(node.value)} characters, write a shorter one", node)
        return self.construct_yaml_int(node) if node.tag == INTEGER else self.construct_yaml_float(node)


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that knows the same plain values as the loader, so that text stays text."""


def _represent_list(dumper: _Dumper, values: list) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _represent_list)
for _tag in (INTEGER, FLOAT):
    _Loader.add_constructor(_tag, _Loader.construct_number)
for _class in (_Loader, _Dumper):
    # A copy of PyYAML's rules without dates, merges (<<) and = : an `exp_name` of 2024-01-31 is text.
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag in PLAIN]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver(FLOAT, EXPONENT_NUMBER, list("-+.0123456789"))
