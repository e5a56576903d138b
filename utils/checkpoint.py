"""Checkpoints and gates on disk: whole or absent when written, free of code when read."""

import io
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import read_json, replacing, write_json


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; the file is whole or absent."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is missing or damaged, holds more than tensors and plain values, or has no
            `mtl-net`.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist: run the phase that writes it, or correct paths.")
    content = _load_file(path)
    if not isinstance(content, dict) or not _has_names(content.get("mtl-net")):
        raise UserError(f"checkpoint {path} has no entry 'mtl-net' with a network's weights; choose another.")
    return content


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a bare state dict, such as torchvision's, onto the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is missing or damaged, or holds anything but a dict of tensors.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist: correct the path.")
    content = _load_file(path)
    if not _has_names(content) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"weights {path} must be a state dict, names and tensors alone; choose another file.")
    return content


def _load_file(path: Path) -> Any:
    try:
        return _load_without_code(path)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise UserError(
            f"checkpoint {path} cannot be read: expected a PyTorch file of tensors and plain values, "
            f"undamaged and without code ({_reason(error)})."
        ) from error


def _load_without_code(file: Path | io.BytesIO) -> Any:
    """Tensors and plain values, onto the CPU; anything else in the file is refused before it could run."""
    with warnings.catch_warnings():
        # Either the file loads all the same, or an error says what is wrong.
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _has_names(value: Any) -> bool:
    """Whether a value is a dict, all of whose keys are text."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _reason(error: Exception) -> str:
    """Why a file was refused, in a few words; PyTorch's page of text advises to switch safety off."""
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it refers to {refused[1]}"
    if "Weights only load failed" in text:
        return "it is damaged or holds more than tensors"
    return text.splitlines()[0] if text else type(error).__name__


def load_weights(module: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        UserError: keys that are missing, left over or of another shape; names up to five of each.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())
    other_shape = [
        f"{key} {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own.keys() & state.keys()
        if _shape(state[key]) != _shape(own[key])
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": sorted(other_shape)}
    named = "; ".join(f"{len(keys)} {fault}: {_first_five(keys)}" for fault, keys in faults.items() if keys)
    if named:
        raise UserError(
            f"checkpoint {source} does not fit the configured network ({named}); "
            "set backbone, tasks, tasks_num_class and widths as they were when it was written."
        )
    module.load_state_dict(state)


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first_five(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")


def save_gates(path: Path, gates: dict[str, list[int]]) -> None:
    """Write hard gates, {task: [1 = execute, 0 = skip, one per block]}, as JSON."""
    write_json(path, gates)


def load_gates(path: Path) -> dict[str, list[int]]:
    """Read hard gates written by `save_gates`.

    Raises:
        UserError: the file is no JSON object of rows of 0 and 1.
    """
    gates = read_json(path)
    rows = gates.values() if isinstance(gates, dict) else [None]
    if not all(isinstance(row, list) and all(gate in (0, 1) for gate in row) for row in rows):
        raise UserError(f"gates {path} must map each task to a list of 0 and 1, one per block; correct it.")
    return {task: [int(gate) for gate in row] for task, row in gates.items()}


def load_tensor_pickle(path: Path) -> dict[str, Tensor]:
    """Read a plain pickle of a dict of tensors, as the release keeps sampled policies.

    Only what rebuilds tensors is admitted; anything else in the file is refused before it could run.

    Raises:
        UserError: the file is missing, damaged, or carries anything but a dict of tensors.
    """
    try:
        with path.open("rb") as file:
            content = _TensorUnpickler(file).load()
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise UserError(
            f"policy {path} cannot be read: expected a pickle that holds tensors and nothing else ({_reason(error)})."
        ) from error
    if not _has_names(content) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"policy {path} must be a dict of tensors, task1_policy, task2_policy, ...")
    return content


def _load_storage(data: bytes) -> Any:
    """What `torch.storage._load_from_bytes` does, but without running code and onto the CPU."""
    return _load_without_code(io.BytesIO(data))


def _encode_bytes(text: str, encoding: str) -> bytes:
    """How pickle protocols before 3 spell bytes."""
    return text.encode(encoding)


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows the few functions of which pickled tensors are made, and no others."""

    admitted: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode_bytes,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): _load_storage,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self.admitted[module, name]
