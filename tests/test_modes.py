"""Evaluation mode ends as it began, whatever happens within; timing a module leaves no trace either."""

import pytest
import torch
from torch import Tensor, nn

from utils.cost import SLOW, measure_seconds
from utils.modes import evaluation_mode

CPU = torch.device("cpu")


def mixed_modes() -> nn.Sequential:
    """A network in training mode, one part of which is not."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 2, 1)))
    net.train()
    net[1].eval()
    return net


def modes(net: nn.Module) -> list[bool]:
    return [part.training for part in net.modules()]


def test_every_part_is_in_evaluation_mode_and_then_in_its_own_again() -> None:
    net = mixed_modes()
    before = modes(net)
    assert len(set(before)) == 2
    with evaluation_mode(net):
        assert not any(modes(net))
    assert modes(net) == before


def test_an_exception_does_not_keep_the_modes() -> None:
    net = mixed_modes()
    before = modes(net)
    with pytest.raises(RuntimeError, match="out of memory"), evaluation_mode(net):
        raise RuntimeError("out of memory")
    assert modes(net) == before


def test_timing_leaves_modes_statistics_and_random_numbers_alone() -> None:
    net = mixed_modes().train()
    before, statistics = modes(net), net[1].running_mean.clone()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    image = torch.ones(1, 3, 4, 5)
    seen = []

    def forward(net: nn.Module) -> None:
        seen.append((any(modes(net)), torch.is_grad_enabled(), net(image).shape))

    assert measure_seconds(net, forward, CPU) > 0
    assert seen == 6 * [(False, False, (1, 2, 4, 5))], "a first pass and five timed ones, in evaluation mode"
    assert modes(net) == before
    assert torch.equal(net[1].running_mean, statistics)
    assert torch.equal(torch.rand(1), expected)


def test_seconds_are_the_median_of_five_passes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock at start and end of each pass: 1, 2, 9, 2 and 8 hundredths.
    durations = [0.01, 0.02, 0.09, 0.02, 0.08]
    clock = iter([time for number, duration in enumerate(durations) for time in (number, number + duration)])
    monkeypatch.setattr("utils.cost.time.perf_counter", lambda: next(clock))
    assert measure_seconds(nn.Identity(), lambda net: net(1), CPU) == pytest.approx(0.02)


def test_a_slow_pass_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, SLOW + 1.0])
    monkeypatch.setattr("utils.cost.time.perf_counter", lambda: next(clock))
    passes: list[Tensor] = []
    assert measure_seconds(nn.Identity(), lambda net: passes.append(net(torch.ones(1))), CPU) == SLOW + 1.0
    assert len(passes) == 2, "one that sets up, and the one that is timed"
