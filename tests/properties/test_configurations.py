"""Configurations: whatever a file or `--set` says, there is a configuration, or one error that names the fault."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.configurations import (
    REQUIRED,
    SHIPPED,
    SOUND_VALUES,
    Tree,
    any_tree,
    any_value,
    mutated_trees,
    nearly_sound_trees,
    nearly_yaml_texts,
    overrides,
    shipped_trees,
    with_value,
    without,
)
from tests.properties.refusals import result_or_sentence
from utils.config import TestingConfig, TrainingConfig, load_config, write_config
from utils.errors import UserError
from utils.problems import show

schemas = st.sampled_from([TrainingConfig, TestingConfig])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that every example overwrites."""
    return tmp_path_factory.mktemp("configurations") / "config.yml"


def load(path: Path, content: str | Tree, given_overrides: list[str], schema: type[TestingConfig]) -> Any:
    """What loading gives: a configuration, or the lines of the `UserError`; any other exception passes through."""
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = result_or_sentence(lambda: load_config(path, given_overrides, schema))
    return problems_in(found, path) if isinstance(found, str) else found


def problems_in(message: str, path: Path) -> list[str]:
    """The lines of an error, which must name the file, count its lines, and be fit for a terminal."""
    header, *lines = message.split("\n  ")
    assert header.startswith(f"{path}: ")
    if not lines:
        assert header.isprintable()
        return [header]
    noun = "problem" if len(lines) == 1 else "problems"
    assert header == f"{path}: {len(lines)} {noun} in the configuration"
    for line in lines:
        key, colon, _ = line.partition(": expected ")
        assert key
        assert colon
        assert line.isprintable()
        assert len(line) < 600
    return lines


def assert_survives_writing(config: TestingConfig, path: Path) -> None:
    write_config(config, path)
    assert load_config(path, schema=type(config)) == config


# Whatever a file says


@given(content=st.text() | nearly_yaml_texts(), schema=schemas)
@settings(max_examples=150)
def test_any_text_is_a_configuration_or_an_error_that_names_the_file(path: Path, content: str, schema: type) -> None:
    load(path, content, [], schema)


@given(content=st.binary())
def test_any_bytes_are_a_configuration_or_an_error_that_names_the_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    problems_in(str(caught.value), path)


@given(tree=any_tree | mutated_trees(), schema=schemas)
@settings(max_examples=150)
def test_any_values_are_a_configuration_or_an_error_with_a_line_per_problem(
    path: Path, tree: Tree, schema: type
) -> None:
    config = load(path, tree, [], schema)
    if isinstance(config, schema):
        assert_survives_writing(config, path)


@given(tree=shipped_trees, texts_of_set=st.lists(overrides(), min_size=1, max_size=3))
@settings(max_examples=150)
def test_any_set_is_followed_or_is_an_error(path: Path, tree: Tree, texts_of_set: list[str]) -> None:
    config = load(path, tree, texts_of_set, TrainingConfig)
    if isinstance(config, TrainingConfig):
        assert_survives_writing(config, path)


# What is sound is taken as it is


@given(tree=nearly_sound_trees(), schema=schemas)
@settings(max_examples=70)
def test_sound_values_arrive_and_survive_writing(path: Path, tree: Tree, schema: type) -> None:
    config = load(path, tree, [], schema)
    if not isinstance(config, schema):
        # Each key is right by itself, so every complaint is about several keys.
        assert all("," in line.partition(":")[0] for line in config)
        return
    resolved = config.model_dump(mode="json")
    for key, value in tree.items():
        found = resolved[key]
        assert {name: found[name] for name in value} == value if isinstance(value, dict) else found == value
    assert_survives_writing(config, path)


@given(key=st.sampled_from(list(SOUND_VALUES)), data=st.data())
@settings(max_examples=80)
def test_set_does_what_the_file_would_do(path: Path, key: str, data: st.DataObject) -> None:
    value = data.draw(SOUND_VALUES[key])
    tree = SHIPPED["nyu_v2_2task"]
    in_the_file = load(path, with_value(tree, key, value), [], TrainingConfig)
    assert load(path, tree, [f"{key}={yaml_of(value)}"], TrainingConfig) == in_the_file


def yaml_of(value: Any) -> str:
    return yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]


@given(count=st.integers(1, 130))
@settings(max_examples=15)
def test_lists_are_taken_up_to_a_length_that_can_be_written_and_read_again(path: Path, count: int) -> None:
    tree = SHIPPED["domainnet"] | {
        "tasks": [f"domain{number}" for number in range(count)],
        "tasks_num_class": [2] * count,
        "lambdas": [0.1] * count,
        "seed": list(range(count)),
    }
    config = load(path, tree, [], TrainingConfig)
    if count <= 100:
        assert_survives_writing(config, path)
    else:
        assert len(config) == 4
        assert all("a list of at most 100 entries" in line for line in config)


# All problems at once

WRONG_FOR_EVERY_KEY = st.dictionaries(st.sampled_from("abc"), st.integers(), min_size=1)


@given(data=st.data())
@settings(max_examples=60)
def test_every_wrong_missing_and_unknown_key_has_a_line_of_its_own(path: Path, data: st.DataObject) -> None:
    tree = SHIPPED["nyu_v2_3task"]
    keys = data.draw(st.lists(st.sampled_from(list(SOUND_VALUES)), unique=True, max_size=6))
    for key in keys:
        tree = with_value(tree, key, data.draw(WRONG_FOR_EVERY_KEY))
    missing = data.draw(
        st.lists(st.sampled_from([key for key in REQUIRED if key not in keys]), unique=True, max_size=4)
    )
    for key in missing:
        tree = without(tree, key)
    sections = st.sampled_from(["", "train.", "paths.", "dataload."])
    unknown = data.draw(st.lists(st.tuples(sections, st.text("xyz", min_size=1, max_size=4)), unique=True, max_size=4))
    for section, name in unknown:
        tree = with_value(tree, section + name, 1)
    expected = sorted([*keys, *missing, *(section + name for section, name in unknown)])
    if not expected:
        assert isinstance(load(path, tree, [], TrainingConfig), TrainingConfig)
        return
    lines = [line for line in load(path, tree, [], TrainingConfig) if "," not in line.partition(":")[0]]
    assert sorted(line.partition(":")[0] for line in lines) == expected


@given(value=any_value | st.integers(5000, 9000).map(lambda digits: 10**digits))
def test_whatever_is_found_is_shown_on_one_short_line(value: Any) -> None:
    shown = show(value)
    assert shown.isprintable()
    assert len(shown) <= 60 * len("\\U0010ffff")
