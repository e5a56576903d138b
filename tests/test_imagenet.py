"""ImageNet's weights: the same features as torchvision's network, for classification and for dense tasks."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from envs.pretrained import begin_with_imagenet, imagenet_state
from models.imagenet import DEVIATION_RGB, MEAN_RGB
from models.multitask import MultiTaskNet, build_network
from models.shared_paths import all_blocks
from utils.errors import UserError

TASKS = {"real": 5, "sketch": 5}


def theirs(name: str) -> nn.Module:
    """A network of torchvision's with norms that matter."""
    torch.manual_seed(0)
    net = getattr(torchvision.models, name.lower())(weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def ours(name: str, kind: str = "classification", task_bn: bool = False) -> MultiTaskNet:
    return build_network(kind=kind, backbone=name, num_outputs=TASKS, head_width=4, task_bn=task_bn).eval()


def features_of(net: MultiTaskNet, image: Tensor) -> dict[str, Tensor]:
    """What the heads receive."""
    net.heads = nn.ModuleDict({task: nn.Identity() for task in TASKS})
    return net(image, all_blocks(TASKS, net.num_blocks))


@torch.no_grad()
@pytest.mark.parametrize("task_bn", [True, False])
@pytest.mark.parametrize("name", ["ResNet18", "ResNet34"])
def test_every_task_begins_with_torchvisions_features(name: str, task_bn: bool) -> None:
    source, net, image = theirs(name), ours(name, task_bn=task_bn), torch.randn(2, 3, 64, 96)
    begin_with_imagenet(net, source.state_dict())
    source.fc = nn.Identity()
    # In float64, since both lay out their memory differently, and so add up in other orders.
    expected = source.double()(image.double())
    for features in features_of(net.double(), image.double()).values():
        torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_dense_networks_see_raw_images_as_torchvision_sees_normalised_ones() -> None:
    source, net = theirs("ResNet18"), ours("ResNet18", kind="dense")
    begin_with_imagenet(net, source.state_dict())
    rgb = torch.rand(1, 3, 32, 32)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN_RGB, DEVIATION_RGB))
    normalised = (rgb - mean) / deviation
    raw = (255 * (rgb - mean)).flip(1)  # BGR in 0..255 minus the mean
    torch.testing.assert_close(net.backbone.stem.conv(raw), source.conv1(normalised), rtol=1e-4, atol=1e-5)


def test_bottlenecks_find_all_their_weights_though_their_strides_differ() -> None:
    source, net = theirs("ResNet50").state_dict(), ours("ResNet50")
    begin_with_imagenet(net, source)
    torch.testing.assert_close(net.backbone.blocks[3].residual.conv3.weight, source["layer2.0.conv3.weight"])
    torch.testing.assert_close(net.backbone.blocks[0].shortcut.bn.weight, source["layer1.0.downsample.1.weight"])


def test_files_that_do_not_count_batches_are_whole() -> None:
    """Files may be older than that counter."""
    source = theirs("ResNet18").state_dict()
    without_counters = {key: value for key, value in source.items() if "num_batches" not in key}
    assert len(without_counters) == 102
    net = ours("ResNet18")
    begin_with_imagenet(net, without_counters)
    torch.testing.assert_close(net.backbone.stem.conv.weight, source["conv1.weight"])


def test_weights_of_another_layout_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"checkpoint of ImageNet does not fit .*missing.*blocks\.10"):
        begin_with_imagenet(ours("ResNet34"), theirs("ResNet18").state_dict())


def test_a_file_is_read_and_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = theirs("ResNet18").state_dict()
    torch.save(state, path)
    torch.testing.assert_close(dict(imagenet_state("ResNet18", path)), dict(state), rtol=0, atol=0)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match=r"weights\.pth must be a state dict"):
        imagenet_state("ResNet18", path)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"weights\.pth cannot be read"):
        imagenet_state("ResNet18", path)
    with pytest.raises(UserError, match=r"missing\.pth do not exist"):
        imagenet_state("ResNet18", tmp_path / "missing.pth")


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"resnet34.*no network.*imagenet_weights=FILE"):
        imagenet_state("ResNet34", None)
