"""Widths along a Gaussian's own axes are as true as those along the stack's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_gaussfit.measure.deblurred import object_variances, object_widths
from napari_gaussfit.measure.principal import principal_widths, variances_between
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, LOWER, Gaussians

COUNT = 20_000


def of_covariances(covariances: np.ndarray) -> Gaussians:
    means, amplitudes = np.zeros((len(covariances), 3)), np.ones(len(covariances))
    return Gaussians.from_covariances(means, covariances, amplitudes, unit="pixel")


def root(covariances: np.ndarray) -> np.ndarray:
    values, axes = np.linalg.eigh(covariances)
    return np.asarray(axes * np.sqrt(values)[:, None, :] @ axes.swapaxes(1, 2))


def measured(sigmas: tuple[float, float, float], error: float) -> tuple[Gaussians, np.ndarray]:
    """Gaussians turned at random, each width found with a relative error, and what is known.

    Of a Gaussian of many voxels the matrix is known alike in all directions: its logarithm is off
    by a symmetric matrix with twice the variance on the diagonal.
    """
    rng = np.random.default_rng(4)
    turns = Rotation.random(COUNT, random_state=rng).as_matrix()
    true = turns @ np.diag(np.square(sigmas)) @ turns.swapaxes(1, 2)
    off = rng.normal(0, error, (COUNT, 3, 3))
    off += off.swapaxes(1, 2)
    values, axes = np.linalg.eigh(off)
    off = axes * np.exp(values)[:, None, :] @ axes.swapaxes(1, 2)
    found = of_covariances(root(true) @ off @ root(true))
    slopes = []
    for row, column in zip(*LOWER, strict=True):
        step = np.zeros((3, 3))
        step[row, column] = step[column, row] = 1e-4
        changed = [
            of_covariances(
                found.covariances + sign * root(found.covariances) @ step @ root(found.covariances)
            ).cholesky.astype(np.float64)
            for sign in (1, -1)
        ]
        spread = error * (2 if row == column else np.sqrt(2))
        slopes.append((changed[0] - changed[1]) / 2e-4 * spread)
    jacobian = np.stack(slopes, axis=-1)
    return found, jacobian @ jacobian.swapaxes(1, 2)


@pytest.mark.parametrize("sigmas", [(3.5, 1.5, 1.2), (2.0, 1.8, 1.6)])
def test_widths_that_differ_by_a_few_error_bars_are_right_in_the_mean(
    sigmas: tuple[float, float, float],
) -> None:
    found, covariances = measured(sigmas, 0.06)
    widths, errors = principal_widths(found, covariances)
    pulls, before = ((one - sigmas) / errors for one in (widths, found.principal()[0]))
    assert np.abs(pulls.mean(0)).max() < 0.1
    assert np.abs(before.mean(0)).max() > 0.2
    assert pulls.std(0) == pytest.approx(1, abs=0.06)


def test_widths_that_are_the_same_are_nearer_to_it_and_equal_where_they_cannot_be_told_apart() -> (
    None
):
    found, covariances = measured((2.0, 1.5, 1.5), 0.05)
    widths, errors = principal_widths(found, covariances)
    pulls, before = ((one - (2.0, 1.5, 1.5)) / errors for one in (widths, found.principal()[0]))
    assert (np.square(pulls).mean(0) < np.square(before).mean(0))[1:].all()
    assert (np.abs(pulls.mean(0)) < 0.8 * np.abs(before.mean(0)))[1:].all()
    equal = np.isclose(widths[:, 1], widths[:, 2], rtol=1e-12)
    assert 0.1 < equal.mean() < 0.5
    assert (np.diff(widths, axis=1) <= 1e-12).all()
    np.testing.assert_allclose(widths.prod(1), found.principal()[0].prod(1), rtol=1e-9)


def test_of_what_is_given_or_not_determined_widths_are_the_matrix_s_own() -> None:
    found = of_covariances(np.stack([np.diag([4.0, 2.0, 2.0]), np.diag([4.0, 2.0, 1.0])]))
    given, none = np.zeros((2, 6, 6)), np.full((2, 6, 6), np.nan)
    for covariances in (given, none):
        widths, errors = principal_widths(found, covariances)
        np.testing.assert_allclose(widths, found.principal()[0], rtol=1e-12)
        np.testing.assert_array_equal(errors, covariances[:, :3, 0])


def test_variances_between_axes_are_those_of_small_changes() -> None:
    rng = np.random.default_rng(8)
    factor = rng.normal(size=(1, 3, 3))
    one = of_covariances(factor @ factor.swapaxes(1, 2) + np.eye(3))
    axes = Rotation.random(1, random_state=rng).as_matrix()
    known = rng.normal(size=(6, 6))
    covariance = known @ known.T
    steps = rng.multivariate_normal(np.zeros(6), 1e-8 * covariance, 200_000)
    many = Gaussians(
        np.zeros((len(steps), 3)), one.cholesky + steps, np.ones(len(steps)), 0.0, "pixel"
    )
    between = axes @ many.covariances @ axes.swapaxes(1, 2)
    found = variances_between(one, axes, covariance[None])[0]
    np.testing.assert_allclose(between.var(0) / 1e-8, found, rtol=0.02)


def test_widths_of_round_objects_are_nearer_to_the_truth_than_those_in_order() -> None:
    blur = Psf.of_fwhm(FWHM_PER_SIGMA * np.array([0.9, 0.9, 0.9]))
    found, covariances = measured((1.5, 1.5, 1.5), 0.05)
    whole = np.full((COUNT, 11, 11), 0.0)
    whole[:, 3:9, 3:9] = covariances
    found = replace(found, unit="micrometer")
    own = np.sqrt(1.5**2 - 0.9**2)
    widths, errors = object_widths(found, blur, whole)
    known, _, same = object_variances(found, blur, whole)
    assert (np.diff(widths, axis=1) <= 0).all()
    off, before = (np.square(one - own).mean(0) for one in (widths, np.sqrt(known)))
    assert (off[[0, 2]] < 0.7 * before[[0, 2]]).all()
    assert np.abs((widths[:, 1] - own) / errors[:, 1]).mean() < 1
    assert np.isfinite(same).all()
