"""YAML as configurations need it: plain values, lists and mappings, and nothing that can surprise."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError

MAX_BYTES = 1_000_000
MAX_DEPTH = 16

# YAML 1.1, which PyYAML speaks, takes 1e-3 and 1.5e3 for text: it wants a dot and a sign.
EXPONENT_NUMBER = re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file whose top is a mapping.

    Raises:
        UserError: for a path that is no readable file, a file over 1 MB, broken YAML (with its line),
            anchors, aliases, tags, duplicate keys, and a top that is not a mapping.
    """
    try:
        if not path.is_file():
            found = "something else" if path.exists() else "nothing"
            found = "a folder" if path.is_dir() else found
            raise UserError(f"{path}: expected a YAML file, found {found}; check the path")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: expected a configuration of at most 1 MB, found more; check the path")
        value = parse_yaml(content.decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, found other bytes at {error.start}; save it anew") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: expected valid YAML, found {yaml_problem(error)}; correct the file") from error
    if not isinstance(value, dict):
        found = "an empty file" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{path}: expected `key: value` lines at the top level, found {found}; check the path")
    return value


def parse_yaml(text: str) -> Any:
    """The value of one YAML document; raises `yaml.YAMLError` for what `read_yaml` refuses."""
    _refuse_what_no_configuration_needs(text)
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError as error:  # a number that Python refuses, of thousands of digits for instance
        raise yaml.YAMLError(str(error)) from error


def format_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads back to an equal value; lists stand on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong, on one line, with the line number where there is one."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"in line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _refuse_what_no_configuration_needs(text: str) -> None:
    """Look at the document's events, before any value is built that aliases or nesting make huge."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None) is not None:
            refused = "an anchor or alias (& or *), write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = f"the tag {event.tag}, write a plain value"
        elif depth > MAX_DEPTH:
            refused = f"more than {MAX_DEPTH} levels of nesting"
        else:
            continue
        raise yaml.MarkedYAMLError(problem=refused, problem_mark=event.start_mark)


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses keys which are not text or stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"the key {key!r}, {'a second time' if isinstance(key, str) else 'which is not text'}"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that knows the same plain values as the loader, so that text stays text."""


def _represent_list(dumper: _Dumper, values: list) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _represent_list)
for _class in (_Loader, _Dumper):
    # A copy of PyYAML's rules without dates: an `exp_name` of 2024-01-31 is text.
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT_NUMBER, list("-+.0123456789"))
