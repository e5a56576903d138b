"""Whether two implementations compute the same: only then is it worth saying which is faster."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.phases import Bench
from models.shared_paths import Gates

TOLERANCE = 1e-4
"""The largest difference in float32, relative to the largest value of the task's prediction."""


def agreements(baseline: Bench, benches: Mapping[str, Bench]) -> dict[str, dict[str, float]]:
    """The largest relative differences from the baseline's predictions, in evaluation mode.

    Returns:
        implementation -> "drawn gates": of the network that is trained, on an image of the batch under soft gates in
        every block; "fixed gates": of the network as it is prepared for a test, on the image of the test.

    Raises:
        RuntimeError: in float32 one is larger than `TOLERANCE`.
    """
    work, policy = baseline.work, baseline.net.policy
    torch.manual_seed(0)
    drawn = policy.draw_gates(work.config.train.init_temp, policy.num_policy_blocks)
    expected = predictions(baseline, drawn)
    differences = {
        name: {
            kind: largest_difference(expected[kind], prediction)
            for kind, prediction in predictions(bench, drawn).items()
        }
        for name, bench in benches.items()
    }
    for name, bench in benches.items():
        # Not the other way round: nothing is larger than a NaN.
        if bench.way.rate == "fp32" and not all(value <= TOLERANCE for value in differences[name].values()):
            raise RuntimeError(f"{name} computes something else than the baseline: {differences[name]}")
    return differences


@torch.inference_mode()
def predictions(bench: Bench, drawn: Gates) -> dict[str, dict[str, Tensor]]:
    """Kind of gates -> task -> prediction, as `agreements` explains."""
    bench.way.switch()
    fixed = bench.work.gates()
    return {
        "drawn gates": bench.net.eval()(bench.batch["img"][:1], drawn),
        "fixed gates": bench.way.prepare_test(bench.net, fixed)(bench.work.test_image(bench.device), fixed),
    }


def largest_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Of all tasks, each relative to the task's largest expected value; NaN where any value is."""
    differences = [
        (found[task].float() - prediction).abs().max() / prediction.abs().max() for task, prediction in expected.items()
    ]
    return torch.stack(differences).max().item()
