"""Policies: for all logits, however far apart, gates and architectures are what the paper says they are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from models.policy import Curriculum, Noise, Policy, gumbel_noise, gumbel_softmax, straight_through
from utils.errors import UserError

finite_logits = st.floats(width=32, allow_nan=False, allow_infinity=False)
usual_logits = st.floats(-6, 6, width=32)
# Anything but a dot, which separates the names of modules, and the names that PyTorch keeps for itself.
task_names = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda name: not hasattr(nn.ParameterDict(), name)
)
temperatures = st.floats(0, 1e30) | st.sampled_from([0.0, 1e-310, 1e-45, 1e-38, 1e-6, 0.1, 1.0, 5.0])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def policies(draw: st.DrawFn, logits: st.SearchStrategy[float] = finite_logits) -> Policy:
    """A policy of one to three tasks and one to six blocks, the first of them perhaps without logits."""
    tasks = draw(st.lists(task_names, min_size=1, max_size=3, unique=True))
    num_blocks = draw(st.integers(1, 6))
    policy = Policy(tasks, num_blocks, skip_layer=draw(st.integers(0, num_blocks - 1)))
    for of_task in policy.logits.values():
        of_task.data = torch.from_numpy(draw(arrays.arrays(np.float32, tuple(of_task.shape), elements=logits)))
    return policy


def numbers_of_open_blocks(policy: Policy) -> st.SearchStrategy[int]:
    return st.integers(0, policy.num_policy_blocks)


def softmax(logits: Tensor) -> np.ndarray:
    """In float64, where no difference of float32 logits overflows."""
    logits = logits.detach().double().numpy()
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def fixed_noise(policy: Policy, seed: int) -> list[Tensor]:
    """Noise for the logits of each task."""
    torch.manual_seed(seed)
    return [gumbel_noise(logits) for logits in policy.logits.values()]


def one_by_one(noise: list[Tensor]) -> Noise:
    """A source of noise that gives these, task after task."""
    left = iter(noise)
    return lambda logits: next(left)


# Probabilities and architectures


@given(policy=policies(), data=st.data())
def test_probabilities_are_the_softmax_behind_ones(policy: Policy, data: st.DataObject) -> None:
    num_open = data.draw(numbers_of_open_blocks(policy) | st.none())
    probabilities = policy.execution_probabilities(num_open)
    num_following = policy.num_policy_blocks if num_open is None else num_open
    assert list(probabilities) == list(policy.logits)
    for task, row in probabilities.items():
        following = softmax(policy.logits[task])[policy.num_policy_blocks - num_following :, 0]
        assert row[: policy.num_blocks - num_following] == [1.0] * (policy.num_blocks - num_following)
        np.testing.assert_allclose(row[policy.num_blocks - num_following :], following, rtol=1e-12)
        assert all(0 <= probability <= 1 for probability in row)


@given(policy=policies(), seed=seeds, data=st.data())
def test_a_seed_gives_one_architecture_of_which_closed_blocks_are_executed(
    policy: Policy, seed: int, data: st.DataObject
) -> None:
    architecture = policy.sample_architecture(seed)
    assert policy.sample_architecture(seed) == architecture
    assert list(architecture) == list(policy.logits)
    num_open = data.draw(numbers_of_open_blocks(policy))
    closed = policy.num_blocks - num_open
    for task, gates in policy.sample_architecture(seed, num_open).items():
        assert gates == [1] * closed + architecture[task][closed:]
        assert all(type(gate) is int and gate in (0, 1) for gate in gates)


@given(policy=policies(), seed=seeds)
def test_what_is_certain_is_drawn_with_every_seed(policy: Policy, seed: int) -> None:
    architecture = policy.sample_architecture(seed)
    for task, row in policy.execution_probabilities().items():
        for gate, probability in zip(architecture[task], row, strict=True):
            assert probability not in (0.0, 1.0) or gate == probability


@given(policy=policies(usual_logits), first_seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_blocks_are_executed_as_often_as_their_probabilities_say(policy: Policy, first_seed: int) -> None:
    count = 300
    sampled = [policy.sample_architecture(first_seed + number) for number in range(count)]
    for task, row in policy.execution_probabilities().items():
        frequencies = np.mean([architecture[task] for architecture in sampled], axis=0)
        deviation = np.sqrt(np.array(row) * (1 - np.array(row)) / count)
        assert (abs(frequencies - row) <= 6 * deviation + 3 / count).all()


@given(policy=policies(), worst=st.sampled_from([np.nan, np.inf]), data=st.data())
def test_logits_that_are_no_numbers_are_refused(policy: Policy, worst: float, data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(list(policy.logits)))
    block = data.draw(st.integers(0, policy.num_policy_blocks - 1))
    policy.logits[task].data[block, data.draw(st.integers(0, 1))] = worst
    for ask in (policy.execution_probabilities, lambda: policy.sample_architecture(0)):
        with pytest.raises(UserError, match="NaN or infinite") as caught:
            ask()
        assert f"policy of {task} " in str(caught.value)


@given(policy=policies(), excess=st.integers(1, 99), seed=seeds)
def test_more_blocks_than_have_logits_cannot_be_open(policy: Policy, excess: int, seed: int) -> None:
    for num_open in (policy.num_policy_blocks + excess, -excess):
        for ask in (
            lambda num_open=num_open: policy.draw_gates(1.0, num_open),
            lambda num_open=num_open: policy.sample_architecture(seed, num_open),
            lambda num_open=num_open: policy.execution_probabilities(num_open),
        ):
            with pytest.raises(ValueError, match="can be open"):
                ask()


# Gates of training


@given(policy=policies(), temperature=temperatures, seed=seeds, data=st.data())
@settings(max_examples=200)
def test_soft_gates_are_the_softmax_of_logits_and_noise(
    policy: Policy, temperature: float, seed: int, data: st.DataObject
) -> None:
    num_open = data.draw(numbers_of_open_blocks(policy))
    noise = fixed_noise(policy, seed)
    gates = policy.draw_gates(temperature, num_open, one_by_one(noise))
    assert list(gates) == list(policy.logits)
    for (task, logits), noise_of_task in zip(policy.logits.items(), noise, strict=True):
        path, closed = gates[task], policy.num_blocks - num_open
        assert path[:closed] == [1] * closed
        assert len(path) == policy.num_blocks
        difference = (logits.detach() + noise_of_task).double().numpy() @ [-1.0, 1.0]
        # Colder than a float32 can tell is as cold as it gets.
        cold = max(temperature, float(np.finfo(np.float32).tiny))
        with np.errstate(over="ignore"):
            expected = 1 / (1 + np.exp(difference / cold))
        found = [gate.item() for gate in path[closed:]]
        np.testing.assert_allclose(found, expected[policy.num_policy_blocks - num_open :], rtol=1e-3, atol=1e-6)
        assert all(0 <= gate <= 1 for gate in found)


@given(policy=policies(), temperature=temperatures, seed=seeds)
def test_hard_gates_are_the_larger_entry_with_the_soft_gradient(policy: Policy, temperature: float, seed: int) -> None:
    noise, num_open = fixed_noise(policy, seed), policy.num_policy_blocks
    drawn = [draw(temperature, num_open, one_by_one(noise)) for draw in (policy.draw_gates, policy.draw_hard_gates)]
    soft, hard = ([gate for path in gates.values() for gate in path[-num_open:]] for gates in drawn)
    for soft_gate, hard_gate in zip(soft, hard, strict=True):
        assert hard_gate.item() == (soft_gate.item() >= 0.5)
    logits = list(policy.logits.values())
    for of_soft, of_hard in zip(*(torch.autograd.grad(sum(gates), logits) for gates in (soft, hard)), strict=True):
        assert of_soft.isfinite().all()
        torch.testing.assert_close(of_hard, of_soft, rtol=0, atol=0)


@given(
    logits=st.tuples(usual_logits, usual_logits),
    temperature=st.floats(1e-3, 1e3),
    seed=seeds,
)
@settings(max_examples=30)
def test_gumbels_noise_draws_from_the_softmax_at_any_temperature(
    logits: tuple[float, float], temperature: float, seed: int
) -> None:
    torch.manual_seed(seed)
    count = 2000
    repeated = torch.tensor(logits).expand(count, 2)
    drawn = gumbel_softmax(repeated, gumbel_noise(repeated), temperature)
    np.testing.assert_allclose(drawn.sum(-1), 1, rtol=1e-5)
    one_hot = straight_through(drawn)
    assert set(one_hot.unique().tolist()) <= {0.0, 1.0}
    assert (one_hot.sum(-1) == 1).all()
    share, expected = one_hot[:, 0].mean().item(), softmax(torch.tensor(logits))[0]
    assert abs(share - expected) <= 6 * np.sqrt(expected * (1 - expected) / count) + 3 / count


# The curriculum


@given(num_blocks=st.integers(1, 40), speed=st.none() | st.integers(1, 10**9), period=st.integers(0, 10**12))
def test_the_curriculum_opens_block_by_block_until_all_are_open(
    num_blocks: int, speed: int | None, period: int
) -> None:
    curriculum = Curriculum(num_blocks, speed)
    num_open = curriculum.num_open(period)
    assert 1 <= num_open <= num_blocks
    assert num_open <= curriculum.num_open(period + 1) <= num_open + 1
    assert (period < curriculum.periods) or num_open == num_blocks
