"""Joint transforms: what scaling, mirroring, padding and cropping do to each array, and their composition."""

import cv2
import numpy as np
import pytest

from benchmarks.loading import augment as augment_whole_frames
from dataloaders.nyu_v2 import AUGMENTATIONS
from dataloaders.transforms import (
    Sample,
    Window,
    approach,
    approach_inverse,
    channels_first,
    labelled_normals,
    mirror,
    pad_to,
    reflect,
    resize,
    scale,
    scaled_size,
)
from tests.released_frames import RELEASED_FRAMES, needs_released_frames

TARGETS = ("seg", "normal", "depth")


def make_sample(seed: int, height: int = 12, width: int = 16) -> Sample:
    """Random arrays with an ignored block in every target and one red (255, 0, 0) normal."""
    random = np.random.RandomState(seed)
    sample = {
        "img": random.randint(0, 256, (height, width, 3)).astype(np.uint8),
        "seg": random.randint(0, 40, (height, width)).astype(np.uint8),
        "normal": random.randint(0, 255, (height, width, 3)).astype(np.uint8),
        "depth": random.uniform(0.5, 9, (height, width)).astype(np.float32),
    }
    sample["seg"][:3, :4] = 255
    sample["normal"][:2, :5] = 255
    sample["normal"][5, 5] = (0, 0, 255)
    sample["depth"][:4, :2] = 0
    sample["depth"][4, 0] = 3e-5
    return sample


def test_scale_resizes_labels_to_the_nearest_and_images_bilinearly() -> None:
    sample = make_sample(0, height=12, width=16)
    half = scale(sample, 0.5)
    for key in TARGETS:
        np.testing.assert_array_equal(half[key], sample[key][::2, ::2])
    quads = sample["img"].reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))  # at 1/2, bilinear is the mean of 2x2 pixels
    np.testing.assert_allclose(half["img"], quads, atol=1)

    wider = scale(sample, 1.25)
    assert wider["img"].shape == (15, 20, 3)
    rows, columns = np.arange(15) * 12 // 15, np.arange(20) * 16 // 20
    for key in TARGETS:
        np.testing.assert_array_equal(wider[key], sample[key][rows][:, columns])
        assert wider[key].dtype == sample[key].dtype
    assert scale(sample, 0.55)["depth"].shape == (7, 9)  # round(6.6), round(8.8)


def test_approach_divides_depth_alone() -> None:
    sample = make_sample(0)
    scaled, nearer = scale(sample, 1.5), approach(sample, 1.5)
    np.testing.assert_allclose(nearer["depth"], scaled["depth"] / 1.5, rtol=1e-6)
    assert nearer["depth"].dtype == np.float32
    for key in ("img", "seg", "normal"):
        np.testing.assert_array_equal(nearer[key], scaled[key])


def test_approach_inverse_multiplies_depth_alone() -> None:
    sample = make_sample(0)
    scaled, nearer = scale(sample, 1.5), approach_inverse(sample, 1.5)
    np.testing.assert_allclose(nearer["depth"], scaled["depth"] * 1.5, rtol=1e-6)
    assert nearer["depth"].dtype == np.float32
    for key in ("img", "seg", "normal"):
        np.testing.assert_array_equal(nearer[key], scaled[key])


def test_resize_leaves_arrays_of_that_size_as_they_are() -> None:
    sample = make_sample(0, height=6, width=8)
    sample["depth"] = make_sample(0, height=12, width=16)["depth"]
    resized = resize(sample, (12, 16))
    assert resized["depth"] is sample["depth"]
    np.testing.assert_array_equal(resized["seg"], sample["seg"].repeat(2, axis=0).repeat(2, axis=1))


def test_mirror_and_reflect_undo_themselves() -> None:
    sample = make_sample(0)
    for transform in (mirror, reflect):
        twice = transform(transform(sample))
        for key, array in sample.items():
            np.testing.assert_array_equal(twice[key], array)
    for key, array in mirror(sample).items():
        np.testing.assert_array_equal(array[:, 0], sample[key][:, -1])


def test_reflect_turns_the_x_of_labelled_normals() -> None:
    sample = make_sample(0)
    before = sample["normal"].copy()
    mirrored, reflected = mirror(sample)["normal"], reflect(sample)["normal"]
    np.testing.assert_array_equal(sample["normal"], before)
    labelled = labelled_normals(channels_first(mirrored))
    np.testing.assert_array_equal(reflected[labelled][:, 2], 255 - mirrored[labelled][:, 2])
    np.testing.assert_array_equal(reflected[:, :, :2], mirrored[:, :, :2])
    assert (reflected[~labelled] == 255).all()


def test_padding_is_centred_and_ignored() -> None:
    sample = make_sample(0, height=6, width=7)
    padded = pad_to(sample, 9, 5)
    for key, ignore in (("img", 0), ("seg", 255), ("normal", 255), ("depth", 0)):
        assert padded[key].shape[:2] == (9, 7)
        np.testing.assert_array_equal(padded[key][1:7], sample[key])
        assert (padded[key][[0, 7, 8]] == ignore).all()
        assert padded[key].dtype == sample[key].dtype


def test_masks_move_with_their_target_and_are_false_in_padding() -> None:
    sample = make_sample(0) | {"edge": make_sample(0)["seg"].astype(np.uint16)}
    sample["valid"] = (sample["edge"] < 20).astype(np.uint8)
    augmented = AUGMENTATIONS["release"]((30, 30))(sample, np.random.default_rng(3))
    inside = augmented["seg"] != 255
    np.testing.assert_array_equal(augmented["valid"][inside], augmented["edge"][inside] < 20)
    assert not augmented["valid"][~inside].any()
    assert augmented["valid"].any()


def test_a_window_shows_what_resizing_the_whole_would_give() -> None:
    random = np.random.RandomState(0)
    for seed in range(60):
        height, width = random.randint(5, 200, 2).tolist()
        sample = make_sample(seed, height=height + 4, width=width + 4)
        factor = random.uniform(0.5, 1.5) if seed % 2 else (0.5, 1, 1.01)[seed // 2 % 3]
        whole = resize(sample, scaled_size(sample, factor))
        rows, columns = (
            range(*sorted(random.choice(length + 1, 2, replace=False).tolist())) for length in whole["seg"].shape
        )
        shown = scale(sample, factor, Window(rows, columns))
        for key, array in whole.items():
            np.testing.assert_array_equal(
                shown[key], array[rows.start : rows.stop, columns.start : columns.stop], strict=True
            )


@pytest.mark.parametrize("crop_size", [(20, 24), (34, 20), (20, 50), (60, 80)])
def test_augmentation_equals_that_of_whole_frames_to_the_bit(crop_size: tuple[int, int]) -> None:
    """Crops that always fit into a scaled frame, never do, or do in one direction; draws of one order."""
    sample = make_sample(0, height=40, width=52)
    release, geometric = (AUGMENTATIONS[name](crop_size) for name in ("release", "geometric"))
    for seed in range(25):
        generator, reference = np.random.default_rng(seed), np.random.default_rng(seed)
        expected, augmented = augment_whole_frames(sample, crop_size, reference), release(sample, generator)
        for key, array in expected.items():
            np.testing.assert_array_equal(augmented[key], array, strict=True)
        assert generator.random() == reference.random()

        augmented = geometric(sample, np.random.default_rng(seed))
        generator = np.random.default_rng(seed)
        factor, is_mirrored = generator.uniform(0.5, 1.5), generator.random() < 0.5
        np.testing.assert_array_equal(augmented["depth"], expected["depth"] / np.float32(factor), strict=True)
        turned = expected["normal"].copy()
        if is_mirrored:
            turned[..., 2][labelled_normals(channels_first(turned))] ^= 255
        np.testing.assert_array_equal(augmented["normal"], turned)


def test_augmentation_copies_what_it_keeps_and_needs_no_more_than_to_read() -> None:
    sample = make_sample(0)
    for array in sample.values():
        array.flags.writeable = False
    for seed in range(5):
        for array in AUGMENTATIONS["geometric"]((9, 9))(sample, np.random.default_rng(seed)).values():
            assert not any(np.shares_memory(array, other) for other in sample.values())
            assert array.flags.writeable


def grid_sample(height: int, width: int) -> Sample:
    """A sample whose depth and classes tell where a pixel came from: depth its column, class its row."""
    rows, columns = np.mgrid[:height, :width]
    return {
        "img": np.repeat((columns * 4)[:, :, None], 3, axis=2).astype(np.uint8),
        "seg": rows.astype(np.uint8),
        "normal": np.repeat((columns * 4)[:, :, None], 3, axis=2).astype(np.uint8),
        "depth": columns.astype(np.float32) + 1,
    }


def test_augmentation_moves_all_arrays_alike_and_covers_its_ranges() -> None:
    sample = grid_sample(24, 32)
    augment = AUGMENTATIONS["release"]((16, 20))
    factors, mirrored, padded, corners = [], 0, 0, set()
    for seed in range(200):
        augmented = augment(sample, np.random.default_rng(seed))
        assert {array.shape[:2] for array in augmented.values()} == {(16, 20)}
        inside = augmented["depth"] > 0
        np.testing.assert_array_equal(inside, augmented["seg"] != 255)
        np.testing.assert_array_equal(inside, labelled_normals(channels_first(augmented["normal"])))
        np.testing.assert_array_equal(augmented["normal"][inside][:, 0], (augmented["depth"][inside] - 1) * 4)
        assert (augmented["img"][~inside] == 0).all()
        error = augmented["img"][inside][:, 0] - (augmented["depth"][inside] - 1) * 4
        assert np.abs(error).max() <= 6, "the image is moved like its targets, to within half a pixel's rounding"

        row = augmented["depth"][8][inside[8]]
        mirrored += row[-1] < row[0]
        padded += not inside.all()
        factors.append((row.size - 1) / max(abs(row[-1] - row[0]), 1))
        corners.add((augmented["seg"][0, 0], augmented["depth"][0, 0]))
    assert 70 < mirrored < 130
    assert padded  # 24 * 0.5 < 16
    assert 0.45 < min(factors) < 0.6
    assert 1.35 < max(factors) < 1.6
    assert len(corners) > 100


def test_geometric_augmentation_differs_from_the_release_in_depth_and_normals_alone() -> None:
    sample = make_sample(0, height=24, width=32)
    divided, turned = 0, 0
    for seed in range(20):
        release = AUGMENTATIONS["release"]((10, 10))(sample, np.random.default_rng(seed))
        geometric = AUGMENTATIONS["geometric"]((10, 10))(sample, np.random.default_rng(seed))
        for key in ("img", "seg"):
            np.testing.assert_array_equal(geometric[key], release[key])
        factor = np.random.default_rng(seed).uniform(0.5, 1.5)
        np.testing.assert_allclose(geometric["depth"], release["depth"] / factor, rtol=1e-5)
        divided += not np.array_equal(geometric["depth"], release["depth"])
        turned += not np.array_equal(geometric["normal"], release["normal"])
    assert divided == 20
    assert 4 <= turned <= 16


@needs_released_frames
def test_red_is_the_horizontal_component_of_real_normals() -> None:
    """A surface that recedes to the right faces left: the x of the normal follows the slope of the depth."""
    for path in sorted(RELEASED_FRAMES.glob("depth/*.npy")):
        depth = cv2.GaussianBlur(np.load(path), (0, 0), 3)
        normal = cv2.imread(str(RELEASED_FRAMES / "normal_mask" / f"{path.stem}.png"))
        slope = np.clip(np.gradient(np.log(depth), axis=1), -0.01, 0.01)
        labelled = labelled_normals(channels_first(normal))
        correlations = [abs(np.corrcoef(slope[labelled], normal[labelled][:, channel])[0, 1]) for channel in range(3)]
        assert np.argmax(correlations) == 2
        assert correlations[2] > 0.4
