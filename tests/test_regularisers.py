"""The two losses on the logits, in the release's and in the paper's form."""

import math

import numpy as np
import pytest
import torch

from models.regularisers import (
    paper_sharing,
    paper_sharing_weights,
    paper_sparsity,
    release_sharing,
    release_sharing_weights,
    release_sparsity,
    release_sparsity_weights,
)
from tests.parity_inputs import seeded
from tests.parity_networks import TASKS, parity

TASK_NAMES = {setting: list(tasks) for setting, tasks in TASKS.items()} | {
    "cityscapes_2task": ["seg", "depth"],
    "taskonomy_5task": ["seg", "sn", "depth", "keypoint", "edge"],
}

CASES = [(setting, case) for setting, cases in parity("regularisers").items() for case in cases]


def seeded_logits(setting: str, num_blocks: int) -> dict[str, torch.Tensor]:
    return {
        task: torch.from_numpy(seeded(f"task{number}_logits", (num_blocks, 2))).requires_grad_()
        for number, task in enumerate(TASK_NAMES[setting], start=1)
    }


@pytest.mark.parametrize(("setting", "case"), CASES)
def test_release_losses_and_gradients(setting: str, case: str) -> None:
    expected = parity("regularisers")[setting][case]
    num_blocks = len(expected["grad_task1"])
    settings = dict(part.split("=") for part in case.split())
    diff, sharing = settings["diff"] == "True", settings["sharing"] == "True"
    num_open = num_blocks if settings["layers"] == "None" else int(settings["layers"])
    logits = seeded_logits(setting, num_blocks)
    sharing_loss = release_sharing(logits, release_sharing_weights(num_blocks, diff))
    sparsity_loss = release_sparsity(logits, num_open, release_sparsity_weights(num_blocks, diff, sharing))
    (sharing_loss + sparsity_loss).backward()
    assert sharing_loss.item() == pytest.approx(expected["hamming"], rel=1e-4)
    assert sparsity_loss.item() == pytest.approx(expected["sparsity"], rel=1e-4)
    np.testing.assert_allclose(logits["seg"].grad, expected["grad_task1"], rtol=1e-4, atol=1e-6)


def test_paper_losses_equal_numpy() -> None:
    logits = seeded_logits("nyu_v2_3task", 5)
    execute = np.array([np.exp(v[:, 0]) / np.exp(v).sum(1) for v in (t.detach().numpy() for t in logits.values())])
    weights = [(5 - block) / 5 for block in range(5)]
    sharing = sum(
        weights[block] * abs(execute[i, block] - execute[j, block])
        for i in range(3)
        for j in range(i)
        for block in range(5)
    )
    assert paper_sharing(logits, paper_sharing_weights(5)).item() == pytest.approx(sharing, rel=1e-5)
    assert paper_sparsity(logits, 2).item() == pytest.approx(np.log(execute[:, -2:]).sum(), rel=1e-5)


def test_paper_losses_press_the_right_way() -> None:
    logits = {"seg": torch.zeros(4, 2, requires_grad=True), "sn": torch.zeros(4, 2)}
    logits["sn"][:, 0] = 1
    paper_sparsity(logits, 4).backward()
    assert (logits["seg"].grad[:, 0] > 0).all(), "descending must make execution less likely"
    logits["seg"].grad = None
    paper_sharing(logits, paper_sharing_weights(4)).backward()
    pull = logits["seg"].grad[:, 0]
    assert (pull < 0).all(), "descending must move seg towards sn, in the last block too"
    assert (pull.diff() > 0).all(), "the bottom blocks are pressed hardest"


def test_one_task_has_nothing_to_share() -> None:
    loss = release_sharing({"seg": torch.randn(6, 2, requires_grad=True)}, release_sharing_weights(6, True))
    assert loss.item() == 0
    assert math.isclose(release_sharing_weights(6, True)[-1].item(), 1)
