"""The three scripts, end to end, on rendered data in each format, and released checkpoints on the released layouts."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from dataloaders.rendered import write_cityscapes, write_domainnet, write_fdu_mtl, write_taskonomy
from envs.data import Data
from envs.evaluation import evaluate
from envs.experiment import configured_network, configured_tasks
from models.release import release_names
from tests.parity_inputs import policies
from tests.script_runs import ROOT, read, run_script, small_config
from tests.small_runs import StopAtCheck, same
from utils.checkpoint import load_checkpoint
from utils.interruption import Interruption

YAMLS = ROOT / "yamls" / "adashare"
CPU = torch.device("cpu")
SIZES = {"train": 8, "test": 3}
SIX_DOMAINS = ["photo", "painting", "cartoon", "sketch", "grey", "negative"]
SIX_SHELVES = ["books", "kitchen_housewares", "music", "electronics", "apparel", "software"]


def of_domains(names: list[str], num_classes: int) -> tuple[str, ...]:
    count = len(names)
    return (f"tasks={names}", f"tasks_num_class={[num_classes] * count}", f"lambdas={[1] * count}")


VALUES = {
    "cityscapes_2task": (),
    "taskonomy_5task": (),
    "domainnet": (*of_domains(SIX_DOMAINS, 7), "imagenet_pretrain=False"),
    "fdu_mtl": (*of_domains(SIX_SHELVES, 2), "dataload.num_words=60", "dataload.max_tokens=16"),
}
WRITE: dict[str, Callable[[Path], Path]] = {
    "cityscapes_2task": lambda folder: write_cityscapes(folder, SIZES, 48, 64, seed=5),
    "taskonomy_5task": lambda folder: write_taskonomy(folder, SIZES, 48, 64, seed=5),
    "domainnet": lambda folder: write_domainnet(folder, {"train": 14, "test": 7}, 32, 32, seed=5),
    "fdu_mtl": lambda folder: write_fdu_mtl(folder, {"train": 20, "test": 5}, seed=5),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """setting -> rendered data."""
    folders = {setting: tmp_path_factory.mktemp(setting) for setting in WRITE}
    for setting, folder in folders.items():
        WRITE[setting](folder)
    return folders


@pytest.mark.parametrize("setting", WRITE)
def test_the_three_phases_on_every_data_set(
    setting: str,
    roots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = (f"dataload.dataroot={roots[setting]}", *VALUES[setting])
    context = {"folder": tmp_path, "monkeypatch": monkeypatch, "capfd": capfd}
    config = YAMLS / f"{setting}.yml"
    tasks = list(small_config(config, *values).tasks)
    run_script("train.py", config=config, values=values, **context)
    run_script("re-train.py", "--exp_ids", "0", config=config, values=values, **context)
    trained = run_script("test.py", "--best", "--constant", "--pictures", "2", config=config, values=values, **context)
    # The shorter twin must find the same network.
    twin = YAMLS / f"{setting}_test.yml"
    tested = run_script("test.py", "--exp_ids", "0", "--pictures", "0", config=twin, values=values, **context)

    results = tmp_path / "result_dir" / setting
    assert list(read(results / "policy.json")["execution_probability"]) == tasks
    outcome = read(results / "test_rs0088.json")
    assert list(outcome["policy"]) == tasks
    inputs_per_sample = len(tasks) if setting in ("domainnet", "fdu_mtl") else 1
    assert outcome["num_samples"] == {"domainnet": 7, "fdu_mtl": 5}.get(setting, 3) * inputs_per_sample
    for protocol in ("release", "standard"):
        for task in tasks:
            assert None not in outcome["metrics"][protocol][task].values()
    assert "constant predictor" in trained
    assert "constant predictor" not in tested
    assert len(list(results.glob("pictures/*.png"))) == (0 if setting == "fdu_mtl" else 2)


STOPS = {
    "domainnet": (3, (*of_domains(SIX_DOMAINS[:2], 7), "backbone=ResNet18")),
    "fdu_mtl": (5, ("train.hard_sampling=True",)),
    "cityscapes_2task": (4, ("policy=False",)),
    "taskonomy_5task": (6, ("fix_BN=True", "train.init_method=random", "backbone=ResNet18")),
}
"""setting -> at which look for a signal its runs are stopped, and what is set beside `VALUES`."""


@pytest.mark.parametrize("setting", STOPS)
def test_every_data_set_goes_on_from_wherever_it_was_stopped(
    setting: str, roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Both scripts, stopped at every so-many-th look for a signal until they get to their end."""
    stop_at, values = STOPS[setting]
    lasting = ("train.total_iters=9", "train.save_freq=4", "train.print_freq=3")
    options = {"config": YAMLS / f"{setting}.yml", "monkeypatch": monkeypatch, "capfd": capfd}
    options["values"] = (f"dataload.dataroot={roots[setting]}", *VALUES[setting], *lasting, *values)
    scripts = {"train.py": (), "re-train.py": ("--exp_ids", "0", "1")}
    for name, arguments in scripts.items():
        run_script(name, *arguments, folder=tmp_path / "straight", **options)
    codes = []
    for name, arguments in scripts.items():
        while True:
            with monkeypatch.context() as patch:
                patch.setattr(Interruption, "check", StopAtCheck(stop_at).check)
                try:
                    run_script(name, *arguments, "--resume", folder=tmp_path / "stopped", **options)
                    break
                except SystemExit as stop:
                    codes.append(stop.code)
    assert set(codes) == {143}
    assert len(codes) >= 4
    straight, stopped = (left_by(tmp_path / name, setting) for name in ("straight", "stopped"))
    assert straight.keys() == stopped.keys()
    assert [name for name in straight if not same(straight[name], stopped[name])] == []


def left_by(folder: Path, setting: str) -> dict[str, Any]:
    """Checkpoints, but for the folders that they name, and metrics."""
    left: dict[str, Any] = {}
    for path in (folder / "checkpoint_dir" / setting).glob("*.pth.tar"):
        left[path.name] = load_checkpoint(path)
        del left[path.name]["config"]
    for path in (folder / "log_dir" / setting).rglob("metrics.jsonl"):
        left[str(path.relative_to(folder))] = path.read_text()
    return {name: content for name, content in left.items() if "previous" not in name}


def test_words_are_kept_with_the_checkpoint(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is learned from one shop's words is retrained and tested with these words, not with another shop's."""
    config, values = YAMLS / "fdu_mtl.yml", VALUES["fdu_mtl"]
    other = tmp_path / "other"
    write_fdu_mtl(other, {"train": 20, "test": 5}, seed=6)
    context = {"folder": tmp_path, "monkeypatch": monkeypatch, "capfd": capfd, "config": config}
    here, there = ((f"dataload.dataroot={root}", *values) for root in (roots["fdu_mtl"], other))
    run_script("train.py", values=here, **context)
    run_script("re-train.py", "--exp_ids", "0", values=there, **context)
    words = [
        torch.load(tmp_path / "checkpoint_dir" / "fdu_mtl" / f"{label}_model.pth.tar", weights_only=True)["vocabulary"]
        for label in ("warmup", "best", "retrain000_policyIterbest_best")
    ]
    small = small_config(config, *here)
    tasks = configured_tasks(small)
    learned, others = (
        Data(small_config(config, *values).dataload, tasks, 88, CPU, ["train"]).vocabulary for values in (here, there)
    )
    assert words == [learned] * 3
    assert learned != others


def test_images_of_ones_own_are_classified(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    values = (f"dataload.dataroot={roots['domainnet']}", *VALUES["domainnet"], "policy=False")
    context = {"folder": tmp_path, "monkeypatch": monkeypatch, "capfd": capfd, "config": YAMLS / "domainnet.yml"}
    run_script("train.py", values=values, **context)
    run_script("re-train.py", "--exp_ids", "0", values=values, **context)
    images = next((roots["domainnet"] / "photo").iterdir())
    run_script("test.py", "--images", str(images), values=values, **context)
    pictures = list((tmp_path / "result_dir" / "domainnet" / "pictures").iterdir())
    assert len(pictures) == len(list(images.iterdir()))


@pytest.mark.parametrize("script", ["train.py", "re-train.py"])
def test_networks_begin_with_imagenets_weights(
    script: str,
    roots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(6)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    values = (
        f"dataload.dataroot={roots['domainnet']}",
        *of_domains(SIX_DOMAINS, 7),
        "backbone=ResNet18",
        "backbone_width=64",
        "imagenet_pretrain=True",
        f"imagenet_weights={tmp_path / 'resnet18.pth'}",
        "train.warm_up_iters=1",  # so none before the policy
        "train.total_iters=2",
        "train.retrain_total_iters=1",
        "train.backbone_lr=1e-12",
    )
    context = {"folder": tmp_path, "monkeypatch": monkeypatch, "capfd": capfd, "config": YAMLS / "domainnet.yml"}
    run_script("train.py", values=values, **context)
    label = "warmup"
    if script == "re-train.py":
        run_script(script, "--exp_ids", "0", values=values, **context)
        label = "retrain000_policyIterbest_latest"
    path = tmp_path / "checkpoint_dir" / "domainnet" / f"{label}_model.pth.tar"
    state = torch.load(path, weights_only=True)["mtl-net"]
    torch.testing.assert_close(state["backbone.stem.conv.weight"], weights["conv1.weight"], rtol=0, atol=1e-6)
    key = "backbone.blocks.7.residual.bn2.norms.sketch.weight"
    torch.testing.assert_close(state[key], weights["layer4.1.bn2.weight"], rtol=0, atol=1e-6)


# Released checkpoints


@pytest.mark.parametrize(
    ("setting", "values", "size"),
    [
        ("cityscapes_2task", ("backbone=ResNet101", "tasks_num_class=[7, 1]", "dataload.small_res=True"), [128, 256]),
        ("taskonomy_5task", (), [256, 256]),
    ],
)
def test_a_released_checkpoint_is_evaluated_on_the_released_layout(
    setting: str,
    values: tuple[str, ...],
    size: list[int],
    roots: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = (f"dataload.dataroot={roots[setting]}", *values)
    twin = YAMLS / f"{setting}_test.yml"
    config = small_config(twin, *values)
    tasks = configured_tasks(config)
    torch.manual_seed(4)
    net = configured_network(config, tasks)
    gates = dict(zip(tasks, policies(7, len(tasks), net.num_blocks), strict=True))
    folder = tmp_path / "checkpoint_dir" / setting
    folder.mkdir(parents=True)
    released = {name: net.state_dict()[key] for key, name in release_names(net).items()}
    torch.save({"mtl-net": released, "iter": 20000}, folder / "retrain000_policyIterbest_best_model.pth.tar")
    one_hot = {
        f"task{number}_policy": torch.tensor([[gate, 1 - gate] for gate in path], dtype=torch.float32)
        for number, path in enumerate(gates.values(), start=1)
    }
    (folder / "policyIterbest_rs0088.pickle").write_bytes(pickle.dumps(one_hot))
    run_script(
        "test.py", "--exp_ids", "0", "--pictures", "1",
        config=twin, folder=tmp_path, values=values, monkeypatch=monkeypatch, capfd=capfd,
    )  # fmt: skip

    outcome = read(tmp_path / "result_dir" / setting / "test_rs0088.json")
    data = Data(config.dataload, tasks, 88, CPU, evaluation_splits=["test"])
    expected = evaluate(net, gates, data.evaluation("test", 1, whole=True), tasks)
    assert outcome["policy"] == gates
    assert outcome["num_samples"] == 3
    assert outcome["cost"]["input_size"] == size
    for protocol, of_tasks in expected.metrics.items():
        for task, metrics in of_tasks.items():
            assert outcome["metrics"][protocol][task] == pytest.approx(metrics, rel=1e-5), (protocol, task)
