"""Files of gates: what is saved comes back, and anything else is gates or one error that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.properties.refusals import result_or_sentence
from utils.checkpoint import load_gates, save_gates

task_names = st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable() and name.strip())
any_gates = st.dictionaries(
    task_names, st.lists(st.sampled_from([0, 1]), min_size=1, max_size=40), min_size=1, max_size=5
)

# Python writes and reads NaN and infinities, which JSON does not have; a file may hold them all the same.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
any_json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
nearly_gates = st.dictionaries(
    task_names | st.text(max_size=1), st.lists(st.sampled_from([0, 1, 0, 1, -0.0, 1.0, True]) | any_json, max_size=4)
)
pieces_of_json = st.lists(
    st.sampled_from(
        [*'{}[]:,"\\0123456789eE+-. \n\ud800', '"seg"', "NaN", "-Infinity", "1e999", "[" * 2000, "9" * 5000]
    )
).map("".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("gates") / "gates.json"


def load(path: Path) -> dict[str, list[int]] | None:
    """Gates, which must be gates, or None for a `UserError`, which must name the file in one line."""
    gates = result_or_sentence(lambda: load_gates(path))
    if isinstance(gates, str):
        assert str(path) in gates
        assert "\n" not in gates
        return None
    for task, row in gates.items():
        assert isinstance(task, str)
        assert all(type(gate) is int and gate in (0, 1) for gate in row)
    return gates


@given(gates=any_gates)
@settings(max_examples=60)
def test_gates_come_back_as_they_were_saved_in_their_order(path: Path, gates: dict[str, list[int]]) -> None:
    save_gates(path, gates)
    assert list(load_gates(path).items()) == list(gates.items())
    assert path.read_text().count("\n") == len(gates) + 2  # one line for each, between braces


def is_gate(value: Any) -> bool:
    return type(value) is int and value in (0, 1)


@given(value=any_json | nearly_gates)
@settings(max_examples=200)
@example(value={})
@example(value={"seg": []})
@example(value={"seg": [0, True]})
@example(value={"seg": [0, 1.0]})
@example(value={"seg": [0, float("nan")]})
@example(value={"": [0, 1]})
@example(value={"seg": ["0"]})
@example(value={"seg": [""]})
@example(value={"seg": ["01"]})
@example(value={"seg": [0, 1]})
def test_any_value_but_named_rows_of_0_and_1_is_an_error(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
    is_gates = isinstance(value, dict) and all(
        task.isprintable() and task.strip() and isinstance(row, list) and row and all(map(is_gate, row))
        for task, row in value.items()
    )
    assert load(path) == (value if is_gates and value else None)


@given(content=st.binary() | st.text().map(str.encode) | pieces_of_json.map(lambda text: text.encode(errors="replace")))
@settings(max_examples=200)
@example(content=b'{"seg": ' + b"[" * 100_000)
@example(content=b'{"seg": [' + b"9" * 5000 + b"]}")
@example(content=b'{"\\ud800": [1]}')
def test_any_content_is_gates_or_an_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    load(path)


@given(gates=any_gates, data=st.data())
@settings(max_examples=60)
def test_gates_that_were_cut_or_changed_are_an_error_or_gates(
    path: Path, gates: dict[str, list[int]], data: st.DataObject
) -> None:
    save_gates(path, gates)
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=3)) + content[start + 1 :])
    load(path)
    path.write_bytes(content[: data.draw(st.integers(0, len(content.rstrip()) - 1))])
    assert load(path) is None
