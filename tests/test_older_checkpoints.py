"""Files of older PyTorchs and of other programs: what else they hold, and how they say it."""

import io
import pickle
import struct
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from utils import tensor_files
from utils.checkpoint import load_checkpoint, load_state, load_weights, save_checkpoint
from utils.errors import UserError


def small_net() -> nn.Sequential:
    """A network of two layers."""
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def write(path: Path, content: Any, zipped: bool) -> None:
    """Write a file as PyTorch writes it since 1.6 (`zipped`) or as before."""
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def legacy(pickled: bytes, storage: torch.Tensor) -> bytes:
    """A file of PyTorch's before 1.6 with this pickle and one storage, of the key 0."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, system)
    header = b"".join(pickle.dumps(part, 2) for part in parts)
    return header + pickled + pickle.dumps(["0"], 2) + struct.pack("<q", storage.numel()) + storage.numpy().tobytes()


WEIGHT = torch.arange(4.0)
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04NtQ"
VIEW = b"ctorch._utils\n_rebuild_tensor\n(" + STORAGE + b"K\x00(K\x02K\x02t(K\x02K\x01ttR"
"""A pickle of four floats as a tensor [2, 2]."""


# Weights


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_that_was_written_by_any_pytorch_is_read(tmp_path: Path, zipped: bool) -> None:
    path, state = tmp_path / "best_model.pth.tar", small_net().state_dict()
    write(path, {"mtl-net": state}, zipped)
    torch.testing.assert_close(load_checkpoint(path)["mtl-net"], dict(state), rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_of_parameters_is_read(tmp_path: Path, zipped: bool) -> None:
    path, state = tmp_path / "resnet18.pth", small_net().state_dict(keep_vars=True)
    write(path, state, zipped)
    expected = {name: values.detach() for name, values in state.items()}
    torch.testing.assert_close(dict(load_state(path)), expected, rtol=0, atol=0)


def test_a_state_of_parameters_before_0_4_1_is_read(tmp_path: Path) -> None:
    parameter = b"ctorch.nn.parameter\nParameter\n)\x81q\x01(" + VIEW + b"N}\x88\x89tb"
    pickled = b"\x80\x02ccollections\nOrderedDict\n)R(U\x06weight" + parameter + b"U\x04tiedh\x01u."
    path = tmp_path / "resnet18.pth"
    path.write_bytes(legacy(pickled, WEIGHT))
    state = load_state(path)
    # PyTorch reads such files itself.
    assert {name: values.tolist() for name, values in torch.load(path, weights_only=True).items()} == {
        name: values.tolist() for name, values in state.items()
    }
    assert list(state) == ["weight", "tied"]
    assert state["weight"].tolist() == [[0, 1], [2, 3]]
    assert state["weight"].data_ptr() == state["tied"].data_ptr()
    assert not state["weight"].requires_grad
    net = nn.Linear(2, 2, bias=False)
    load_weights(net, {"weight": state["weight"]}, path)
    assert net.weight.tolist() == [[0, 1], [2, 3]]


def test_a_state_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    path.write_bytes(legacy(b"\x80\x02ccollections\nOrderedDict\n](](U\x06weight" + VIEW + b"ee\x85R.", WEIGHT))
    state = load_state(path)
    assert type(state) is OrderedDict
    assert {name: values.tolist() for name, values in state.items()} == {"weight": [[0, 1], [2, 3]]}


# What stands beside them


@pytest.mark.parametrize("zipped", [True, False])
def test_an_optimiser_keyed_by_addresses_is_read(tmp_path: Path, zipped: bool) -> None:
    net, path = small_net(), tmp_path / "best_model.pth.tar"
    addresses = [140_000_000_000_000 + 64 * number for number, _ in enumerate(net.parameters())]
    state = {address: {"step": 5, "exp_avg": torch.ones(2)} for address in addresses}
    content = {"mtl-net": net.state_dict(), "optimizer": {"state": state, "param_groups": [{"params": addresses}]}}
    write(path, content, zipped)
    loaded = load_checkpoint(path)
    assert list(loaded["optimizer"]["state"]) == addresses == loaded["optimizer"]["param_groups"][0]["params"]
    assert loaded["optimizer"]["state"][addresses[1]]["exp_avg"].tolist() == [1, 1]
    save_checkpoint(path, loaded)
    assert list(load_checkpoint(path)["optimizer"]["state"]) == addresses


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_counters_and_sizes_come_back_as_plain_values(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "best_model.pth.tar"
    numbers = [np.float64(4.825), np.float32(-0.5), np.int64(-5), np.int32(7), np.bool_(True)]
    content = {"mtl-net": {}, "numbers": numbers, "milestones": Counter([1, 2, 2]), "size": torch.Size([3, 4])}
    write(path, content, zipped)
    loaded = load_checkpoint(path)
    assert loaded == {"mtl-net": {}, "numbers": [4.825, -0.5, -5, 7, True], "milestones": {1: 1, 2: 2}, "size": (3, 4)}
    assert [type(number) for number in loaded["numbers"]] == [float, float, int, int, bool]
    save_checkpoint(path, loaded)
    assert load_checkpoint(path) == loaded


@pytest.mark.parametrize("value", [torch.device("cpu"), np.zeros(1), np.float16(1), np.str_("a"), np.dtype(object)])
def test_what_is_not_read_is_named_with_a_way_out(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "best_model.pth.tar"
    write(path, {"mtl-net": {}, "more": value}, zipped=True)
    with pytest.raises(UserError, match=r"^checkpoint .*alone, as \{'mtl-net': its state dict\}\.$"):
        load_checkpoint(path)
    with pytest.raises(UserError, match=r"^weights .*alone, as a state dict\.$"):
        load_state(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_whose_sign_is_not_in_its_storage_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "best_model.pth.tar"
    write(path, {"mtl-net": {"weight": torch._neg_view(torch.ones(2))}}, zipped)
    with pytest.raises(UserError, match="whose sign is not in its storage"):
        load_checkpoint(path)


# How it is read


def test_a_read_of_all_that_is_left_has_a_bound_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    torch.save({"mtl-net": {}}, file)
    path = tmp_path / "best_model.pth.tar"
    path.write_bytes(file.getvalue() + b"more")
    assert load_checkpoint(path) == {"mtl-net": {}}
    monkeypatch.setattr(tensor_files, "MOST_AT_ONCE", 500)  # The reader of archives looks for the end of this one.
    with pytest.raises(UserError, match="its pickle or directory is too large"):
        load_checkpoint(path)
