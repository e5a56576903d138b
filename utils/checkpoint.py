"""Checkpoints and gates on disk: whole or absent when written, free of code when read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.checksums import checksum_holds, written_with_checksum
from utils.errors import UserError
from utils.files import flush_to_disk, read_json, replacing, write_json
from utils.tensor_files import check_bounds, check_plain, read_tensor_file, read_tensor_pickle

VERSION = 1
"""Kept in every checkpoint as "version"; says that a checksum belongs to it. The release's have neither."""

MOST_GATES_BYTES = 1_000_000


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; the file is whole or absent.

    Raises:
        UserError: the file cannot be written, or is too long to be read again; what was there before is as it was.
        TypeError, ValueError: the content is of a kind that could not be read again.
    """
    with replacing(path) as temporary:
        _write(temporary, content)


def save_latest(path: Path, previous: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint to `path`, and keep the one before as `previous`: at any moment one of them is whole.

    Both are in one folder. A damaged file at `path` does not take the place of a whole one. Raises as
    `save_checkpoint`.
    """
    with replacing(path) as temporary:
        _write(temporary, content)
        flush_to_disk(temporary)
        if path.is_file() and checksum_holds(path):
            os.replace(path, previous)


def _write(path: Path, content: dict[str, Any]) -> None:
    check_plain(content)
    with written_with_checksum(path) as file:
        torch.save({**content, "version": VERSION}, file)
    try:
        check_bounds(path)
    except ValueError as error:
        raise UserError(
            f"a checkpoint of this run would be too long to be read again ({error}): lower dataload.num_words"
        ) from error


def load_latest(path: Path, previous: Path) -> tuple[dict[str, Any], str | None]:
    """Read what `save_latest` wrote: the checkpoint at `path` or, where it is missing or damaged, the one before.

    Returns: the content, and None or a sentence on why it is that of `previous`.

    Raises:
        UserError: neither can be read.
    """
    try:
        return load_checkpoint(path), None
    except UserError as fault:
        if not previous.exists():
            raise
        try:
            content = load_checkpoint(previous)
        except UserError as other_fault:
            raise UserError(f"{_clause(fault)}; nor does the one before help: {other_fault}") from other_fault
        # A run that is killed between the two renamings of `save_latest` leaves no file at `path`.
        reason = _clause(fault) if path.exists() else f"checkpoint {path} is missing"
        return content, f"{reason}; the one before, {previous}, is used instead."


def _clause(fault: UserError) -> str:
    return str(fault).rstrip(".")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, ours or the release's, onto the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is missing or damaged, holds more than tensors and plain values, or has no
            `mtl-net`.
    """
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist: run the phase that writes it, or correct paths.")
    content = _load_file(path, "checkpoint", "{'mtl-net': its state dict}")
    if not isinstance(content, dict) or not _has_names(content.get("mtl-net")):
        raise UserError(f"checkpoint {path} has no entry 'mtl-net' with a network's weights; choose another.")
    return content


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a bare state dict, such as torchvision's, onto the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is missing or damaged, or holds anything but a dict of tensors.
    """
    if not path.exists():
        raise UserError(f"weights {path} do not exist: correct the path.")
    content = _load_file(path, "weights", "a state dict")
    if not _has_names(content) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"weights {path} must be a state dict, names and tensors alone; choose another file.")
    return content


def _load_file(path: Path, kind: str, form: str) -> Any:
    """The content of a file, whose kind and form are for messages."""
    try:
        return _load_undamaged(path)
    except Exception as error:  # a damaged file can make its reading fail in any way
        raise UserError(
            f"{kind} {path} cannot be read: expected a PyTorch file of tensors and plain values, undamaged and "
            f"without code ({_reason(error)}); choose another, or save a network's weights alone, as {form}."
        ) from error


def _load_undamaged(path: Path) -> Any:
    """The content of a file, without its version; `ValueError` where its checksum does not hold or is missing."""
    holds = checksum_holds(path) if path.is_file() else None
    if holds is False:
        raise ValueError("it is damaged: its checksum does not hold")
    content = read_tensor_file(path)
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version is not None and not holds:
        raise ValueError("it is damaged: its checksum is missing")
    if version not in (None, VERSION):
        raise ValueError(f"it is of version {version}, and {VERSION} is known here")
    return content


def _has_names(value: Any) -> bool:
    """Whether a value is a dict, all of whose keys are text."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _reason(error: Exception) -> str:
    """Why a file was refused, in a few words; a file may have put anything into them."""
    return _readable(str(error).partition("\n")[0] or type(error).__name__)


def _readable(text: str) -> str:
    """Text from a file as it can be shown: on one line, without control characters, cut after 200."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:200])
    return shown + "..." * (len(text) > 200)


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
    return ", ".join(_readable(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")


def load_optimiser_state(optimiser: Optimizer, state: dict[str, Any], source: str | Path) -> None:
    """Load the moments of an optimiser's `state_dict`; rates and all other settings stay the optimiser's own.

    Raises:
        UserError: entries that are missing, left over or of another shape than their parameter; names up to five.
    """
    kept = state.get("state") if isinstance(state, dict) else None
    misfits = ["it is no optimiser's state"] if not isinstance(kept, dict) else list(_misfits(optimiser, kept))
    if misfits:
        raise UserError(
            f"checkpoint {source} does not fit the optimiser of the configured network ({_first_five(misfits)}); "
            "set backbone, tasks, tasks_num_class and widths as they were when it was written."
        )
    optimiser.load_state_dict({"state": kept, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, entries in optimiser.state.items():
        for name, entry in entries.items():
            if isinstance(entry, Tensor) and entry.shape == parameter.shape:
                # Fused optimisers go through the memory of parameter and moments side by side.
                entries[name] = torch.empty_like(parameter).copy_(entry)


def _misfits(optimiser: Optimizer, kept: dict[Any, Any]) -> Iterator[str]:
    """What of a kept state does not fit. Parameters are numbered over all groups, and those without gradient absent."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    expected = _state_after_a_step(optimiser)
    for number, entries in kept.items():
        if not isinstance(number, int) or not 0 <= number < len(parameters):
            yield f"parameter {number} of {len(parameters)}"
        elif not isinstance(entries, dict) or entries.keys() != expected.keys():
            found = list(entries) if isinstance(entries, dict) else type(entries).__name__
            yield f"parameter {number} has {found} instead of {list(expected)}"
        else:
            for name, entry in entries.items():
                is_moment = isinstance(expected[name], Tensor) and expected[name].ndim > 0
                shape = list(parameters[number].shape) if is_moment else []
                if _shape(entry) != shape and (is_moment or not isinstance(entry, int | float | None)):
                    yield f"{name} of parameter {number} {_shape(entry)} instead of {shape}"


def _state_after_a_step(optimiser: Optimizer) -> dict[str, Any]:
    """What such an optimiser keeps of a parameter, by name: moments with its shape, and single numbers."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    twin = type(optimiser)([parameter], **optimiser.defaults)
    twin.step()
    return twin.state[parameter]


def save_gates(path: Path, gates: dict[str, list[int]]) -> None:
    """Write hard gates, {task: [1 = execute, 0 = skip, one per block]}, as JSON."""
    write_json(path, gates)


def load_gates(path: Path) -> dict[str, list[int]]:
    """Read hard gates written by `save_gates`.

    Raises:
        UserError: the file is no JSON object of named rows of 0 and 1, one row and one gate in it at least.
    """
    gates = read_json(path, MOST_GATES_BYTES)
    if not isinstance(gates, dict) or not gates or not all(_is_task(task) and _is_row(gates[task]) for task in gates):
        raise UserError(f"gates {path} must map each task to a list of 0 and 1, one per block; correct it.")
    return gates


def _is_task(name: str) -> bool:
    return name.isprintable() and bool(name.strip())


def _is_row(row: Any) -> bool:
    # By type as well: true and 1.0 equal 1, but nobody meant them.
    return isinstance(row, list) and bool(row) and all(type(gate) is int and gate in (0, 1) for gate in row)


def load_tensor_pickle(path: Path) -> dict[str, Tensor]:
    """Read a plain pickle of a dict of tensors, as the release keeps sampled policies; nothing in it is executed.

    Raises:
        UserError: the file is missing, damaged, or carries anything but a dict of tensors.
    """
    try:
        content = read_tensor_pickle(path)
    except Exception as error:  # a damaged file can make its reading fail in any way
        raise UserError(
            f"policy {path} cannot be read: expected a pickle that holds tensors and nothing else "
            f"({_reason(error)}); choose another, or sample it again."
        ) from error
    if not _has_names(content) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"policy {path} must be a dict of tensors, task1_policy, task2_policy, ...; choose another, or sample it "
            "again."
        )
    return content
