"""Surface normals from depth: a plane is fitted to the points around each pixel.

On a plane, inverse depth is an affine function of the place in the picture: n . P = c with P = Z * (r, 1, u), where
r and u are the slopes of the pixel's ray, gives 1 / Z = (n_r r + n_f + n_u u) / c. So a plane is found by linear
least squares on 1 / Z. That also weighs the points rightly, because a depth camera's errors are alike everywhere in
disparity, which is proportional to 1 / Z.

The window, and the rule that its points count where they are about as deep as the pixel, are those of the toolbox
that NYU v2 came with (Silberman et al., ECCV 2012); the normals of the released frames are met to a median of half a
degree.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

OFFSETS = np.array([-9, -6, -3, -1, 0, 1, 3, 6, 9])
"""Rows and columns of the window's 9 x 9 points, in pixels from its centre."""

SIMILAR_DEPTH = 0.05
"""A point counts if its depth differs from the centre's by no more than this share of it."""

FEWEST_POINTS = 20
"""A plane is fitted to no less, about a quarter of the window. No line holds more than 9 of the window's points, so
that these determine it."""

ROWS_AT_ONCE = 32  # 81 numbers per pixel: more rows would leave the processor's cache


class Intrinsics(NamedTuple):
    """A pinhole camera, in pixels. The picture's upper left corner is (0, 0): the first pixel's centre (0.5, 0.5)."""

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float

    def scaled(self, horizontally: float, vertically: float) -> "Intrinsics":
        """The camera of a picture so many times as wide and as high."""
        return Intrinsics(
            self.focal_x * horizontally,
            self.focal_y * vertically,
            self.centre_x * horizontally,
            self.centre_y * vertically,
        )


class InverseDepthFit(NamedTuple):
    """1 / Z near each pixel as an affine function of the place, [H, W] float32 each, in 1/metres (per pixel)."""

    value: np.ndarray  # at the pixel
    per_column: np.ndarray  # to the right
    per_row: np.ndarray  # downwards
    fitted: np.ndarray  # bool; elsewhere the numbers mean nothing


def surface_normals(depth: np.ndarray, measured: np.ndarray, camera: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Normals of the surfaces that a depth map shows.

    Args:
        depth: [H, W] float32, metres along the optical axis.
        measured: [H, W] bool, where depth is one; it is above 0 there.

    Returns:
        Normals, [H, W, 3] float32, unit vectors towards the camera's side in camera coordinates x right, y forward,
        z up, 0 where none was found; and where one was, [H, W] bool.
    """
    fit = fit_inverse_depth(np.divide(1, depth, out=np.zeros(depth.shape, np.float32), where=measured))
    height, width = depth.shape
    right = (np.arange(width, dtype=np.float32) + 0.5 - camera.centre_x) / camera.focal_x  # [W]
    up = (camera.centre_y - 0.5 - np.arange(height, dtype=np.float32)[:, None]) / camera.focal_y  # [H, 1]
    # n / c of the head of this file: the gradient of 1 / Z in r and u, and its value where both are 0.
    per_right, per_up = fit.per_column * camera.focal_x, -fit.per_row * camera.focal_y
    away = np.stack([per_right, fit.value - per_right * right - per_up * up, per_up], axis=-1)
    length = np.where(fit.fitted, np.linalg.norm(away, axis=-1), np.inf)
    return -away / length[..., None], fit.fitted


def fit_inverse_depth(inverse: np.ndarray) -> InverseDepthFit:
    """Fit 1 / Z around every pixel.

    Args:
        inverse: [H, W] float32, 1/metres; 0 where nothing was measured.
    """
    reach = int(OFFSETS.max())
    padded = np.pad(inverse, reach)
    bands = [
        _fit_band(padded[first : first + ROWS_AT_ONCE + 2 * reach], reach)
        for first in range(0, inverse.shape[0], ROWS_AT_ONCE)
    ]
    return InverseDepthFit(*(np.concatenate(parts) for parts in zip(*bands, strict=True)))


def _fit_band(padded: np.ndarray, reach: int) -> InverseDepthFit:
    """Least squares by sums over the window's points: two products of matrices for all pixels of some rows."""
    centre = padded[reach:-reach, reach:-reach]
    window = sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))  # [h, W, 19, 19]
    near = window.transpose(2, 3, 0, 1)[np.ix_(OFFSETS + reach, OFFSETS + reach)].reshape(-1, *centre.shape)
    member = (near >= centre / (1 + SIMILAR_DEPTH)) & (near <= centre / (1 - SIMILAR_DEPTH)) & (centre > 0)
    difference = np.where(member, near - centre, 0)

    down, across = (place.ravel().astype(np.float32) for place in np.meshgrid(OFFSETS, OFFSETS, indexing="ij"))
    places = np.stack([np.ones_like(down), across, down, across * across, across * down, down * down])  # [6, 81]
    count, *moments = np.tensordot(places, member.astype(np.float32), axes=1)
    count = np.maximum(count, 1)
    x, y, xx, xy, yy = (moment / count for moment in moments)
    q, xq, yq = (moment / count for moment in np.tensordot(places[:3], difference, axes=1))

    # Two equations are left once everything is taken relative to the points' mean.
    xx, xy, yy, xq, yq = xx - x * x, xy - x * y, yy - y * y, xq - x * q, yq - y * q
    fitted = count >= FEWEST_POINTS
    determinant = np.where(fitted, xx * yy - xy * xy, 1)
    per_column, per_row = (xq * yy - yq * xy) / determinant, (yq * xx - xq * xy) / determinant
    return InverseDepthFit(centre + q - per_column * x - per_row * y, per_column, per_row, fitted)
