"""Gates drawn from logits: Gumbel-Softmax, hard sampling, curriculum, architectures by seed."""

import numpy as np
import pytest
import torch

from models.policy import Curriculum, Policy, gumbel_noise, gumbel_softmax, straight_through
from models.shared_paths import decided
from tests.parity_inputs import seeded
from tests.parity_networks import TASKS, parity


def seeded_policy(tasks: list[str], num_blocks: int, skip_layer: int = 0) -> Policy:
    policy = Policy(tasks, num_blocks, skip_layer=skip_layer)
    for number, task in enumerate(tasks, start=1):
        logits = policy.logits[task]
        logits.data = torch.from_numpy(seeded(f"task{number}_logits", tuple(logits.shape)))
    return policy


@pytest.mark.parametrize("setting", list(TASKS))
def test_seeds_give_the_released_architectures(setting: str) -> None:
    expected = parity("sampling")[setting]
    num_blocks = len(next(iter(expected.values()))[0])
    policy = seeded_policy(list(TASKS[setting]), num_blocks)
    for seed, architecture in expected.items():
        assert policy.sample_architecture(int(seed)) == dict(zip(TASKS[setting], architecture, strict=True))
    assert len({str(architecture) for architecture in expected.values()}) == len(expected)


def test_tasks_keep_the_order_of_the_configuration() -> None:
    tasks = ["seg", "sn", "depth"]
    policy = Policy(tasks, 4)
    assert list(policy.logits) == list(policy.sample_architecture(0)) == list(policy.draw_gates(1.0, 4)) == tasks


def test_sampled_architectures_follow_the_probabilities() -> None:
    policy = seeded_policy(["seg", "sn"], 6)
    sampled = [policy.sample_architecture(seed) for seed in range(2000)]
    for task, probabilities in policy.execution_probabilities().items():
        frequencies = np.mean([architecture[task] for architecture in sampled], axis=0)
        np.testing.assert_allclose(frequencies, probabilities, atol=0.04)


def test_sampling_leaves_the_global_random_states_alone() -> None:
    policy = seeded_policy(["seg"], 4)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(3)
    torch.manual_seed(3)
    policy.sample_architecture(0)
    assert (np.random.rand(), torch.rand(1)) == expected


def test_gumbel_softmax_draws_from_the_softmax_at_any_temperature() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([1.2, -0.3]).expand(20000, 2)
    drawn = gumbel_softmax(logits, gumbel_noise(logits), temperature=0.5)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20000))
    share = (drawn[:, 0] > 0.5).float().mean().item()
    assert share == pytest.approx(torch.softmax(logits[0], 0)[0].item(), abs=0.01)


def test_low_temperatures_make_gates_harder() -> None:
    logits, noise = torch.tensor([[0.4, 0.1]]), torch.zeros(1, 2)
    gates = [gumbel_softmax(logits, noise, temperature)[0, 0].item() for temperature in (5.0, 1.0, 0.1)]
    assert gates == pytest.approx([1 / (1 + np.exp(-0.3 / t)) for t in (5.0, 1.0, 0.1)], rel=1e-5)


def test_hard_gates_are_zero_or_one_and_pass_the_soft_gradient() -> None:
    for num_tasks in (1, 2, 5):
        policy = seeded_policy([f"task{k}" for k in range(num_tasks)], 7)
        torch.manual_seed(1)
        hard = policy.draw_hard_gates(temperature=2.0, num_open=4)
        torch.manual_seed(1)
        soft = policy.draw_gates(temperature=2.0, num_open=4)
        for task in policy.logits:
            decisions = [1, 1, 1, *(int(gate.item() > 0.5) for gate in soft[task][3:])]
            assert decided(hard)[task] == decisions
            assert all(gate.item() in (0.0, 1.0) for gate in hard[task][3:])
        logits = list(policy.logits.values())
        gradients = [
            torch.autograd.grad(sum(gate for path in gates.values() for gate in path[-4:]), logits)
            for gates in (hard, soft)
        ]
        for of_hard, of_soft in zip(*gradients, strict=True):
            torch.testing.assert_close(of_hard, of_soft)


def test_straight_through_is_exactly_one_hot() -> None:
    probabilities = torch.softmax(torch.randn(50, 2), -1)
    assert set(straight_through(probabilities).unique().tolist()) == {0.0, 1.0}


def test_curriculum_opens_the_last_blocks_first() -> None:
    curriculum = Curriculum(num_blocks=4, speed=3)
    assert [curriculum.num_open(period) for period in range(13)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert curriculum.periods == 12
    policy = seeded_policy(["seg", "sn"], 4)
    gates = policy.draw_gates(temperature=1.0, num_open=curriculum.num_open(3))
    for path in gates.values():
        assert path[:2] == [1, 1]
        assert all(isinstance(gate, torch.Tensor) for gate in path[2:])
    sampled = policy.sample_architecture(9)
    opened = policy.sample_architecture(9, num_open=1)
    assert all(opened[task] == [1, 1, 1, sampled[task][-1]] for task in sampled)


def test_probabilities_of_closed_blocks_are_one() -> None:
    policy = seeded_policy(["seg", "sn"], 6, skip_layer=1)
    for task, logits in policy.logits.items():
        exponentials = np.exp(logits.detach().double().numpy())
        execute = exponentials[:, 0] / exponentials.sum(axis=1)
        assert policy.execution_probabilities()[task] == pytest.approx([1.0, *execute])
        assert policy.execution_probabilities(num_open=2)[task] == pytest.approx([1.0] * 4 + [*execute[-2:]])


def test_without_curriculum_every_block_is_open() -> None:
    curriculum = Curriculum(num_blocks=4, speed=None)
    assert (curriculum.num_open(0), curriculum.periods) == (4, 0)


def test_skipped_layers_have_no_logits_and_are_always_executed() -> None:
    policy = seeded_policy(["seg", "sn"], 6, skip_layer=2)
    assert all(logits.shape == (4, 2) for logits in policy.logits.values())
    for gates in (policy.draw_gates(1.0, 4), policy.sample_architecture(5)):
        assert all(len(path) == 6 and path[:2] == [1, 1] for path in gates.values())
    assert all(row[:2] == [1.0, 1.0] for row in policy.execution_probabilities().values())


def test_initial_logits() -> None:
    equal = Policy(["seg"], 3, "equal").logits["seg"]
    assert equal.tolist() == [[0.5, 0.5]] * 3
    torch.manual_seed(0)
    random = Policy(["seg"], 2000, "random").logits["seg"]
    assert random.std().item() == pytest.approx(1e-3, rel=0.1)
    chosen = Policy(["seg"], 3, "all_chosen", init_neg_logits=-10.0).logits["seg"]
    assert chosen.tolist() == [[0.0, -10.0]] * 3
    with pytest.raises(ValueError, match="init_method"):
        Policy(["seg"], 3, "none")
