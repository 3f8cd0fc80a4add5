"""A trace follows the neurites that a stack was made of: where they run, how thick they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_gaussfit import fit
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.neurites import Trace, TraceSettings, trace
from napari_gaussfit.synthetic.phantoms import PSF_HIGH_NA, Phantom, neurite, neuron

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PSF = tuple(FWHM_PER_SIGMA * sigma for sigma in PSF_HIGH_NA)


@dataclass(frozen=True)
class Traced:
    """A phantom and the trace of its true Gaussians, which needs no fit."""

    phantom: Phantom
    found: Trace


@cache
def traced(seed: int) -> Traced:
    phantom = neurite(seed=seed, spines=False)
    settings = TraceSettings(psf_fwhm=PSF)
    return Traced(phantom, trace(phantom.truth.numpy(), phantom.stack.box, settings))


def seen(phantom: Phantom, path: Floats) -> NDArray[np.bool_]:
    lower, upper = phantom.stack.box
    return np.asarray(((path >= lower) & (path <= upper)).all(axis=1))


def line_of(found: Trace) -> Floats:
    """Points all along a trace."""
    nodes = np.flatnonzero(found.parents >= 0)
    a, b = found.points[found.parents[nodes]], found.points[nodes]
    return np.concatenate([a + part * (b - a) for part in np.linspace(0, 1, 5)])


SEEDS = list(range(5))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_branch_is_followed_within_a_tenth_of_a_micrometre(seed: int) -> None:
    phantom, found = traced(seed).phantom, traced(seed).found
    tree = cKDTree(line_of(found))
    for path, _ in phantom.branches:
        away = tree.query(path[seen(phantom, path)])[0]
        assert (away < 0.3).mean() >= 0.9, f"{(away < 0.3).mean():.2f} of a branch"
        assert np.median(away) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_no_branch_is_found_where_there_is_none(seed: int) -> None:
    phantom, found = traced(seed).phantom, traced(seed).found
    away = cKDTree(np.concatenate([path for path, _ in phantom.branches])).query(found.points)[0]
    assert np.quantile(away, 0.98) < 0.35
    assert len(found.branches) == len(phantom.branches) == 3
    assert sorted(found.branches.order) == [0, 1, 1]


def radius_errors(phantom: Phantom, found: Trace) -> list[float]:
    """How far the mean radius of each branch is off, apart from where it leaves another."""
    nodes, errors = cKDTree(found.points), []
    for n, (path, radii) in enumerate(phantom.branches):
        others = [branch for m, branch in enumerate(phantom.branches) if m != n]
        wall = np.concatenate([branch.radii for branch in others])
        away, near = cKDTree(np.concatenate([branch.path for branch in others])).query(path)
        apart = seen(phantom, path) & (away > wall[near] + radii + 0.2)
        measured = found.radii[nodes.query(path[apart])[1]]
        errors.append(float(measured.mean() / radii[apart].mean() - 1))
    return errors


@pytest.mark.parametrize("seed", SEEDS)
def test_radii_are_those_of_the_tubes(seed: int) -> None:
    """The light of a thick branch beside a thin one does not widen the thin one: by 7 % it did."""
    errors = radius_errors(traced(seed).phantom, traced(seed).found)
    assert np.abs(errors).max() < 0.025, errors


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fits_of_noisy_phantoms_have_three_branches_and_their_radii(seed: int) -> None:
    """Within a tenth is what is promised; the worst of 15 branches is 3.6 % off."""
    phantom = neurite(seed=seed, spines=False)
    field = fit(phantom.stack).field
    found = trace(field.numpy(), phantom.stack.box, TraceSettings(psf_fwhm=PSF))
    assert len(found.branches) == 3
    errors = radius_errors(phantom, found)
    assert np.abs(errors).max() < 0.06, errors


def test_without_the_microscope_s_blur_known_radii_are_as_wide_as_seen() -> None:
    phantom, found = traced(0).phantom, traced(0).found
    wider = trace(phantom.truth.numpy(), phantom.stack.box)
    assert np.median(wider.radii) > 1.1 * np.median(found.radii)


def test_parents_come_before_their_children_and_there_is_one_root() -> None:
    found = traced(0).found
    assert (found.parents < np.arange(len(found))).all()
    assert (found.parents < 0).sum() == 1


def tube(path: Floats, sigma: float, brightness: float = 100.0) -> Gaussians:
    """Round Gaussians close together along a path."""
    count = len(path)
    return Gaussians.from_covariances(
        path, np.tile(sigma**2 * np.eye(3), (count, 1, 1)), np.full(count, brightness)
    )


def straight(start: Floats, end: Floats, step: float) -> Floats:
    count = int(np.linalg.norm(np.subtract(end, start)) / step)
    return np.linspace(start, end, count)


def together(*parts: Gaussians) -> Gaussians:
    return Gaussians.from_covariances(
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.covariances for part in parts]),
        np.concatenate([part.amplitudes for part in parts]),
    )


BOX = np.zeros(3), np.full(3, 40.0)
LONG = straight([20.0, 20.0, 3.0], [20.0, 20.0, 37.0], 0.4)
MIDDLE = np.array([20.0, 20.0, 20.0])


def beside(distance: float) -> Floats:
    """A place off the middle of `LONG`."""
    return MIDDLE + np.array([0.0, distance, 0.0])


def test_a_gap_is_bridged_where_f_allows_and_not_where_it_does_not() -> None:
    """Between two ends 3 sigmas apart, f falls by half; twelve apart, to nothing."""
    for width, pieces in ((1.5, 1), (6.0, 2)):
        kept = np.abs(LONG[:, 2] - 20.0) > width
        found = trace(tube(LONG[kept], 1.0), BOX)
        assert (found.parents < 0).sum() == pieces, f"a gap of {2 * width}"


def test_a_branch_shorter_than_asked_for_is_cut() -> None:
    side = straight(beside(1), beside(12), 0.4)
    field = together(tube(LONG, 1.0), tube(side, 1.0))
    assert len(trace(field, BOX, TraceSettings(shortest=6.0)).branches) == 2
    assert len(trace(field, BOX, TraceSettings(shortest=20.0)).branches) == 1


def test_a_short_side_branch_is_a_spine_with_a_head() -> None:
    neck = straight(beside(1), beside(9), 0.4)
    field = together(tube(LONG, 1.0), tube(neck, 0.6), tube(beside(9)[None], 1.2))
    branches = trace(field, BOX, TraceSettings(spine_length=12.0)).branches
    assert list(branches.spine) == [False, True]
    assert branches.length[1] == pytest.approx(9.0, abs=1.5)
    assert branches.head_width[1] == pytest.approx(4 * 1.2, rel=0.25)
    assert np.isnan(branches.head_width[0])
    assert not trace(field, BOX).branches.spine.any()


def test_a_trunk_that_tapers_off_is_one_branch_to_its_tip() -> None:
    """What goes on of a trunk behind its last fork is no spine, however thin."""
    ends = straight([20.0, 20.0, 3.0], [20.0, 20.0, 14.0], 0.4)
    field = together(
        tube(ends, 1.4),
        tube(straight([20.0, 20.0, 14.0], [20.0, 20.0, 37.0], 0.3), 0.6, 150.0),
        tube(straight([20.0, 21.0, 14.0], [20.0, 36.0, 14.0], 0.3), 0.6, 150.0),
    )
    found = trace(field, BOX)
    assert len(found.branches) == 2
    assert found.branches.length[0] == pytest.approx(34.0, abs=3.0)


def test_lengths_volumes_and_tortuosity_of_a_straight_tube() -> None:
    branches = trace(tube(LONG, 1.0), BOX).branches
    assert branches.length[0] == pytest.approx(34.0, abs=2.0)
    assert branches.tortuosity[0] == pytest.approx(1.0, abs=0.01)
    assert branches.mean_radius[0] == pytest.approx(2.0, rel=0.05)
    assert branches.volume[0] == pytest.approx(np.pi * 4 * branches.length[0], rel=0.1)


def test_a_soma_that_is_given_is_the_root_and_one_node() -> None:
    field = together(tube(LONG, 0.5, 60.0), tube(MIDDLE[None], 2.0, 80.0))
    found = trace(field, BOX, TraceSettings(soma=(*MIDDLE, 5.0)))
    assert found.kinds[0] == 1
    assert (found.kinds[1:] == 0).all()
    np.testing.assert_allclose(found.points[0], MIDDLE)
    assert found.radii[0] == pytest.approx(5.0)
    assert (found.parents == 0).sum() == 2
    assert np.linalg.norm(found.points[1:] - MIDDLE, axis=1).min() > 5.0
    assert set(found.branches.order) == {0, 1}


def assert_has_its_soma(phantom: Phantom, found: Trace) -> None:
    """Its one node is the root, four neurites leave it, and none runs about within."""
    assert phantom.soma is not None
    centre, radius = np.array(phantom.soma[:3]), phantom.soma[3]
    assert list(np.flatnonzero(found.kinds == 1)) == [0]
    np.testing.assert_allclose(found.points[0], centre, atol=0.1)
    assert found.radii[0] == pytest.approx(radius, rel=0.1)
    assert list(np.flatnonzero(found.parents < 0)) == [0]
    assert (found.parents == 0).sum() == len(found.branches) == 4
    assert found.branches.from_soma.all()
    # The least semiaxis is 1.7 micrometers.
    assert np.linalg.norm(found.points[1:] - centre, axis=1).min() > 1.4
    assert found.branches.mean_radius.max() < 0.6, "the soma's radius is none of a neurite"


@pytest.mark.parametrize("seed", range(3))
def test_a_soma_is_found_and_is_the_root(seed: int) -> None:
    phantom = neuron(seed=seed)
    assert_has_its_soma(phantom, trace(phantom.truth.numpy(), phantom.stack.box))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_soma_is_found_in_a_fit_of_a_noisy_stack(seed: int) -> None:
    phantom = neuron(seed=seed)
    found = trace(fit(phantom.stack).field.numpy(), phantom.stack.box)
    assert_has_its_soma(phantom, found)


def test_no_soma_is_found_where_there_is_none_or_none_is_looked_for() -> None:
    for seed in SEEDS:
        assert not traced(seed).found.kinds.any(), f"seed {seed}"
        assert not traced(seed).found.branches.from_soma.any()
    phantom = neuron()
    found = trace(phantom.truth.numpy(), phantom.stack.box, TraceSettings(find_soma=False))
    assert not found.kinds.any()


def test_a_lump_on_a_neurite_is_no_soma() -> None:
    """A swelling twice as wide, as a bouton or the head of a spine is."""
    field = together(tube(LONG, 1.0), tube(MIDDLE[None], 2.0, 100.0))
    assert not trace(field, BOX).kinds.any()


def test_nothing_to_follow_is_no_error() -> None:
    empty = tube(np.empty((0, 3)), 1.0)
    assert len(trace(empty, BOX)) == len(trace(empty, BOX).branches) == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [("faintest", 1.5), ("gap", -0.1), ("shortest", -1.0), ("spine_length", np.inf),
     ("psf_fwhm", (0.6, -1.0, 0.2)), ("soma", (0.0, 0.0, 0.0, -1.0))],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(setting: str, value: object) -> None:
    with pytest.raises(SettingsError, match=setting):
        TraceSettings(**{setting: value})
