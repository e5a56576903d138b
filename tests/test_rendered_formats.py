"""The files of rendered data sets, format by format, against the frames that they were made of."""

import json
import re
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders import writing
from dataloaders.rendered import (
    cityscapes,
    domainnet,
    fdu_mtl,
    render_frame,
    taskonomy,
    write_cityscapes,
    write_domainnet,
    write_fdu_mtl,
    write_nyu_v2,
    write_samples,
    write_taskonomy,
)
from dataloaders.rooms import furniture
from dataloaders.rooms.pieces import CLASS_NAMES
from dataloaders.rooms.showroom import photograph, showroom

REPOSITORY = Path(__file__).parent.parent
SMALL = {"height": 48, "width": 64}
SIZES = {"train": 10, "test": 3}
FLOOR, WALL, CHAIR = (CLASS_NAMES.index(name) for name in ("floor", "wall", "chair"))


def read_png(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def check_room_splits(folder: Path, splits: dict[str, list], num_files: int) -> None:
    """train is train1 and train2, no frame of one split is in another, and no file lies about unlisted."""
    assert splits["train"] == splits["train1"] + splits["train2"]
    apart = [splits[name] for name in ("train1", "train2", "test", "val") if name in splits]
    files = list(chain.from_iterable(chain.from_iterable(apart)))
    assert len(files) == len(set(files)) == num_files
    assert {path.relative_to(folder).as_posix() for path in folder.glob("*/*")} == set(files)


# -------------------------------------------------------------------------------------------- NYU v2


@pytest.fixture(scope="module")
def nyu_v2_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nyu_v2") / "set"
    assert write_nyu_v2(folder, SIZES, **SMALL, seed=5) == folder / "nyu_v2_3task.json"
    return folder


def test_nyu_v2_lists_disjoint_splits(nyu_v2_set: Path) -> None:
    splits = json.loads((nyu_v2_set / "nyu_v2_3task.json").read_text())
    sizes = {name: len(entries) for name, entries in splits.items()}
    assert sizes == {"train": 10, "train1": 8, "train2": 2, "test": 3}
    check_room_splits(nyu_v2_set, splits, num_files=4 * 13)
    assert [Path(file).parent.name for file in splits["test"][0]] == ["img", "seg", "normal_mask", "depth"]


def test_nyu_v2_gives_back_the_frame(nyu_v2_set: Path) -> None:
    frame = render_frame(5, 0, **SMALL)
    img, seg, colours = (read_png(nyu_v2_set / name / "0000000.png") for name in ("img", "seg", "normal_mask"))
    np.testing.assert_array_equal(img[..., ::-1], frame["img"])
    np.testing.assert_array_equal(seg, frame["seg"])
    depth = np.load(nyu_v2_set / "depth" / "0000000.npy")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, frame["depth"])

    np.testing.assert_array_equal((colours == 255).all(axis=-1), ~frame["normal_valid"])
    decoded = colours[..., ::-1] / 127.5 - 1
    assert angles(decoded, frame["normal"])[frame["normal_valid"]].max() < 1


def angles(vectors: np.ndarray, unit_vectors: np.ndarray) -> np.ndarray:
    """Degrees between the vectors [H, W, 3] of two pictures: [H, W]."""
    cosine = np.sum(vectors * unit_vectors, axis=-1) / np.linalg.norm(vectors, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_no_valid_normal_becomes_white() -> None:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((1, 10000, 3))
    normal[0, :4] = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    colours = writing.masked_normal_colours(normal, np.ones((1, 10000), bool))
    assert not (colours == 255).all(axis=-1).any()


def test_channels_of_normals_are_those_of_real_frames() -> None:
    # Median floor normals of three real frames, in OpenCV's channel order, that is up, forward, right.
    real = np.array([(0.97, -0.22, 0.05), (0.92, -0.37, -0.02), (0.91, -0.39, 0.0)])
    frames = [render_frame(3, index, height=60, width=80) for index in range(20)]
    floors = [frame["normal"][frame["seg"] == FLOOR] for frame in frames if (frame["seg"] == FLOOR).mean() > 0.05]
    medians = np.array([np.median(writing.normals_to_colours(floor), axis=0) for floor in floors])
    ours = medians[:, ::-1] / 127.5 - 1
    assert len(ours) > 10
    np.testing.assert_allclose(np.median(ours, axis=0), real.mean(axis=0), atol=0.15)


def test_shipped_samples_are_made_again_by_their_command(tmp_path: Path) -> None:
    shipped = REPOSITORY / "nyu_v2_samples"
    write_samples(tmp_path, seed=9)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*"))
    assert names == sorted(path.relative_to(shipped) for path in shipped.glob("*/*"))
    assert len(names) == 16
    assert "samples nyu_v2_samples --seed 9" in (shipped / "README.md").read_text()
    for name in names:
        load = np.load if name.suffix == ".npy" else read_png
        ours, theirs = load(tmp_path / name), load(shipped / name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        tolerance = {"img": 2, "seg": 0, "normal_mask": 1, "depth": 1e-3}[name.parts[0]]
        # Another release of NumPy or OpenCV may round a pixel on an outline to its other side.
        assert np.mean(np.abs(ours.astype(float) - theirs) > tolerance) < 0.002, name


# ----------------------------------------------------------------------------------------- CityScapes


@pytest.fixture(scope="module")
def cityscapes_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cityscapes") / "set"
    assert write_cityscapes(folder, SIZES, **SMALL, seed=5) == folder / "cityscape.json"
    return folder


def test_cityscapes_lists_disjoint_splits(cityscapes_set: Path) -> None:
    splits = json.loads((cityscapes_set / "cityscape.json").read_text())
    assert {name: len(entries) for name, entries in splits.items()} == {
        "train": 10,
        "train1": 8,
        "train2": 2,
        "test": 3,
    }
    check_room_splits(cityscapes_set, splits, num_files=5 * 13)
    assert [Path(file).parent.name for file in splits["test"][0]] == ["img", "depth", "label2", "label7", "label19"]


def test_cityscapes_gives_back_the_frame(cityscapes_set: Path) -> None:
    frame = render_frame(5, 1, **SMALL)
    kinds = ("img", "depth", "label2", "label7", "label19")
    img, depth, *labels = (np.load(cityscapes_set / kind / "0000001.npy") for kind in kinds)
    assert (img.dtype, img.shape, depth.dtype, depth.shape) == (np.float32, (48, 64, 3), np.float32, (48, 64, 1))
    np.testing.assert_allclose(img * 255, frame["img"], atol=1e-4)

    valid = frame["depth_valid"]
    np.testing.assert_array_equal(depth[~valid], 0)
    np.testing.assert_allclose(1 / depth[valid, 0], 2 * frame["depth"][valid], rtol=1e-6)
    assert 0.05 < depth[valid].min() < 0.2 < depth.max() < 0.6

    for label, count in zip(labels, (2, 7, 19), strict=True):
        assert (label.dtype, label.shape) == (np.int8, (48, 64))
        np.testing.assert_array_equal(label == -1, frame["seg"] == 255)
        assert len(np.unique(label)) > 2
        assert label.max() < count
    # Floor, wall and chair: the first class, the third, and the second of the sixth category.
    for name, expected in ((FLOOR, (0, 0, 0)), (WALL, (0, 1, 2)), (CHAIR, (1, 5, 12))):
        for label, number in zip(labels, expected, strict=True):
            np.testing.assert_array_equal(label[frame["seg"] == name], number)


def test_cityscapes_labels_are_complete_and_nested() -> None:
    tables = cityscapes.tables_of_rooms()
    assert list(tables) == [2, 7, 19]
    for count, table in tables.items():
        assert set(table[:40].tolist()) == set(range(count))
        assert (table[40:] == -1).all()
    for coarse, fine in ((2, 7), (7, 19)):
        pairs = set(zip(tables[fine][:40].tolist(), tables[coarse][:40].tolist(), strict=True))
        assert len(pairs) == fine  # one coarse label for each fine one


# ------------------------------------------------------------------------------------------ Taskonomy


@pytest.fixture(scope="module")
def taskonomy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taskonomy") / "set"
    assert write_taskonomy(folder, SIZES, **SMALL, seed=5) == folder / "taskonomy.json"
    return folder


def test_taskonomy_lists_disjoint_splits(taskonomy_set: Path) -> None:
    splits = json.loads((taskonomy_set / "taskonomy.json").read_text())
    sizes = {name: len(entries) for name, entries in splits.items()}
    assert sizes == {"train": 10, "train1": 8, "train2": 2, "val": 2, "test": 3, "test_small": 2}
    check_room_splits(taskonomy_set, splits, num_files=6 * 15)
    assert splits["test_small"] == splits["test"][:2]
    kinds = [Path(file).parent.name for file in splits["test"][0]]
    assert kinds == ["rgb", "seg", "normal", "depth", "keypoint", "edge"]


def test_taskonomy_gives_back_the_frame(taskonomy_set: Path) -> None:
    frame = render_frame(5, 2, **SMALL)
    kinds = ("rgb", "seg", "normal", "depth", "keypoint", "edge")
    rgb, seg, normal, depth, keypoint, edge = (read_png(taskonomy_set / kind / "0000002.png") for kind in kinds)
    np.testing.assert_array_equal(rgb[..., ::-1], frame["img"])

    assert (seg.dtype, seg.shape) == (np.uint8, (48, 64))
    np.testing.assert_array_equal(seg == 0, frame["seg"] == 255)
    np.testing.assert_array_equal(seg[frame["seg"] == FLOOR], 1)
    np.testing.assert_array_equal(seg == 9, frame["seg"] == CHAIR)

    assert angles(normal[..., ::-1] / 127.5 - 1, frame["normal"]).max() < 1

    valid = frame["depth_valid"]
    assert depth.dtype == keypoint.dtype == edge.dtype == np.uint16
    np.testing.assert_array_equal(depth[~valid], 65535)
    np.testing.assert_allclose(depth[valid] / 512, frame["depth"][valid], atol=0.5 / 512 + 1e-6)

    np.testing.assert_allclose(keypoint / 2**16, frame["keypoint"] * 0.01, atol=0.5 / 2**16 + 1e-9)
    np.testing.assert_allclose(edge / 2**16, frame["edge"] * 0.12, atol=0.5 / 2**16 + 1e-9)


@pytest.mark.parametrize(("kind", "clipped_at"), [("keypoint", 0.005), ("edge", 0.08)])
def test_taskonomy_uses_the_range_that_is_not_clipped(taskonomy_set: Path, kind: str, clipped_at: float) -> None:
    shares = np.stack([read_png(path) for path in sorted((taskonomy_set / kind).iterdir())]) / 2**16
    assert 0.0005 < np.mean(shares > clipped_at) < 0.05
    assert np.mean(shares > 0.5 * clipped_at) > 0.02
    assert 0.05 < np.mean(shares) / clipped_at < 0.4


def test_taskonomy_has_a_value_for_each_of_the_40_classes() -> None:
    table = taskonomy.class_table()
    assert set(table[:40].tolist()) == set(range(1, 18))
    assert (table[40:] == 0).all()


def test_taskonomy_weighs_rare_classes_more(taskonomy_set: Path) -> None:
    factor = np.load(taskonomy_set / "semseg_prior_factor.npy")
    assert (factor.dtype, factor.shape) == (np.float32, (17,))
    splits = json.loads((taskonomy_set / "taskonomy.json").read_text())
    values = np.stack([read_png(taskonomy_set / entry[1]) for entry in splits["train"]]).astype(int)
    classes = np.where(values == 0, 0, values - 1)
    frequency = np.array([(classes == number).mean() for number in range(17)])
    smoothed = (frequency + 1 / 17) / 2
    np.testing.assert_allclose(factor[classes].mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(factor * smoothed, factor[0] * smoothed[0], rtol=1e-5)
    assert factor.argmin() == frequency.argmax() == 0


# ------------------------------------------------------------------------------------------ DomainNet


@pytest.fixture(scope="module")
def domainnet_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domainnet") / "set"
    assert write_domainnet(folder, {"train": 14, "test": 7}, **SMALL, seed=5) == folder / "DomainNet.json"
    return folder


def lines_of(folder: Path, mode: str, domain: str) -> list[tuple[str, int]]:
    """The pictures of a mode and domain as a reader of the format finds them: (path, class)."""
    lines = (folder / ("test.txt" if mode in ("val", "test") else "train.txt")).read_text().splitlines()
    indices = json.loads((folder / "DomainNet.json").read_text())[mode][domain]
    return [(lines[index].split(" ")[0], int(lines[index].split(" ")[1])) for index in indices]


def test_domainnet_lists_disjoint_modes_of_every_domain(domainnet_set: Path) -> None:
    modes = json.loads((domainnet_set / "DomainNet.json").read_text())
    assert modes.keys() == {"train", "train1", "train2", "val", "test"}
    seen = set()
    for domain in ("photo", "painting", "cartoon", "sketch", "grey", "negative"):
        pictures = {mode: lines_of(domainnet_set, mode, domain) for mode in modes}
        assert {mode: len(lines) for mode, lines in pictures.items()} == {
            "train": 14,
            "train1": 11,
            "train2": 3,
            "val": 7,
            "test": 7,
        }
        assert pictures["train"] == pictures["train1"] + pictures["train2"]
        assert pictures["val"] == pictures["test"]
        paths = {path for path, _ in pictures["train"] + pictures["test"]}
        assert len(paths) == 21
        assert all(path.startswith(f"{domain}/") for path in paths)
        seen |= paths
    assert {path.relative_to(domainnet_set).as_posix() for path in domainnet_set.glob("*/*/*")} == seen
    assert all(modes[mode].keys() == set(domainnet.DOMAINS) for mode in modes)


def test_domainnet_balances_classes_that_folders_name(domainnet_set: Path) -> None:
    for domain in domainnet.DOMAINS:
        pictures = lines_of(domainnet_set, "train", domain)
        assert sorted(label for _, label in pictures) == sorted([*range(7), *range(7)])
        names = {path.split("/")[1]: label for path, label in pictures}
        assert names == {"bathtub": 0, "bed": 1, "bookshelf": 2, "chair": 3, "sofa": 4, "table": 5, "toilet": 6}


@pytest.mark.parametrize("domain", domainnet.DOMAINS)
def test_domainnet_pictures_are_photographs_redrawn(domainnet_set: Path, domain: str) -> None:
    place = list(domainnet.DOMAINS).index(domain)
    room = showroom(np.random.default_rng([5, 1, 1 + place]), furniture.bed)
    expected = domainnet.DOMAINS[domain](photograph(room, **SMALL))
    np.testing.assert_array_equal(read_png(domainnet_set / domain / "bed" / "0000001.png")[..., ::-1], expected)


def test_styles_change_what_they_are_named_after() -> None:
    image = photograph(showroom(np.random.default_rng(0), furniture.bed), 96, 96)
    drawn = {domain: style(image) for domain, style in domainnet.DOMAINS.items()}
    assert all((picture.dtype, picture.shape) == (np.uint8, (96, 96, 3)) for picture in drawn.values())
    np.testing.assert_array_equal(drawn["photo"], image)
    np.testing.assert_array_equal(drawn["negative"].astype(int) + image, 255)
    assert (drawn["grey"] == drawn["grey"][..., :1]).all()
    np.testing.assert_allclose(drawn["grey"][..., 0], image @ (0.299, 0.587, 0.114), atol=1)
    assert set(np.unique(drawn["sketch"])) == {40, 250}
    ink = (drawn["sketch"] == 40).all(axis=-1)
    assert 0.01 < ink.mean() < 0.3
    assert (drawn["cartoon"][ink] == 15).all()
    assert len(np.unique(drawn["cartoon"].reshape(-1, 3), axis=0)) < 100 < len(np.unique(image.reshape(-1, 3), axis=0))
    assert np.ptp(drawn["painting"].mean(axis=(0, 1))) > np.ptp(image.mean(axis=(0, 1))) + 20
    steps = {domain: np.abs(np.diff(picture.astype(int), axis=0)).mean() for domain, picture in drawn.items()}
    assert steps["painting"] < 0.7 * steps["photo"]


def test_domainnet_shows_no_piece_in_two_domains(domainnet_set: Path) -> None:
    photos, negatives = (
        [read_png(domainnet_set / path).astype(int) for path, _ in lines_of(domainnet_set, "train", domain)]
        for domain in ("photo", "negative")
    )
    assert min(np.abs(photo - (255 - negative)).mean() for photo in photos for negative in negatives) > 5


# -------------------------------------------------------------------------------------------- FDU-MTL


@pytest.fixture(scope="module")
def fdu_mtl_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fdu_mtl") / "set"
    assert write_fdu_mtl(folder, {"train": 100, "test": 40}, seed=5) == folder
    return folder


def reviews(folder: Path, domain: str, split: str) -> list[tuple[str, str]]:
    lines = (folder / f"{domain}.task.{split}").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [tuple(line.split("\t")) for line in lines]


def test_fdu_mtl_has_balanced_labels_and_clean_tokens(fdu_mtl_set: Path) -> None:
    expected = {f"{domain}.task.{split}" for domain in fdu_mtl.DOMAINS for split in ("train", "test")}
    assert {path.name for path in fdu_mtl_set.iterdir()} == expected | {"rendered.json"}
    for domain in fdu_mtl.DOMAINS:
        for split, count in (("train", 100), ("test", 40)):
            found = reviews(fdu_mtl_set, domain, split)
            assert [label for label, _ in found] == ["1", "0"] * (count // 2)
            assert all(re.fullmatch(r"[a-z.,!']+( [a-z.,!']+)*", text) for _, text in found)
            assert min(len(text.split()) for _, text in found) > 10
            assert max(len(text.split()) for _, text in found) < 100


def test_fdu_mtl_shares_no_review_between_splits_or_domains(fdu_mtl_set: Path) -> None:
    texts = [
        text
        for domain in fdu_mtl.DOMAINS
        for split in ("train", "test")
        for _, text in reviews(fdu_mtl_set, domain, split)
    ]
    assert len(set(texts)) == len(texts) == 6 * 140
    lengths = [[len(text.split()) for _, text in reviews(fdu_mtl_set, domain, "train")] for domain in fdu_mtl.DOMAINS]
    assert np.mean(np.diff(lengths, axis=0) == 0) < 0.2  # not the same review in other words


@pytest.mark.parametrize("domain", fdu_mtl.DOMAINS)
def test_fdu_mtl_labels_follow_from_the_words_negation_included(fdu_mtl_set: Path, domain: str) -> None:
    praise = {*fdu_mtl.SHARED_PRAISE, *fdu_mtl.DOMAINS[domain].praise}
    blame = {*fdu_mtl.SHARED_BLAME, *fdu_mtl.DOMAINS[domain].blame}
    assert not praise & blame
    for label, text in reviews(fdu_mtl_set, domain, "train"):
        votes = 0
        for sentence in re.split(r"[.!]", text):
            words = set(sentence.split())
            vote = bool(words & praise) - bool(words & blame)
            votes += -vote if words & {"not", "nobody", "nothing", "n't"} else vote
        assert (votes > 0) == (label == "1")


def test_fdu_mtl_domains_differ_and_contradict_each_other(fdu_mtl_set: Path) -> None:
    books, kitchen = fdu_mtl.DOMAINS["books"], fdu_mtl.DOMAINS["kitchen_housewares"]
    text = " ".join(text for _, text in reviews(fdu_mtl_set, "books", "train")).split()
    assert set(books.nouns) <= set(text)
    assert not set(kitchen.nouns) & set(text)
    praise = {word for domain in fdu_mtl.DOMAINS.values() for word in domain.praise}
    blame = {word for domain in fdu_mtl.DOMAINS.values() for word in domain.blame}
    assert len(praise & blame) >= 8
    negated = np.mean([word in ("not", "n't", "nobody", "nothing") for word in text if word not in books.nouns])
    assert 0.005 < negated < 0.05
