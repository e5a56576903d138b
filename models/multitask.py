"""The multi-task network: one backbone, one policy, one head per task."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.blocks import SharedBatchNorm, TaskBatchNorm, Turns, take_turns
from models.checkpointing import checkpoint_blocks, run_checkpointed, run_plainly, run_stem_checkpointed
from models.heads import ASPP, LinearHead
from models.policy import Policy
from models.resnet import ClassificationResNet, DilatedResNet, ResNet
from models.shared_paths import Gates, RunPaths, group_by_tensor, run_shared_paths
from models.task_by_task import run_task_by_task
from models.text_cnn import TextCNN
from utils.precision import PRECISIONS, at_least_float32, computing_in

EXECUTIONS: dict[str, RunPaths] = {"shared": run_shared_paths, "task_by_task": run_task_by_task}
"""`execution` of the configuration -> how the paths are run."""

Inputs = Tensor | dict[str, Tensor]
"""What all tasks look at together; or, where tasks have inputs of their own, what each looks at."""


class MultiTaskNet(nn.Module):
    """Images or texts -> {task: prediction}, every task on its own path through the shared blocks.

    Args:
        run_paths: how the paths are run.
        run_stem: called as `run_stem(stem, x, turns)`; how the stem is run.
        task_bn: whether every task has BatchNorms of its own.
        precision: what convolutions and matrix products work on.
    """

    def __init__(
        self,
        backbone: ResNet | TextCNN,
        policy: Policy,
        heads: Mapping[str, nn.Module],
        run_paths: RunPaths = run_shared_paths,
        run_stem: Callable[[nn.Module, Tensor, Turns], Tensor] = run_plainly,
        task_bn: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.run_paths = run_paths
        self.run_stem = run_stem
        self.task_bn = task_bn
        self.precision = precision
        self.backbone = backbone
        self.policy = policy
        self.heads = nn.ModuleDict(heads)

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks that a path executes or skips."""
        return len(self.backbone.blocks)

    def forward(self, inputs: Inputs, gates: Gates) -> dict[str, Tensor]:
        """Predict the tasks named in `gates`; each has one gate per block.

        Args:
            inputs: [N, 3, H, W], images, or int64 [N, T], texts, for all tasks; or {task: one of these}, where N may
                differ. Dense tasks: BGR in 0..255 minus the mean; classification: RGB, ImageNet's mean and deviation.

        Returns:
            task -> dense tasks: [N, num_outputs, h, w] with h = floor(ceil(H / 2) / 4) + 1, about H / 8, and w
            likewise; classification: [N, num_outputs]. Never of less precision than float32.
        """
        own = {task: inputs if isinstance(inputs, Tensor) else inputs[task] for task in gates}
        with computing_in(self.precision, next(iter(own.values())).device):
            features = self.run_paths(self.backbone.blocks, self._run_stem(own), gates)
            predictions = {task: self.heads[task](self.backbone.summarise(features[task], own[task])) for task in gates}
        return {task: at_least_float32(prediction) for task, prediction in predictions.items()}

    def _run_stem(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The stem's features of every task; tasks with a common input have them in common."""
        groups = [(x, [task]) for task, x in inputs.items()] if self.task_bn else group_by_tensor(inputs)
        all_turns = take_turns([tasks for _, tasks in groups], list(inputs))
        features: dict[str, Tensor] = {}
        for (x, tasks), turns in zip(groups, all_turns, strict=True):
            features |= dict.fromkeys(tasks, self.run_stem(self.backbone.stem, x, turns))
        return features


def build_network(
    *,
    backbone: str,
    num_outputs: dict[str, int],
    kind: str = "dense",
    backbone_width: int = 64,
    head_width: int = 1024,
    num_words: int = 20000,
    task_bn: bool = False,
    init_method: str = "equal",
    init_neg_logits: float | None = None,
    skip_layer: int = 0,
    execution: str = "shared",
    precision: str = "fp32",
    checkpointing: bool = False,
) -> MultiTaskNet:
    """A network, freshly initialised from torch's global generator, in channels-last memory.

    Args:
        backbone: a name in the `LAYOUTS` of `models.resnet`, for texts of `models.text_cnn`.
        num_outputs: task -> number of output channels or classes, in the order of the configuration.
        kind: "dense", "classification" or "text".
        head_width: hidden channels of a dense task's head.
        num_words: size of the vocabulary, for texts.
        task_bn: BatchNorms of its own for every task.
        precision: a name in `PRECISIONS`.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """
    tasks = tuple(num_outputs)
    norm = partial(TaskBatchNorm, tasks=tasks) if task_bn else SharedBatchNorm
    trunks = {
        "dense": partial(DilatedResNet, backbone, backbone_width, norm),
        "classification": partial(ClassificationResNet, backbone, backbone_width, norm),
        "text": partial(TextCNN, backbone, num_words, backbone_width, norm=norm),
    }
    run_paths, run_stem, run_branch = EXECUTIONS[execution], run_plainly, run_plainly
    if checkpointing:
        run_paths, run_stem, run_branch = checkpoint_blocks(run_paths), run_stem_checkpointed, run_checkpointed
    make_head = partial(ASPP, width=head_width, run_branch=run_branch) if kind == "dense" else LinearHead
    trunk = trunks[kind]()
    policy = Policy(tasks, len(trunk.blocks), init_method, init_neg_logits, skip_layer)
    heads = {task: make_head(trunk.out_channels, outputs) for task, outputs in num_outputs.items()}
    net = MultiTaskNet(trunk, policy, heads, run_paths, run_stem, task_bn, PRECISIONS[precision])
    # The order of memory in which convolutions of CPUs and GPUs are fastest.
    return net.to(memory_format=torch.channels_last)
