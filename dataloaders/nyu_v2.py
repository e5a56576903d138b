"""NYU v2 in the released format: classes, surface normals and depth (480x640; 795 train, 654 test frames).

A data root holds `nyu_v2_3task.json`: {split: [[img, seg, normal, depth], ...]}, paths relative to the root
or absolute; splits train, test and, where given, train1 and train2 (the parts that weights and policy learn
from) and val. Without that file it holds folders img/ seg/ normal_mask/ depth/, whose common names are one
split for everything. The files of a frame:

- img      png, BGR once read
- seg      png, one channel, classes 0..39, 255 = ignore
- normal   png, (n + 1) / 2 * 255, (255, 255, 255) = ignore; red, OpenCV's last channel, is horizontal
- depth    npy, float32 metres [H, W], at most 3e-5 = not measured
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from dataloaders.loading import Key, keyed_generator
from dataloaders.options import DataOptions
from dataloaders.splits import Splits, complete_splits
from dataloaders.transforms import AUGMENTATIONS, Sample, channels_first, labelled_normals, subtract_mean
from utils.errors import UserError
from utils.files import read_json

SPLIT_FILE = "nyu_v2_3task.json"
FILES_OF_A_FRAME = ("img", "seg", "normal", "depth")
FOLDERS = {"img": "img/*.png", "seg": "seg/*.png", "normal": "normal_mask/*.png", "depth": "depth/*.npy"}

SMALLEST_DEPTH = 3e-5

Frame = dict[str, Path]


class NYUv2(Dataset):
    """One split of NYU v2: key (pass number, index) -> sample, a dict of arrays and the frame's name.

    - "img"           float32 [3, H, W], BGR, 0..255 minus the mean
    - "seg"           int64 [H, W], 0..39, 255 = ignore
    - "normal"        float32 [3, H, W]; `normals="release"`: 0..255 as in the file, ignored pixels 255;
                      "decoded": components in [-1, 1], ignored pixels 0
    - "normal_valid"  bool [1, H, W], False where the file is white
    - "depth"         float32 [1, H, W], metres
    - "depth_valid"   bool [1, H, W], depth > 3e-5
    - "name"          str

    Args:
        dataroot: folder with `nyu_v2_3task.json`, or with img/ and one folder per target.
        split: "train", "train1", "train2", "test" or "val".
        targets: any of "seg", "normal", "depth"; files of other targets are neither read nor needed.
        crop_size, augmentation: (height, width) and a name in `AUGMENTATIONS`, for training; both None for
            whole frames as they are.
        normals: "release" or "decoded".
        seed: key of the augmentation's draws, together with split, pass number and index.
        validation: "test", the release's choice, makes "val" the test split; "held_out" makes it the split
            file's own, or a tenth of train that no training split then contains.

    Attributes:
        frames: the paths of every frame.
        notes: sentences the user should read, if the data root leaves something to be assumed.

    Raises: UserError for everything about the data root that can be known before a frame is opened, and, when
    one is fetched, for files that cannot be read or do not fit each other.
    """

    def __init__(
        self,
        dataroot: str | Path,
        split: str,
        targets: Sequence[str],
        crop_size: tuple[int, int] | None = None,
        augmentation: str | None = None,
        normals: str = "release",
        seed: int = 0,
        validation: str = "test",
    ):
        if (crop_size is None) != (augmentation is None):
            raise ValueError("crop_size and augmentation belong together: give both or neither")
        splits = resolve_splits(Path(dataroot), targets, validation)
        self.frames = splits.members_of(split)
        refuse_missing(self.frames, split, splits.source)
        self.notes = splits.notes
        self.split = split
        self.seed = seed
        self.augment = AUGMENTATIONS[augmentation](crop_size) if augmentation else None
        self.encoders = ENCODERS | {"normal": NORMAL_ENCODERS[normals]}

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | str]:
        pass_number, index = key
        frame = self.frames[index]
        sample = read_frame(frame)
        if self.augment:
            sample = self.augment(sample, keyed_generator(self.seed, self.split, pass_number, index))
        encoded: dict[str, np.ndarray | str] = {"name": frame["img"].stem}
        for name, array in sample.items():
            encoded |= self.encoders[name](array)
        return encoded


def open_nyu_v2(options: DataOptions, split: str, training: bool) -> NYUv2:
    """A split of NYU v2 as a run asks for it: augmented for training, whole frames else."""
    return NYUv2(
        options.dataroot,
        split,
        tuple(options.targets),
        crop_size=options.required_crop_size if training else None,
        augmentation=options.augmentation if training else None,
        normals=options.normals,
        seed=options.seed,
        validation=options.validation,
    )


# Which frames form a split


def resolve_splits(dataroot: Path, targets: Sequence[str], validation: str = "test") -> Splits[Frame]:
    """The splits train, train1, train2, test and val of a data root, each frame with "img" and `targets`.

    What the data root does not say is completed: train1 and train2 are 80 % and 20 % of train, val follows
    `validation` ("test" or "held_out"), and a folder without split file is train and test at once.

    Raises: UserError if the data root or its folders are missing, or the split file is not of its form.
    """
    if not dataroot.is_dir():
        raise UserError(
            f"the data root {dataroot} is not a folder: give the one that holds {SPLIT_FILE} (or img/ seg/ "
            "normal_mask/ depth/) with --set dataload.dataroot=FOLDER"
        )
    wanted = ("img", *targets)
    split_file = dataroot / SPLIT_FILE
    listed = read_split_file(split_file, wanted) if split_file.is_file() else list_folders(dataroot, wanted)
    return complete_splits(listed, validation)


def read_split_file(path: Path, wanted: Sequence[str]) -> Splits[Frame]:
    """The splits as `nyu_v2_3task.json` lists them, with the files in `wanted` of each frame."""
    listed = read_json(path)
    form = "{split: [[img, seg, normal, depth], ...]}"
    if not isinstance(listed, dict):
        raise UserError(f"{path} holds a {type(listed).__name__}, but must be of the form {form}: rewrite it")
    frames: dict[str, list[Frame]] = {}
    for split, rows in listed.items():
        if not isinstance(rows, list):
            raise UserError(f"split {split!r} of {path} is not a list, but must be of the form {form}: rewrite it")
        for number, row in enumerate(rows):
            if not _is_row(row):
                raise UserError(
                    f"frame {number} of split {split!r} of {path} is not a list of the "
                    f"{len(FILES_OF_A_FRAME)} paths {', '.join(FILES_OF_A_FRAME)}: correct it"
                )
        paths = [dict(zip(FILES_OF_A_FRAME, row, strict=True)) for row in rows]
        frames[split] = [{name: path.parent / row[name] for name in wanted} for row in paths]
    return Splits(path, frames)


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == len(FILES_OF_A_FRAME) and all(isinstance(path, str) for path in row)


def list_folders(dataroot: Path, wanted: Sequence[str]) -> Splits[Frame]:
    """The frames whose name stands in every wanted folder, in the order of their names, as train and test."""
    files = {name: {path.stem: path for path in sorted(dataroot.glob(FOLDERS[name]))} for name in wanted}
    names = [stem for stem in files["img"] if all(stem in files[name] for name in wanted)]
    if not names:
        found = ", ".join(f"{len(files[name])} in {FOLDERS[name]}" for name in wanted)
        raise UserError(
            f"{dataroot} has neither {SPLIT_FILE} nor a frame whose name stands in all the folders needed "
            f"(files: {found}): give the right folder with --set dataload.dataroot=FOLDER"
        )
    frames = [{name: files[name][stem] for name in wanted} for stem in names]
    notes = [f"{dataroot} has no {SPLIT_FILE}: its {len(frames)} frames serve as train and as test"]
    unlabelled = len(files["img"]) - len(frames)
    if unlabelled:
        notes.append(f"{unlabelled} images of {dataroot} lack a target and are left out")
    return Splits(dataroot, {"train": frames, "test": frames}, tuple(notes))


def refuse_missing(frames: Sequence[Frame], split: str, source: Path) -> None:
    """Raise a `UserError` that counts the files that do not exist and names the first ones."""
    missing = [str(path) for frame in frames for path in frame.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} files that split {split!r} of {source} names do not exist "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): "
            "put them there or correct the paths, which are relative to the data root"
        )


# Files -> sample


def read_frame(frame: Frame) -> Sample:
    """The arrays of one frame as `dataloaders.transforms` describes them.

    Raises: UserError if a file cannot be read, is not of its form, or differs in size from the image.
    """
    sample = {name: READERS[name](path) for name, path in frame.items()}
    size = sample["img"].shape[:2]
    for name, array in sample.items():
        if array.shape[:2] != size:
            raise UserError(
                f"{frame[name]} is {array.shape[0]}x{array.shape[1]} pixels, but its image {frame['img']} is "
                f"{size[0]}x{size[1]}: bring both to the same size"
            )
    return sample


def read_image(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], BGR."""
    return _decode(path, cv2.IMREAD_COLOR)


def read_classes(path: Path) -> np.ndarray:
    """uint8 [H, W], 255 = ignore."""
    classes = _decode(path, cv2.IMREAD_UNCHANGED)
    if classes.ndim != 2 or classes.dtype != np.uint8:
        raise UserError(f"{path} must have one channel of 8 bits that holds class numbers: convert it to grey scale")
    return classes


def read_normals(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], white = ignore."""
    normals = _decode(path, cv2.IMREAD_UNCHANGED)
    if normals.shape[2:] != (3,) or normals.dtype != np.uint8:
        raise UserError(f"{path} must have three channels of 8 bits that hold a normal: convert it to RGB")
    return normals


def read_depth(path: Path) -> np.ndarray:
    """float32 [H, W], metres; at most 3e-5, or no finite number, where nothing was measured."""
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a NumPy array ({error}): replace the file") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind != "f":
        raise UserError(f"{path} must hold one array [H, W] of floating-point metres: convert it")
    return depth.astype(np.float32, copy=False)


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): replace the file") from error
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise UserError(f"{path} is not a whole image that OpenCV can decode: replace the file")
    return image


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "img": read_image,
    "seg": read_classes,
    "normal": read_normals,
    "depth": read_depth,
}


# Sample -> arrays of a batch


def encode_image(image: np.ndarray) -> dict[str, np.ndarray]:
    """Image -> "img" of `NYUv2`."""
    return {"img": subtract_mean(image)}


def encode_classes(classes: np.ndarray) -> dict[str, np.ndarray]:
    """Classes -> "seg" of `NYUv2`."""
    return {"seg": np.ascontiguousarray(classes, dtype=np.int64)}


def encode_depth(depth: np.ndarray) -> dict[str, np.ndarray]:
    """Depth -> "depth" and "depth_valid" of `NYUv2`; what is no finite number becomes 0, not measured."""
    depth = np.where(np.isfinite(depth), depth, np.float32(0))[None]
    return {"depth": depth, "depth_valid": depth > SMALLEST_DEPTH}


def encode_raw_normals(normal: np.ndarray) -> dict[str, np.ndarray]:
    """Normals -> "normal" as stored, 0..255, and "normal_valid": the release's target."""
    return {
        "normal": channels_first(normal).astype(np.float32),
        "normal_valid": labelled_normals(normal)[None],
    }


def encode_decoded_normals(normal: np.ndarray) -> dict[str, np.ndarray]:
    """Normals -> "normal" as components in [-1, 1], 0 where ignored, and "normal_valid"."""
    encoded = encode_raw_normals(normal)
    components = encoded["normal"] / np.float32(127.5) - np.float32(1)
    return {"normal": components * encoded["normal_valid"], "normal_valid": encoded["normal_valid"]}


ENCODERS: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "img": encode_image,
    "seg": encode_classes,
    "depth": encode_depth,
}
NORMAL_ENCODERS = {"release": encode_raw_normals, "decoded": encode_decoded_normals}
