"""What a lower precision does to the metrics of a test: of small networks that have learned from rendered rooms.

Each is retrained in float32 under gates of its own, with the network, the rates and the data of `make demo`, and is
tested in every precision with the same weights, on more rooms than there, for shares of few pixels to be sharp.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.comparison import Record
from benchmarks.settings import Settings
from benchmarks.work import policies
from dataloaders.rendered import write_nyu_v2
from envs.data import Data
from envs.evaluation import evaluate
from envs.experiment import configured_network, configured_tasks
from envs.optimisers import StepDecay, warm_up_optimiser
from envs.steps import training_mode, weight_step
from envs.tasks import Task
from models.inference import prepare_for_inference
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates
from utils.config import TrainingConfig, load_config
from utils.precision import allow_tf32
from utils.progress import progress_bar

DEMO = Path(__file__).parents[1] / "yamls" / "demo" / "rooms.yml"

FRAMES, FRAME_SIZE = {"train": 400, "test": 240}, (90, 120)
TINY_FRAMES, TINY_ITERATIONS = {"train": 10, "test": 2}, 2

PRECISIONS_OF_DEVICE = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}


def compare_metrics(seeds: range, settings: Settings) -> Record:
    """Train and test a network for each seed, of which weights and gates come.

    Returns:
        "frames", "size", "iterations"; "metrics": for each seed and metric, its name as `protocol/task/metric`, its
        value in each precision, and "differences" from float32, relative. No "metrics" where all lower precisions are
        slower here.
    """
    precisions = [name for name in PRECISIONS_OF_DEVICE[settings.device.type] if name not in settings.slow_rates]
    if precisions == ["fp32"]:
        return {"metrics": []}
    allow_tf32(False)
    frames = TINY_FRAMES if settings.tiny else FRAMES
    iterations = {"train.retrain_total_iters": TINY_ITERATIONS} if settings.tiny else {}
    with TemporaryDirectory() as folder:
        write_nyu_v2(folder, frames, *FRAME_SIZE, seed=0)
        values = {"dataload.dataroot": folder, "dataload.num_workers": 0, **iterations}
        config = load_config(DEMO, [f"{key}={value}" for key, value in values.items()])
        bar = progress_bar(seeds, "metrics: networks")
        metrics = [record for seed in bar for record in metrics_of_seed(config, seed, settings.device, precisions)]
    return {"frames": frames, "size": FRAME_SIZE, "iterations": config.train.retrain_iters, "metrics": metrics}


def metrics_of_seed(config: TrainingConfig, seed: int, device: torch.device, precisions: Sequence[str]) -> list[Record]:
    """One record of `compare_metrics` for each metric."""
    tasks = configured_tasks(config)
    data = Data(config.dataload, tasks, seed, device, ["train"], ["test"])
    torch.manual_seed(seed)
    net = configured_network(config, tasks).to(device)
    gates = dict(zip(tasks, policies(seed, len(tasks), net.num_blocks), strict=True))
    train(net, gates, config, data, tasks)
    values: dict[str, Mapping[str, float | None]] = {}
    for precision in precisions:
        config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
        other = configured_network(config, tasks).to(device)
        other.load_state_dict(net.state_dict())
        batches = data.evaluation("test", batch_size=1, whole=True)
        values[precision] = evaluate(prepare_for_inference(other, gates), gates, batches, tasks).flat()
    return [
        {
            "seed": seed,
            "metric": metric,
            **{precision: of_precision[metric] for precision, of_precision in values.items()},
            "differences": {
                precision: abs(of_precision[metric] - exact) / abs(exact) for precision, of_precision in values.items()
            },
        }
        for metric, exact in values["fp32"].items()
        if exact
    ]


def train(net: MultiTaskNet, gates: HardGates, config: TrainingConfig, data: Data, tasks: Mapping[str, Task]) -> None:
    """Retrain under fixed gates, as `envs.weight_training` does, without its files."""
    settings = config.train
    optimiser = warm_up_optimiser(net, settings.heads_lr, settings.backbone_lr)
    decay = StepDecay(optimiser, settings.heads_decay_lr, (settings.decay_lr_freq, settings.decay_lr_rate))
    loss_weights = dict(zip(config.tasks, config.lambdas, strict=True))
    training_mode(net, config.fix_BN)
    batches = data.training("train", settings.batch_size)
    for _ in progress_bar(range(settings.retrain_iters), "metrics: retraining"):
        weight_step(net, gates, next(batches), tasks, loss_weights, optimiser)
        decay.step()
