"""The multi-task network: one backbone, one policy, one head per task."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from models.blocks import GatedBlock, Turns
from models.heads import ASPP
from models.policy import Policy
from models.resnet import ResNet
from models.shared_paths import Gates, run_shared_paths
from models.task_by_task import run_task_by_task

RunPaths = Callable[[Sequence[GatedBlock], Tensor, Gates], dict[str, Tensor]]

EXECUTIONS: dict[str, RunPaths] = {"shared": run_shared_paths, "task_by_task": run_task_by_task}
"""`execution` of the configuration -> how the paths are run."""


class MultiTaskNet(nn.Module):
    """Images -> {task: prediction}, every task on its own path through the shared blocks."""

    def __init__(
        self,
        backbone: ResNet,
        policy: Policy,
        heads: Mapping[str, nn.Module],
        run_paths: RunPaths = run_shared_paths,
    ) -> None:
        super().__init__()
        self.run_paths = run_paths
        self.backbone = backbone
        self.policy = policy
        self.heads = nn.ModuleDict(heads)

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks that a path executes or skips."""
        return len(self.backbone.blocks)

    def forward(self, image: Tensor, gates: Gates) -> dict[str, Tensor]:
        """Predict the tasks named in `gates`; each has one gate per block.

        Args:
            image: [N, 3, H, W], BGR in 0..255 minus the mean.

        Returns:
            task -> [N, num_outputs, h, w] with h = floor(ceil(H / 2) / 4) + 1, about H / 8, and w likewise.
        """
        x = self.backbone.stem(image, turns=Turns(tuple(range(len(gates)))))
        features = self.run_paths(self.backbone.blocks, x, gates)
        return {task: self.heads[task](features[task]) for task in gates}


def build_network(
    *,
    backbone: str,
    num_outputs: dict[str, int],
    backbone_width: int = 64,
    head_width: int = 1024,
    init_method: str = "equal",
    init_neg_logits: float | None = None,
    skip_layer: int = 0,
    execution: str = "shared",
) -> MultiTaskNet:
    """A network for dense tasks, freshly initialised from torch's global generator.

    `num_outputs` maps each task to its number of output channels, in the order of the configuration.
    """
    trunk = ResNet(backbone, backbone_width)
    tasks: Sequence[str] = tuple(num_outputs)
    policy = Policy(tasks, len(trunk.blocks), init_method, init_neg_logits, skip_layer)
    heads = {task: ASPP(trunk.out_channels, outputs, head_width) for task, outputs in num_outputs.items()}
    return MultiTaskNet(trunk, policy, heads, EXECUTIONS[execution])
