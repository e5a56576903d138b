"""Shared paths: for all gates the tasks' features are those of one task after the other, and no work is done twice."""

import copy
from dataclasses import dataclass, field

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.blocks import ONE_TURN, GatedBlock, IdentityShortcut, ProjectionShortcut, SharedBatchNorm, Turns
from models.shared_paths import Gate, Gates, decided, mixes, run_shared_paths

CHANNELS = 2


class Residual(nn.Module):
    """The least of a residual branch: 1x1 convolution and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.bn = SharedBatchNorm(CHANNELS)

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        return self.bn(self.conv(x), turns)


def build_blocks(projections: list[bool]) -> nn.ModuleList:
    """One block per entry, with a projection in its shortcut or without; float64."""
    torch.manual_seed(len(projections))
    return nn.ModuleList(
        GatedBlock(
            Residual(),
            ProjectionShortcut(nn.Conv2d(CHANNELS, CHANNELS, 1)) if projects else IdentityShortcut(),
        )
        for projects in projections
    ).double()


@dataclass
class Paths:
    """Blocks, what the tasks' paths start from, and their gates."""

    projections: list[bool]
    inputs: dict[str, int]
    """Task -> the number of its tensor; tasks may have one in common."""
    gates: Gates

    def features(self) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)
        tensors = [torch.randn(2, CHANNELS, 2, 2, dtype=torch.float64, generator=random) for _ in range(3)]
        return {task: tensors[number] for task, number in self.inputs.items()}


@st.composite
def paths(draw: st.DrawFn, with_mixes: bool = True) -> Paths:
    """One to five tasks through one to five blocks, on hard gates or any mixture of hard and soft ones."""
    projections = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    tasks = [f"task{number}" for number in range(draw(st.integers(1, 5)))]
    soft = st.floats(0, 1).map(lambda share: torch.tensor(share, dtype=torch.float64))
    gate = st.sampled_from([0, 1])
    gate = gate | gate | soft if with_mixes else gate
    return Paths(
        projections,
        {task: draw(st.integers(0, 2)) for task in tasks},
        {task: draw(st.lists(gate, min_size=len(projections), max_size=len(projections))) for task in tasks},
    )


def one_by_one(blocks: nn.ModuleList, features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
    """Task after task, block after block, by the definition of a gate."""
    after = {}
    for task, path in gates.items():
        x = features[task]
        for block, gate in zip(blocks, path, strict=True):
            skipped = block.skip(x)
            if mixes(gate):
                x = gate * block.execute(x, skipped) + (1 - gate) * skipped
            else:
                x = block.execute(x, skipped) if gate == 1 else skipped
        after[task] = x
    return after


@given(given_paths=paths(), training=st.booleans())
def test_shared_paths_equal_one_task_after_the_other(given_paths: Paths, training: bool) -> None:
    blocks = build_blocks(given_paths.projections).train(training)
    apart = copy.deepcopy(blocks)
    features = given_paths.features()
    shared = run_shared_paths(blocks, features, given_paths.gates)
    expected = one_by_one(apart, features, given_paths.gates)
    assert list(shared) == list(given_paths.gates)
    for task, x in expected.items():
        torch.testing.assert_close(shared[task], x, rtol=1e-7, atol=1e-10)
    for (name, one), other in zip(blocks.named_buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


@dataclass
class Counted:
    """A block that notes the inputs it is given."""

    block: GatedBlock
    skipped: list[Tensor] = field(default_factory=list)
    executed: list[Tensor] = field(default_factory=list)

    def skip(self, x: Tensor, turns: Turns) -> Tensor:
        self.skipped.append(x)
        return self.block.skip(x, turns)

    def execute(self, x: Tensor, skipped: Tensor, turns: Turns) -> Tensor:
        self.executed.append(x)
        return self.block.execute(x, skipped, turns)


def history(task: str, given_paths: Paths, block: int) -> tuple:
    """What a task's features before a block depend on; nobody shares those of a task that has mixed."""
    before = given_paths.gates[task][:block]
    return (task,) if any(map(mixes, before)) else (given_paths.inputs[task], *before)


@given(given_paths=paths())
def test_no_block_is_computed_twice_on_one_input_nor_for_tasks_that_skip_it(given_paths: Paths) -> None:
    blocks = [Counted(block) for block in build_blocks(given_paths.projections).eval()]
    run_shared_paths(blocks, given_paths.features(), given_paths.gates)
    for number, block in enumerate(blocks):
        reaching = {history(task, given_paths, number) for task in given_paths.gates}
        computing = {
            history(task, given_paths, number)
            for task, path in given_paths.gates.items()
            if mixes(path[number]) or path[number] == 1
        }
        assert len(block.skipped) == len(reaching)
        assert len(block.executed) == len(computing)


@given(given_paths=paths(with_mixes=False), as_tensors=st.booleans())
def test_gates_that_hold_exactly_0_or_1_are_decided(given_paths: Paths, as_tensors: bool) -> None:
    def gate_as_drawn(gate: int) -> Gate:
        return torch.tensor(float(gate)) if as_tensors else gate

    drawn = {task: [gate_as_drawn(gate) for gate in path] for task, path in given_paths.gates.items()}
    assert decided(drawn) == given_paths.gates
