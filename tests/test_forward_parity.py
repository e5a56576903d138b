"""Forward passes equal the released network's."""

import numpy as np
import pytest
import torch

from models.release import is_release_state, release_names
from models.shared_paths import Gates, all_blocks
from tests.parity_inputs import policies
from tests.parity_networks import BACKBONES, TASKS, parity, released_network, released_state

SETTINGS = list(TASKS)


def image() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).randn(2, 3, 65, 97).astype(np.float32))


def gates_of(case: str, setting: str, num_blocks: int) -> Gates:
    """The gates behind the parity numbers' case names."""
    tasks = list(TASKS[setting])
    fixed = dict(zip(tasks, policies(7, len(tasks), num_blocks), strict=True))
    last_five = {task: [1] * (num_blocks - 5) + gates[-5:] for task, gates in fixed.items()}
    return {"all_blocks": all_blocks(tasks, num_blocks), "fixed": fixed, "fixed_last5": last_five}[case]


@pytest.mark.parametrize("execution", ["shared", "task_by_task"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_outputs_equal_the_released_network(setting: str, execution: str) -> None:
    net = released_network(setting, execution).eval()
    expected = parity("forward")[f"{BACKBONES[setting]}_{setting[-5:]}"]
    for case in ("all_blocks", "fixed", "fixed_last5"):
        with torch.no_grad():
            predictions = net(image(), gates_of(case, setting, net.num_blocks))
        for prediction, (mean, std, first, shape) in zip(predictions.values(), expected[case], strict=True):
            assert list(prediction.shape) == shape
            assert prediction.mean().item() == pytest.approx(mean, rel=1e-4)
            assert prediction.std().item() == pytest.approx(std, rel=1e-4)
            assert prediction[0, 0, 0, :3].tolist() == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_released_key_has_its_place(setting: str) -> None:
    net = released_network(setting)
    released = released_state(setting)
    for number, task in enumerate(TASKS[setting], start=1):
        torch.testing.assert_close(net.policy.logits[task].detach(), released[f"task{number}_logits"], rtol=0, atol=0)
    assert is_release_state(released)
    assert not is_release_state(net.state_dict())
    names = release_names(net)
    assert set(names.values()) == set(released)
    for ours, value in net.state_dict().items():
        torch.testing.assert_close(value, released[names[ours]], rtol=0, atol=0)
