"""Networks with the weights of the parity numbers, and the numbers themselves."""

import json
from pathlib import Path
from typing import Any

import torch

from models.multitask import MultiTaskNet, build_network
from models.release import from_release
from tests.parity_inputs import seeded

TASKS = {
    "nyu_v2_2task": {"seg": 40, "sn": 3},
    "nyu_v2_3task": {"seg": 40, "sn": 3, "depth": 1},
}
BACKBONES = {"nyu_v2_2task": "ResNet18", "nyu_v2_3task": "ResNet34"}


def parity(name: str) -> dict[str, Any]:
    """The numbers of one file in tests/parity."""
    return json.loads((Path(__file__).parent / "parity" / f"{name}.json").read_text())


def released_state(setting: str) -> dict[str, torch.Tensor]:
    """A state dict under the released names, filled by `seeded`."""
    keys = parity("forward")[f"{BACKBONES[setting]}_{setting[-5:]}"]["keys"]
    return {key: torch.from_numpy(seeded(key, shape)) for key, shape in keys.items()}


def released_network(setting: str, execution: str = "shared") -> MultiTaskNet:
    """The network of `nyu_v2_2task` or `nyu_v2_3task` with those weights, in training mode."""
    net = build_network(backbone=BACKBONES[setting], num_outputs=TASKS[setting], execution=execution)
    net.load_state_dict(from_release(released_state(setting), net))
    return net
