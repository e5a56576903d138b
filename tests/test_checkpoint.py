"""Checkpoints, gates and the release's pickles: what was written comes back, and what does not fit is named."""

import io
import os
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from utils import checkpoint, tensor_files
from utils.checkpoint import (
    load_checkpoint,
    load_gates,
    load_latest,
    load_optimiser_state,
    load_state,
    load_tensor_pickle,
    load_weights,
    save_checkpoint,
    save_gates,
    save_latest,
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


def test_tensors_come_back_in_every_type_and_form(tmp_path: Path) -> None:
    grid = torch.arange(12).view(3, 4)
    forms = {
        "transposed": grid.t(),
        "strided": grid[:, ::2],
        "offset": grid[1],
        "empty": grid[:0],
        "scalar": grid[1, 2],
    }
    dtypes = ("bfloat16", "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
    types = {name: torch.tensor([0, 1, 1]).to(getattr(torch, name)) for name in dtypes}
    path = tmp_path / "forms.pth.tar"
    for zipped in (True, False):
        path.write_bytes(torch_saved({"mtl-net": {**forms, **types}}, _use_new_zipfile_serialization=zipped))
        loaded = load_checkpoint(path)["mtl-net"]
        torch.testing.assert_close(loaded, {**forms, **types}, rtol=0, atol=0, check_stride=True)
    save_checkpoint(path, {"mtl-net": {**forms, **types}})
    torch.testing.assert_close(load_checkpoint(path)["mtl-net"], {**forms, **types}, rtol=0, atol=0, check_stride=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_storage_that_is_read_in_pieces_comes_back(tmp_path: Path, zipped: bool) -> None:
    weight = torch.arange(tensor_files.MOST_AT_ONCE // 4 + 3, dtype=torch.int32)
    path = tmp_path / "large.pth.tar"
    path.write_bytes(torch_saved({"mtl-net": {"weight": weight}}, _use_new_zipfile_serialization=zipped))
    assert torch.equal(load_checkpoint(path)["mtl-net"]["weight"], weight)


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    weight = torch.zeros(4)
    for zipped in (True, False):
        path = tmp_path / "tied.pth.tar"
        path.write_bytes(
            torch_saved({"mtl-net": {"a": weight, "b": weight[1:]}}, _use_new_zipfile_serialization=zipped)
        )
        loaded = load_checkpoint(path)["mtl-net"]
        loaded["a"][1] = 7
        assert loaded["b"][0] == 7


def test_other_programs_read_our_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pth.tar"
    save_checkpoint(path, {"mtl-net": {"weight": torch.eye(2)}, "iter": 1})
    loaded = torch.load(path, weights_only=True)
    assert (loaded["iter"], loaded["version"]) == (1, 1)
    assert torch.equal(loaded["mtl-net"]["weight"], torch.eye(2))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_the_version_is_not_part_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pth.tar"
    save_checkpoint(path, {"mtl-net": {}, "iter": 1})
    assert load_checkpoint(path) == {"mtl-net": {}, "iter": 1}


def test_a_checkpoint_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best_model.pth.tar"
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "VERSION", 2)
        save_checkpoint(path, {"mtl-net": {}})
    with pytest.raises(UserError, match=r"it is of version 2, and 1 is known here"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "value",
    [
        len,
        np.float64(1),
        np.zeros(1),
        Counter("a"),
        {1.5: 0},
        {2**48: 0},
        {-(2**48): 0},
        {(1, 2): 0},
        {1, 2},
        b"",
        2**63,
        torch.zeros(1).expand(2),
        torch._neg_view(torch.ones(1)),
        torch.eye(2).to_sparse(),
        torch.zeros(1, dtype=torch.complex64),
        nn.Linear(1, 1),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "best_model.pth.tar"
    save_checkpoint(path, {"mtl-net": {}, "iter": 1})
    for save in (save_checkpoint, lambda path, content: save_latest(path, tmp_path / "previous.pth.tar", content)):
        with pytest.raises((TypeError, ValueError), match="it holds"):
            save(path, {"mtl-net": {}, "iter": 2, "more": [value]})
        assert load_checkpoint(path)["iter"] == 1
        assert os.listdir(tmp_path) == [path.name]


def test_the_checkpoint_before_the_latest_is_kept(tmp_path: Path) -> None:
    path, previous = tmp_path / "latest_model.pth.tar", tmp_path / "previous_model.pth.tar"
    for iteration in (1, 2, 3):
        save_latest(path, previous, {"mtl-net": {}, "iter": iteration})
        assert load_latest(path, previous) == ({"mtl-net": {}, "iter": iteration}, None)
        assert previous.exists() == (iteration > 1)
    assert load_checkpoint(previous)["iter"] == 2
    assert sorted(os.listdir(tmp_path)) == [path.name, previous.name]


def test_a_latest_that_nobody_wrote_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"latest\.pth\.tar does not exist: run the phase that writes it") as error:
        load_latest(tmp_path / "latest.pth.tar", tmp_path / "previous.pth.tar")
    assert "previous" not in str(error.value)


@pytest.mark.parametrize("content", [[torch.eye(2)], {"weight": 1}, {1: torch.eye(2)}, {"mtl-net": {}}])
def test_anything_but_a_state_is_refused(tmp_path: Path, content: Any) -> None:
    sentence = refusal(load_state, tmp_path / "other.pth", torch_saved(content))
    assert sentence.startswith("weights ")
    assert "state dict" in sentence


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    content = {"mtl-net": {"weight": torch.eye(2)}, "iter": 3}
    whole = torch_saved(content, _use_new_zipfile_serialization=zipped)
    for length in range(0, len(whole), 11):
        assert "cannot be read" in refusal(load_checkpoint, tmp_path / "cut.pth.tar", whole[:length])


@pytest.mark.parametrize("load", [load_checkpoint, load_state])
def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    for path, fault in ((tmp_path / "none.pth.tar", "not exist"), (tmp_path, "no regular file")):
        with pytest.raises(UserError, match=fault) as error:
            load(path)
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


def test_keys_are_shown_on_one_line() -> None:
    with pytest.raises(UserError, match=r"unknown: \?\[2J\?error: x{188}\.\.\.\)") as error:
        load_weights(nn.Identity(), {"\x1b[2J\nerror: " + "x" * 10**6: torch.zeros(1)}, "some.pth.tar")
    assert len(str(error.value)) < 500


# Optimisers


def adam(net: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": net[0].parameters(), "lr": 0.05}, {"params": [*net[1].parameters(), *net[2].parameters()]}]
    return torch.optim.Adam(groups, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-4)


def sgd_with_momentum(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def sgd_without_momentum(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1)


MakeOptimiser = Callable[[nn.Module], torch.optim.Optimizer]


def take_steps(net: nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimiser.zero_grad()
        net(torch.linspace(-1, step, 150).view(2, 3, 5, 5)).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("make", [adam, sgd_with_momentum, sgd_without_momentum])
def test_training_goes_on_from_a_kept_optimiser_bit_for_bit(tmp_path: Path, make: MakeOptimiser) -> None:
    net = small_net()
    optimiser = make(net)
    take_steps(net, optimiser, range(3))
    path = tmp_path / "latest_model.pth.tar"
    save_checkpoint(path, {"mtl-net": net.state_dict(), "optimiser": optimiser.state_dict()})
    take_steps(net, optimiser, range(3, 6))

    kept, resumed = load_checkpoint(path), small_net()
    load_weights(resumed, kept["mtl-net"], path)
    resumed_optimiser = make(resumed)
    load_optimiser_state(resumed_optimiser, kept["optimiser"], path)
    take_steps(resumed, resumed_optimiser, range(3, 6))
    torch.testing.assert_close(resumed.state_dict(), net.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(resumed_optimiser.state_dict(), optimiser.state_dict(), rtol=0, atol=0)


def test_rates_are_those_configured_now() -> None:
    kept = trained(small_net()).state_dict()
    optimiser = torch.optim.Adam(small_net().parameters(), lr=0.025)
    load_optimiser_state(optimiser, kept, "some.pth.tar")
    assert optimiser.param_groups[0]["lr"] == 0.025
    assert torch.equal(optimiser.state_dict()["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])


def test_parameters_without_gradient_have_no_state() -> None:
    kept = trained(small_net()).state_dict()
    del kept["state"][1]
    optimiser = torch.optim.Adam(small_net().parameters())
    load_optimiser_state(optimiser, kept, "some.pth.tar")
    assert sorted(optimiser.state_dict()["state"]) == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.update({6: state[0]}), "parameter 6 of 6"),
        (lambda state: state.update({-1: state[0]}), "parameter -1 of 6"),
        (lambda state: state.update(weight=state[0]), "parameter weight of 6"),
        (lambda state: state.update({1: [1]}), "parameter 1 has list instead of"),
        (lambda state: state[1].pop("exp_avg"), r"parameter 1 has \['step', 'exp_avg_sq'\] instead of"),
        (lambda state: state[1].update(code=1), "parameter 1 has .*'code'.* instead of"),
        (lambda state: state.update({1: state[0]}), r"exp_avg of parameter 1 \[4, 3, 3, 3\] instead of \[4\]"),
        (lambda state: state[1].update(exp_avg=0.5), r"exp_avg of parameter 1 float instead of \[4\]"),
        (lambda state: state[1].update(exp_avg=torch.tensor(1)), r"exp_avg of parameter 1 \[\] instead of \[4\]"),
        (lambda state: state[1].update(step=torch.zeros(4)), r"step of parameter 1 \[4\] instead of \[\]"),
        (lambda state: state[1].update(step="1"), r"step of parameter 1 str instead of \[\]"),
    ],
)
def test_a_state_that_does_not_fit_the_optimiser_is_named(change: Callable[[dict], Any], fault: str) -> None:
    kept = trained(small_net()).state_dict()
    change(kept["state"])
    optimiser = torch.optim.Adam(small_net().parameters())
    with pytest.raises(UserError, match=rf"some\.pth\.tar does not fit the optimiser .*{fault}"):
        load_optimiser_state(optimiser, kept, "some.pth.tar")
    assert not optimiser.state


@pytest.mark.parametrize("kept", [None, [], {}, {"state": None}, {"state": []}])
def test_anything_but_an_optimiser_state_is_refused(kept: Any) -> None:
    with pytest.raises(UserError, match="it is no optimiser's state"):
        load_optimiser_state(torch.optim.Adam(small_net().parameters()), kept, "some.pth.tar")


def test_the_state_of_another_optimiser_is_refused() -> None:
    kept = trained(small_net()).state_dict()
    with pytest.raises(UserError, match=r"has .*'exp_avg'.* instead of \['momentum_buffer'\]"):
        load_optimiser_state(sgd_with_momentum(small_net()), kept, "some.pth.tar")


# Gates


def test_gates_come_back_and_read_well(tmp_path: Path) -> None:
    gates = {"seg": [1, 0, 1], "sn": [0, 0, 1]}
    path = tmp_path / "policyIterbest_rs0088.json"
    save_gates(path, gates)
    assert load_gates(path) == gates
    assert '"seg": [1, 0, 1]' in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "\xff", "[" * 100_000, "{}", "null", "[[1, 0]]", "[]"),
        *('{"seg": 1}', '{"seg": []}', '{"seg": {}}', '{"seg": null}', '{"seg": "10"}', '{"": [1]}', '{" ": [1]}'),
        *(f'{{"sn": [1], "seg": [{gate}]}}' for gate in ('"1"', "[1]", "2", "-1", "1.0", "0.5", "true", "null", "NaN")),
        '{"seg\\n": [1]}',
        '{"seg": [' + "1, " * 400_000 + "1]}",
    ],
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
