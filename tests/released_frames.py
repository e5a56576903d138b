"""Four frames of NYU v2 as they were released, no part of this project: the environment says where they are."""

import os
from pathlib import Path

import pytest

RELEASED_FRAMES = Path(
    os.environ.get("ADASHARE_NYU_FRAMES", Path(__file__).parents[2] / "shared" / "data" / "nyu_v2_samples")
)
"""A folder with `img/`, `seg/`, `normal_mask/` and `depth/` of these frames and no others."""

NAMES = ["0061", "0295", "0774", "1314"]

needs_released_frames = pytest.mark.skipif(
    sorted(path.stem for path in RELEASED_FRAMES.glob("depth/*.npy")) != NAMES,
    reason=f"the released NYU v2 frames {', '.join(NAMES)} are not in ADASHARE_NYU_FRAMES",
)
