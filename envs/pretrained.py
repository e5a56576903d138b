"""ImageNet's weights, from a file or from torchvision's own download, as the beginning of a run."""

from pathlib import Path
from urllib.error import URLError

from torch import Tensor

from models.imagenet import adapt_to_raw_images, from_torchvision
from models.multitask import MultiTaskNet
from models.resnet import DilatedResNet
from utils.checkpoint import load_state, load_weights
from utils.errors import UserError


def imagenet_state(backbone: str, path: Path | None) -> dict[str, Tensor]:
    """The state dict of torchvision's ResNet of this name.

    Args:
        path: a file of torchvision's; None downloads it to torch's cache, or takes it from there.

    Raises:
        UserError: the file is missing or holds something else, or the download failed.
    """
    if path is not None:
        return load_state(path)
    import torchvision  # here, for it takes as long to import as everything else, and most runs do not need it

    weights = torchvision.models.get_model_weights(backbone.lower()).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"ImageNet's weights cannot be downloaded from {weights.url} ({error}): fetch the file yourself and name "
            "it with --set imagenet_weights=FILE, or set imagenet_pretrain=False"
        ) from error


def begin_with_imagenet(net: MultiTaskNet, state: dict[str, Tensor]) -> None:
    """Put ImageNet's weights into the backbone, under every task's BatchNorm where tasks have their own.

    Raises:
        UserError: the state is not of the backbone's layout.
    """
    ours = from_torchvision(state, net.backbone)
    if isinstance(net.backbone, DilatedResNet) and "stem.conv.weight" in ours:
        ours = adapt_to_raw_images(ours)
    load_weights(net.backbone, ours, "of ImageNet")
