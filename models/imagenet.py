"""ImageNet's weights as the beginning of a ResNet: torchvision's key names -> ours."""

import re

import torch
from torch import Tensor

from models.resnet import ResNet

MEAN_RGB = (0.485, 0.456, 0.406)
DEVIATION_RGB = (0.229, 0.224, 0.225)
"""Of images in 0..1; what torchvision's ResNets, and ours for classification, expect to be normalised by."""

UNUSED = ("fc.weight", "fc.bias")
"""ImageNet's own classifier."""


def from_torchvision(state: dict[str, Tensor], backbone: ResNet) -> dict[str, Tensor]:
    """A torchvision ResNet's state dict -> the state dict of a backbone of the same layout.

    ResNet18 and 34 then compute what torchvision's do. ResNet50 and 101 begin with the same weights in a slightly
    different network: the first block of a stage has its stride in the first convolution (release), not the second.

    Every task's BatchNorm begins with ImageNet's (`task_bn`). Keys that the backbone does not have keep their name,
    and keys that the file does not have are absent, so that loading strictly names them.
    """
    own = backbone.state_dict()
    names = {key: _torchvision_name(key, backbone) for key in own}
    unknown = {key: value for key, value in state.items() if key not in {*names.values(), *UNUSED}}
    # Files from before PyTorch 0.4.1 do not count batches.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    return unknown | counters | {key: state[name] for key, name in names.items() if name in state}


def adapt_to_raw_images(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same backbone for images of dense tasks: BGR in 0..255 minus a mean, instead of normalised RGB.

    Its first convolution sees each channel divided by what the image is larger by. (The two means differ by less
    than 7 of 255, which BatchNorm takes up.)
    """
    weight = state["stem.conv.weight"]
    larger = 255 * torch.tensor(DEVIATION_RGB).to(weight)
    return state | {"stem.conv.weight": (weight / larger[:, None, None]).flip(1)}


def _torchvision_name(key: str, backbone: ResNet) -> str:
    key = re.sub(r"\.norms\.[^.]+\.", ".", key)
    if key.startswith("stem."):
        return key.removeprefix("stem.").replace("conv.", "conv1.").replace("bn.", "bn1.")
    _, index, branch, parameter = key.split(".", 3)
    stage, position = backbone.stage_and_position(int(index))
    if branch == "shortcut":
        parameter = "downsample." + parameter.replace("conv.", "0.").replace("bn.", "1.")
    return f"layer{stage + 1}.{position}.{parameter}"
