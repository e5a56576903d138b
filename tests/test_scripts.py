"""The three scripts, end to end, on a few small frames."""

import json
import os
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.parity_inputs import policies
from tests.parity_networks import parity, released_state
from tests.released_frames import RELEASED_FRAMES, needs_released_frames
from tests.script_runs import ROOT, SMALL, TWO_TASKS, Script, json_lines, read
from tests.small_runs import same
from utils.config import load_config

THREE_TASKS = ROOT / "yamls" / "adashare" / "nyu_v2_3task.yml"
ROOM = ROOT / "nyu_v2_samples" / "img" / "0000000.png"
TWO_TASKS_TEST = ROOT / "yamls" / "adashare" / "nyu_v2_2task_test.yml"
THREE_TASKS_TEST = ROOT / "yamls" / "adashare" / "nyu_v2_3task_test.yml"


def check_sequence(folder: Path, output: dict[str, str], tasks: dict[str, int], num_images: int) -> None:
    """All files of the three phases are there and say what the README promises."""
    name = f"nyu_v2_{len(tasks)}task"
    logs, checkpoints, results = (folder / part / name for part in ("log_dir", "checkpoint_dir", "result_dir"))
    for label in ("warmup", "latest", "best", "retrain000_policyIterbest_latest", "retrain001_policyIterbest_best"):
        checkpoint = torch.load(checkpoints / f"{label}_model.pth.tar", weights_only=True)
        assert {"mtl-net", "iter", "temp", "optimisers", "random_states"} <= checkpoint.keys()
    assert load_config(checkpoints / "config.yml").train.batch_size == 2
    assert any(logs.glob("events.out.tfevents.*"))

    history = json_lines(logs / "metrics.jsonl")
    kinds = {line["kind"] for line in history}
    assert kinds == {"weights", "policy", "evaluation", "execution_probability"}
    steps = [line["iteration"] for line in history if line["kind"] in ("weights", "policy")]
    assert steps == list(range(1, 26)), "every iteration once, in order"
    policy_step = next(line for line in history if line["kind"] == "policy")
    assert {"loss/seg", "weighted/sn", "loss/sparsity", "weighted/sharing", "temperature", "open_blocks"} <= set(
        policy_step
    )
    assert policy_step["weighted/sn"] == pytest.approx(20 * policy_step["loss/sn"])
    opened = [line["open_blocks"] for line in history if line["kind"] == "policy"]
    assert opened == [min(period + 1, 8) for period in range(len(opened))]

    probabilities = read(results / "policy.json")["execution_probability"]
    assert {task: len(row) for task, row in probabilities.items()} == dict.fromkeys(tasks, 8)
    assert (results / "policy.png").is_file()
    assert "P(execute) after policy period 1" in output["train.py"]
    assert "next     python re-train.py" in output["train.py"]

    summary = read(results / "retrain.json")
    assert [run["seed"] for run in summary["runs"]] == [88, 45]
    for run in summary["runs"]:
        assert run.keys() >= {"gates", "score", "metrics", "best_iteration", "cost"}
        assert run["gates"] == read(checkpoints / f"policyIterbest_rs{run['seed']:04d}.json")
    scores = [run["score"] for run in summary["runs"]]
    assert summary["mean"]["score"] == pytest.approx(np.mean(scores))
    assert summary["std"]["score"] == pytest.approx(np.std(scores, ddof=1))
    assert summary["best"]["score"] == max(scores)
    assert "mean" in output["re-train.py"]

    tested = read(results / "test_rs0088.json")
    assert tested.keys() >= {"checkpoint", "iteration", "num_samples", "policy", "metrics", "cost"}
    assert tested["num_samples"] == num_images
    assert tested["policy"] == summary["runs"][0]["gates"]
    assert tested["arithmetic"] == {"precision": "fp32", "tf32": False, "compile": False}
    assert tested["metrics"]["release"].keys() == tested["metrics"]["standard"].keys() == set(tasks)
    assert {"mIoU", "Pixel Acc", "err"} <= tested["metrics"]["standard"]["seg"].keys()
    assert tested["metrics"]["standard"]["sn"] is None
    assert "does not determine the normal" in output["test.py"]
    assert 0 < tested["cost"]["together"]["relative_to_single_task"]["parameters"] < 1
    assert len(list((results / "pictures").glob("test_rs0088_*.png"))) == num_images
    assert not list(folder.rglob("*.tmp")), "nothing half-written is left"


def check_readme_python(folder: Path) -> None:
    """The README's lines for Python predict what the network, not prepared, predicts."""
    (lines,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    places = {"runs/checkpoints/nyu_v2_3task": folder / "checkpoint_dir" / "nyu_v2_2task", "room.png": ROOM}
    for place, here in places.items():
        assert lines.count(f'"{place}"') == 1
        lines = lines.replace(place, str(here))
    names: dict[str, Any] = {}
    exec(lines, names)
    with torch.inference_mode():
        expected = names["net"].eval()(names["image"][None], names["gates"])
    assert {task: tuple(x.shape) for task, x in expected.items()} == {"seg": (1, 40, 61, 81), "sn": (1, 3, 61, 81)}
    for task, prediction in names["predictions"].items():
        torch.testing.assert_close(prediction, expected[task], rtol=1e-4, atol=1e-4 * expected[task].abs().max().item())


def test_the_three_phases_in_sequence(script: Script, tmp_path: Path) -> None:
    output = {"train.py": script("train.py")}
    output["re-train.py"] = script("re-train.py", "--exp_ids", "0", "1")
    output["test.py"] = script("test.py", "--exp_ids", "0")
    check_sequence(tmp_path, output, {"seg": 40, "sn": 3}, num_images=3)
    check_readme_python(tmp_path)


@needs_released_frames
def test_the_three_phases_on_real_frames(script: Script, tmp_path: Path) -> None:
    values = (f"dataload.dataroot={RELEASED_FRAMES}",)
    output = {"train.py": script("train.py", values=values)}
    assert "its 4 frames serve as train and as test" in output["train.py"]
    output["re-train.py"] = script("re-train.py", "--exp_ids", "0", "1", values=values)
    output["test.py"] = script("test.py", "--exp_ids", "0", values=values)
    check_sequence(tmp_path, output, {"seg": 40, "sn": 3}, num_images=4)


def test_the_same_seed_gives_the_same_losses_to_the_last_bit(script: Script, tmp_path: Path) -> None:
    histories = []
    for workers in (0, 2):
        values = (f"dataload.num_workers={workers}", "backbone=ResNet18")
        script("train.py", "--overwrite", config=THREE_TASKS, values=values)
        histories.append((tmp_path / "log_dir" / "nyu_v2_3task" / "metrics.jsonl").read_text())
    assert histories[0] == histories[1]
    script("train.py", "--overwrite", config=THREE_TASKS, values=("seed=[89]", "backbone=ResNet18"))
    other = (tmp_path / "log_dir" / "nyu_v2_3task" / "metrics.jsonl").read_text()
    assert other != histories[0]


def test_retraining_twice_gives_the_same_losses_to_the_last_bit(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=4",))
    history = tmp_path / "log_dir" / "nyu_v2_2task" / "retrain001" / "metrics.jsonl"
    script("re-train.py", "--exp_ids", "0", "1")
    after_another = history.read_text()
    script("re-train.py", "--exp_ids", "1", "--overwrite")
    assert history.read_text() == after_another


def test_different_seeds_give_different_architectures(script: Script, tmp_path: Path) -> None:
    script("train.py")
    script("re-train.py", "--exp_ids", "0", "1", "2", values=("train.retrain_total_iters=1",))
    runs = read(tmp_path / "result_dir" / "nyu_v2_2task" / "retrain.json")["runs"]
    assert len({str(run["gates"]) for run in runs}) == 3
    script("re-train.py", "--exp_ids", "1", "--overwrite", values=("train.retrain_total_iters=1",))
    again = read(tmp_path / "result_dir" / "nyu_v2_2task" / "retrain.json")["runs"]
    assert [run["gates"] for run in again] == [run["gates"] for run in runs]
    assert again[1]["score"] == runs[1]["score"]


def test_an_early_end_still_leaves_a_best_policy(script: Script, tmp_path: Path) -> None:
    output = script("train.py", values=("train.total_iters=6",))
    assert "the final state becomes best" in output
    best = torch.load(tmp_path / "checkpoint_dir" / "nyu_v2_2task" / "best_model.pth.tar", weights_only=True)
    assert best["iter"] == 6
    script("re-train.py", "--exp_ids", "0")


@pytest.mark.parametrize(
    "values",
    [
        ("train.hard_sampling=True",),
        ("fix_BN=True", "skip_layer=2"),
        ("train.init_method=all_chosen", "init_neg_logits=-2", "train.init_temp=1"),
        ("train.init_method=random", "is_curriculum=False"),
        ("sparsity_loss=paper", "sharing_loss=paper"),
        ("is_sparse=False", "is_sharing=False"),
        ("dataload.normals=decoded", "dataload.augmentation=geometric", "dataload.validation=held_out"),
        ("train.policy_decay_lr_freq=2", "train.policy_decay_lr_rate=0.5", "train.fc_lr=0.01"),
        ("execution=task_by_task", "retrain_from_pl=True"),
        ("backbone=ResNet50",),
        ("train.weight_iter_alternate=null", "train.alpha_iter_alternate=null", "train.eval_batches=null"),
    ],
    ids=lambda values: values[0],
)
def test_every_switch_runs_through(script: Script, tmp_path: Path, values: tuple[str, ...]) -> None:
    shorter = (*values, "train.total_iters=8", "train.retrain_total_iters=1")
    script("train.py", values=shorter)
    script("re-train.py", "--exp_ids", "0", values=shorter)
    script("test.py", "--exp_ids", "0", values=shorter)
    tested = read(tmp_path / "result_dir" / "nyu_v2_2task" / "test_rs0088.json")
    assert (tested["metrics"]["standard"]["sn"] is not None) == ("dataload.normals=decoded" in values)
    if "skip_layer=2" in values:
        assert all(gates[:2] == [1, 1] for gates in tested["policy"].values())


def test_without_a_policy_every_task_executes_every_block(script: Script, tmp_path: Path) -> None:
    values = ("policy=False", "train.total_iters=4")
    script("train.py", values=values)
    script("re-train.py", "--exp_ids", "0", values=values)
    runs = read(tmp_path / "result_dir" / "nyu_v2_2task" / "retrain.json")["runs"]
    assert runs[0]["gates"] == {"seg": [1] * 8, "sn": [1] * 8}


def test_the_policy_phase_can_start_from_a_warm_up(script: Script, tmp_path: Path) -> None:
    script("train.py", values=("train.total_iters=6",))
    checkpoints = tmp_path / "checkpoint_dir" / "nyu_v2_2task"
    warm = torch.load(checkpoints / "warmup_model.pth.tar", weights_only=True)["mtl-net"]
    fresh = ("train.total_iters=4", "train.resume=True", "train.init_method=random", "skip_layer=1")
    script("train.py", "--overwrite", values=fresh)
    assert same(torch.load(checkpoints / "warmup_model.pth.tar", weights_only=True)["mtl-net"], warm)
    history = json_lines(tmp_path / "log_dir" / "nyu_v2_2task" / "metrics.jsonl")
    assert [line["iteration"] for line in history if line["kind"] in ("weights", "policy")] == [1, 2, 3, 4]
    learned = torch.load(checkpoints / "best_model.pth.tar", weights_only=True)["mtl-net"]
    assert not torch.equal(learned["policy.logits.seg"], warm["policy.logits.seg"]), "fresh logits"
    stems = [state["backbone.stem.conv.weight"].flatten() for state in (learned, warm)]
    assert not torch.equal(*stems)
    assert torch.cosine_similarity(*stems, dim=0) > 0.5, "one step away from the warm-up's weights"


def test_weights_are_not_run_under_other_gates(script: Script, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    script("train.py", values=("train.total_iters=4",))
    script("re-train.py", "--exp_ids", "0")
    gates = tmp_path / "checkpoint_dir" / "nyu_v2_2task" / "policyIterbest_rs0088.json"
    gates.write_text(json.dumps({"seg": [1] * 8, "sn": [0] * 8}))
    with pytest.raises(SystemExit) as stop:
        script("test.py", "--exp_ids", "0")
    assert stop.value.code == 2
    assert "other gates" in capfd.readouterr().err


def test_own_images_and_the_constant_predictor(script: Script, tmp_path: Path, rooms: Path) -> None:
    decoded = ("dataload.normals=decoded", "train.total_iters=6")
    script("train.py", values=decoded)
    script("re-train.py", "--exp_ids", "0", values=decoded)
    output = script("test.py", "--best", "--constant", "--pictures", "1", values=decoded)
    assert "constant predictor" in output
    results = tmp_path / "result_dir" / "nyu_v2_2task"
    constant = read(results / "test_rs0088.json")["constant_predictor"]
    assert constant["standard"]["seg"]["Pixel Acc"] > 0
    assert [path.name for path in (results / "pictures").iterdir()] == ["test_rs0088_000_1000000.png"]
    script("test.py", "--images", str(rooms / "img"), values=decoded)
    assert len(list((results / "pictures").glob("images_rs0088_*.png"))) == len(list((rooms / "img").iterdir()))


BAD_INPUT = {
    "a misspelt key": ("train.py", ["train.batchsize=2"], "did you mean train.batch_size"),
    "a wrong type": ("train.py", ["train.lr=fast"], "train.lr"),
    "unequal lists": ("train.py", ["lambdas=[1]"], "lambdas"),
    "no data root": ("train.py", ["dataload.dataroot=nowhere"], "nowhere"),
    "an unknown task": ("train.py", ["tasks=[seg, pose]"], "pose"),
    "wrong channels": ("train.py", ["tasks_num_class=[40, 4]"], "tasks_num_class"),
    "an unknown data set": ("train.py", ["dataload.dataset=Cityscape"], "choose one of NYU_v2, CityScapes"),
    "another data set's root": (
        "train.py",
        ["dataload.dataset=CityScapes", "tasks=[seg, depth]", "tasks_num_class=[19, 1]"],
        "cityscape.json",
    ),
    "another kind of policy": ("train.py", ["policy_model=instance-specific"], "policy_model"),
    "a network for texts": ("train.py", ["backbone=VDCNN9"], "VDCNN9 does not fit NYU_v2"),
    "no crops": ("train.py", ["dataload.crop_h=null", "dataload.crop_w=null"], "dataload.crop_h"),
    "a log folder that is a file": ("train.py", [f"paths.log_dir={ROOT / 'README.md'}"], "README.md"),
    "a results folder that is a file": ("re-train.py", [f"paths.result_dir={ROOT / 'README.md'}"], "README.md"),
    "no policy to sample": ("re-train.py", [], "best_model.pth.tar"),
    "no architecture to test": ("test.py", [], "policyIterbest_rs0088.json"),
    "no warm-up to start from": ("train.py", ["train.resume=True"], "warmup_model.pth.tar"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_before_any_work(
    case: str, script: Script, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, values, said = BAD_INPUT[case]
    with pytest.raises(SystemExit) as stop:
        script(name, values=tuple(values))
    assert stop.value.code == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("*.pth.tar"))
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_split_file_that_names_missing_files(script: Script, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    root = tmp_path / "data"
    root.mkdir()
    split = [["img/1.png", "seg/1.png", "normal_mask/1.png", "depth/1.npy"]]
    (root / "nyu_v2_3task.json").write_text(json.dumps({"train": split * 2, "test": split}))
    with pytest.raises(SystemExit) as stop:
        script("train.py", values=(f"dataload.dataroot={root}",))
    assert stop.value.code == 2
    assert "img/1.png" in capfd.readouterr().err


def test_bad_input_of_the_later_phases(script: Script, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    script("train.py", values=("train.total_iters=4",))
    refused = [
        ("re-train.py", ["--exp_ids", "0", "9"], (), "exp_ids 9"),
        ("re-train.py", ["--exp_ids", "-1"], (), "exp_ids -1"),
        ("re-train.py", ["--exp_ids", "0"], ("dataload.dataroot=nowhere",), "nowhere"),
        ("re-train.py", ["--exp_ids", "0"], ("backbone_width=8",), "backbone.blocks.0"),
        ("test.py", ["--exp_ids", "0", "9"], (), "exp_ids 9"),
        ("test.py", ["--best"], (), "retrain.json"),
        ("test.py", ["--best", "--exp_ids", "0"], (), "not allowed with"),
        ("test.py", ["--pictures", "-1"], (), "--pictures"),
    ]
    for name, arguments, values, said in refused:
        with pytest.raises(SystemExit) as stop:
            script(name, *arguments, values=values)
        assert stop.value.code == 2
        error = capfd.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert not list((tmp_path / "checkpoint_dir").rglob("policyIter*")), "no gates before the input is sound"


def released_files(folder: Path, setting: str, **policies: Any) -> None:
    """A checkpoint and a policy in the released form, for exp_id 0 and seed 88."""
    folder = folder / "checkpoint_dir" / setting
    folder.mkdir(parents=True)
    checkpoint = {"mtl-net": released_state(setting), "iter": 20000, "temp": 1.0}
    torch.save(checkpoint, folder / "retrain000_policyIterbest_best_model.pth.tar")
    (folder / "policyIterbest_rs0088.pickle").write_bytes(pickle.dumps(policies))


def one_hot(gates: list[int]) -> torch.Tensor:
    return torch.tensor([[gate, 1 - gate] for gate in gates], dtype=torch.float32)


@needs_released_frames
def test_a_released_checkpoint_gives_the_released_metrics(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.cost_report.measure_seconds", lambda *_: 0.0)  # would take longer than the frames
    gates = policies(7, 3, 16)
    released_files(tmp_path, "nyu_v2_3task", **{f"task{k}_policy": one_hot(path) for k, path in enumerate(gates, 1)})
    full_size = (f"dataload.dataroot={RELEASED_FRAMES}", "backbone_width=64", "head_width=1024")
    script("test.py", "--exp_ids", "0", "--pictures", "0", config=THREE_TASKS_TEST, values=full_size)
    tested = read(tmp_path / "result_dir" / "nyu_v2_3task" / "test_rs0088.json")
    assert tested["iteration"] == 20000
    assert list(tested["policy"].values()) == gates
    for task, metrics in parity("sample_frames").items():
        for metric, value in metrics.items():
            assert tested["metrics"]["release"][task][metric] == pytest.approx(value, rel=1e-4), metric


class Hostile:
    """Unpickles into a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_policy_is_refused_and_not_run(script: Script, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    mark = tmp_path / "it-ran"
    released_files(tmp_path, "nyu_v2_2task", task1_policy=one_hot([1] * 8), task2_policy=Hostile(mark))
    full_size = ("backbone_width=64", "head_width=1024")
    with pytest.raises(SystemExit) as stop:
        script("test.py", "--exp_ids", "0", config=TWO_TASKS_TEST, values=full_size)
    assert stop.value.code == 2
    error = capfd.readouterr().err
    assert "policyIterbest_rs0088.pickle" in error
    assert "tensors and nothing else" in error
    assert not mark.exists()


@pytest.mark.parametrize("name", ["train.py", "re-train.py", "test.py"])
def test_help_explains(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    assert stop.value.code == 0
    text = capfd.readouterr().out
    assert all(option in text for option in ("--config", "--gpus", "--set"))


def test_as_a_command_without_cuda_it_falls_back_to_the_cpu(tmp_path: Path, rooms: Path) -> None:
    """One real process: the GPU is asked for, the exit code is that of a user's error."""
    config = yaml.safe_load(TWO_TASKS.read_text())
    config["exp_name"] = "alone"
    (tmp_path / "alone.yml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "re-train.py", "--config", str(tmp_path / "alone.yml"), "--gpus", "0", "--exp_ids", "0"]
    folders = [f"paths.checkpoint_dir={tmp_path}", f"dataload.dataroot={rooms}"]
    command += ["--set", *SMALL, *folders]
    without_gpus = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=without_gpus, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("device: CPU, ")
    assert "since PyTorch finds no CUDA device" in done.stdout
    assert done.stderr.count("\n") == 1
