"""Checkpoints, gates and the release's pickles: what was written comes back, and no code in a file is run."""

import io
import os
import pickle
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from utils.checkpoint import (
    load_checkpoint,
    load_gates,
    load_tensor_pickle,
    load_weights,
    save_checkpoint,
    save_gates,
)
from utils.errors import UserError

PROTOCOLS = (0, 2, 4)


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def trained(net: nn.Module) -> torch.optim.Adam:
    """The optimiser of a network after one step."""
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    return optimiser


def torch_saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def refusal(load: Callable[[Path], Any], path: Path, content: bytes) -> str:
    """The sentence by which a reader refuses a file of this content."""
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load(path)
    assert str(path) in str(error.value)
    return str(error.value)


# Checkpoints


def test_weights_training_state_and_plain_values_come_back(tmp_path: Path) -> None:
    net = small_net()
    optimiser = trained(net)
    plain = {"iter": 7, "temp": 4.825, "best": None, "phase": {"name": "policy", "done": True, "rates": [0.1]}}
    path = tmp_path / "run" / "latest_model.pth.tar"
    states = {"mtl-net": net.state_dict(), "optimisers": {"weights": optimiser.state_dict()}}
    save_checkpoint(path, {**states, **plain})

    loaded = load_checkpoint(path)
    assert {key: loaded[key] for key in plain} == plain
    other = small_net()
    load_weights(other, loaded["mtl-net"], path)
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)
    other_optimiser = torch.optim.Adam(other.parameters())
    other_optimiser.load_state_dict(loaded["optimisers"]["weights"])
    assert other_optimiser.param_groups[0]["lr"] == 0.1
    steps = optimiser.state_dict()["state"]
    torch.testing.assert_close(other_optimiser.state_dict()["state"], steps, rtol=0, atol=0)
    assert os.listdir(path.parent) == [path.name]


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pth.tar"
    save_checkpoint(path, {"mtl-net": {}, "iter": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, {"mtl-net": {}, "iter": 2, "code": lambda: None})
    assert load_checkpoint(path)["iter"] == 1
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_of_an_older_pytorch_is_read(tmp_path: Path) -> None:
    state = small_net().state_dict()
    path = tmp_path / "best_model.pth.tar"
    path.write_bytes(torch_saved({"mtl-net": state}, _use_new_zipfile_serialization=False))
    torch.testing.assert_close(load_checkpoint(path)["mtl-net"], dict(state), rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    content = {"mtl-net": {"weight": torch.eye(2)}, "iter": 3}
    whole = torch_saved(content, _use_new_zipfile_serialization=zipped)
    for length in range(0, len(whole), 11):
        assert "cannot be read" in refusal(load_checkpoint, tmp_path / "cut.pth.tar", whole[:length])


def test_a_checkpoint_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth.tar", tmp_path):
        with pytest.raises(UserError, match=r"does not exist") as error:
            load_checkpoint(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content", [{"iter": 3}, {"mtl-net": [torch.eye(2)]}, {"mtl-net": {1: torch.eye(2)}}, [1], torch.eye(2)]
)
def test_a_file_without_a_network_is_refused(tmp_path: Path, content: Any) -> None:
    assert "'mtl-net'" in refusal(load_checkpoint, tmp_path / "other.pth.tar", torch_saved(content))


def test_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    net = small_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {key: value + 1 for key, value in before.items() if key != "1.bias"}
    state["2.weight"] = torch.zeros(5, 4, 1, 1)
    state["0.bias"] = 3.0
    state["old.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        load_weights(net, state, Path("some.pth.tar"))
    message = str(error.value)
    assert "some.pth.tar" in message
    assert "1 missing: 1.bias" in message
    assert "1 unknown: old.weight" in message
    assert "0.bias float instead of [4]" in message
    assert "2.weight [5, 4, 1, 1] instead of [2, 4, 1, 1]" in message
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_of_many_keys_that_do_not_fit_five_are_named() -> None:
    with pytest.raises(UserError, match=r"9 missing: (\S+, ){4}\S+, \.\.\.\)"):
        load_weights(small_net(), {}, Path("empty.pth.tar"))


# Gates


def test_gates_come_back_and_read_well(tmp_path: Path) -> None:
    gates = {"seg": [1, 0, 1], "sn": [0, 0, 1]}
    path = tmp_path / "policyIterbest_rs0088.json"
    save_gates(path, gates)
    assert load_gates(path) == gates
    assert '"seg": [1, 0, 1]' in path.read_text()


@pytest.mark.parametrize(
    "text",
    ["", "{", "\xff", "[" * 100_000, "[[1, 0]]", '{"seg": 1}', '{"seg": [1, 2]}', '{"seg": ["1"]}', '{"seg": [[1]]}'],
)
def test_gates_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    assert "gates" in refusal(load_gates, tmp_path / "gates.json", text.encode("latin-1"))


def test_gates_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json"):
        load_gates(tmp_path / "none.json")


# The release's pickles


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_pickled_policies_come_back(tmp_path: Path, protocol: int, dtype: torch.dtype) -> None:
    one_hot = torch.eye(2)[[0, 1, 1, 0]].to(dtype)
    policies: dict[str, Tensor] = {"task1_policy": one_hot, "task2_policy": one_hot.flip(0)[1:]}
    if dtype.is_floating_point:
        policies["task3_policy"] = nn.Parameter(one_hot)
    path = tmp_path / "policyIterbest_rs0088.pickle"
    path.write_bytes(pickle.dumps(policies, protocol=protocol))
    loaded = load_tensor_pickle(path)
    assert list(loaded) == list(policies)
    for name, policy in policies.items():
        torch.testing.assert_close(loaded[name].detach(), policy.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_off_anywhere_is_refused(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps({"task1_policy": torch.eye(2)}, protocol=protocol)
    for length in range(0, len(whole), 11):
        assert "cannot be read" in refusal(load_tensor_pickle, tmp_path / "cut.pickle", whole[:length])


def test_a_pickle_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pickle"):
        load_tensor_pickle(tmp_path / "none.pickle")


@pytest.mark.parametrize(
    "content",
    [
        [torch.eye(2)],
        torch.eye(2),
        {"task1_policy": [1, 0]},
        {"task1_policy": torch.eye(2), "seed": 88},
        {1: torch.eye(2)},
    ],
)
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    sentence = refusal(load_tensor_pickle, tmp_path / "other.pickle", pickle.dumps(content))
    assert "dict of tensors" in sentence


def test_a_pickle_of_arrays_is_refused_and_says_what_it_holds(tmp_path: Path) -> None:
    content = pickle.dumps({"task1_policy": np.eye(2)})
    assert "it refers to numpy" in refusal(load_tensor_pickle, tmp_path / "array.pickle", content)


def test_a_file_of_torch_save_is_no_pickle_of_policies(tmp_path: Path) -> None:
    content = torch_saved({"task1_policy": torch.eye(2)})
    assert "cannot be read" in refusal(load_tensor_pickle, tmp_path / "zip.pickle", content)


# Hostile files


class Call:
    """Pickled as the call of a function, which an ordinary unpickler makes."""

    def __init__(self, function: Callable, argument: object) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[Callable, tuple[object]]:
        return self.function, (self.argument,)


def shell_call(sentinel: Path) -> Call:
    return Call(os.system, f"touch {shlex.quote(str(sentinel))}")


def python_call(sentinel: Path) -> Call:
    return Call(eval, f"open({str(sentinel)!r}, 'w').close()")


def call_in_nested_pickle(sentinel: Path) -> Call:
    return Call(torch.storage._load_from_bytes, pickle.dumps(shell_call(sentinel)))


def call_in_nested_torch_save(sentinel: Path) -> Call:
    return Call(torch.storage._load_from_bytes, torch_saved(shell_call(sentinel)))


def call_in_object_array(sentinel: Path) -> np.ndarray:
    return np.array([shell_call(sentinel)], dtype=object)


HOSTILE = [shell_call, python_call, call_in_nested_pickle, call_in_nested_torch_save, call_in_object_array]


def test_the_hostile_files_are_hostile(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    for hostile in HOSTILE:
        content = {"task1_policy": torch.eye(2), "more": hostile(sentinel)}
        with suppress(pickle.UnpicklingError, RuntimeError, AttributeError):
            pickle.loads(pickle.dumps(content))
        assert sentinel.exists(), hostile
        sentinel.unlink()
        with suppress(pickle.UnpicklingError, RuntimeError, AttributeError):
            torch.load(io.BytesIO(torch_saved(content)), weights_only=False)
        assert sentinel.exists(), hostile
        sentinel.unlink()


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_pickle_is_run(
    tmp_path: Path, hostile: Callable, protocol: int, recwarn: pytest.WarningsRecorder
) -> None:
    sentinel = tmp_path / "sentinel"
    content = pickle.dumps({"task1_policy": torch.eye(2), "more": hostile(sentinel)}, protocol=protocol)
    sentence = refusal(load_tensor_pickle, tmp_path / "hostile.pickle", content)
    assert "tensors and nothing else" in sentence
    assert not sentinel.exists()
    assert not recwarn.list


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_checkpoint_is_run(
    tmp_path: Path, hostile: Callable, protocol: int, zipped: bool, recwarn: pytest.WarningsRecorder
) -> None:
    sentinel = tmp_path / "sentinel"
    content = {"mtl-net": {"weight": torch.eye(2)}, "more": hostile(sentinel)}
    file = torch_saved(content, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    sentence = refusal(load_checkpoint, tmp_path / "hostile.pth.tar", file)
    assert "without code" in sentence
    assert "weights_only" not in sentence
    assert not sentinel.exists()
    assert not recwarn.list


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_a_pickle_called_checkpoint_is_run(tmp_path: Path, hostile: Callable) -> None:
    sentinel = tmp_path / "sentinel"
    content = pickle.dumps({"mtl-net": {}, "more": hostile(sentinel)})
    assert "cannot be read" in refusal(load_checkpoint, tmp_path / "hostile.pth.tar", content)
    assert not sentinel.exists()
