"""Spots: one Gaussian each, as many as the stack tells, refined together, with error bars.

What the score test finds is refined; what that leaves is searched again; close spots are one or two
as the likelihood says, against what the parameters of a second one cost (G. Schwarz, Ann. Statist.
6 (1978) 461). This goes on until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.table import FLAGS, measurements
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.objects.filters import local_maxima
from napari_gaussfit.objects.pairs import close_pairs
from napari_gaussfit.objects.points import measure_points
from napari_gaussfit.objects.search import Search
from napari_gaussfit.objects.spot_settings import SpotSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.candidates import Sizes
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = ["SpotSettings", "Spots", "fit_spots", "follow_spots", "peaks_seen", "spots_table"]

ROUNDS = 6
"""Of searching what is left, at most."""

HELD = "spots overlap so much that widths cannot be told: they have those of the filters"

NEIGHBOURS_WITHIN = 3.0
"""Sigmas of a spot within which others are counted as its neighbours."""


@dataclass(frozen=True, eq=False)
class Spots:
    """The spots of a stack.

    Parameters
    ----------
    measurement : Measurement
        A Gaussian each, with its error bars, from the least z, then y and x.
    signal_to_noise : ndarray, shape [K]
        Standard deviations by which each is above the noise, its own light's included.
    neighbours : ndarray of int, shape [K]
        Other spots within 3 sigmas of each.
    threshold : float
        Standard deviations from which the filters' answers are spots.
    least : float
        From which they would be if answers spread no more than the noise explains: what another
        time begins with.
    noise : Noise
        That was assumed in the end.
    sizes : Sizes
        That were looked for.
    rounds : int
        In which what was left was searched; nothing was found in the last.
    notes : tuple of str
        Sentences on what was assumed, for the user to read.
    """

    measurement: Measurement
    signal_to_noise: Floats
    neighbours: NDArray[np.int64]
    threshold: float
    least: float
    noise: Noise
    sizes: Sizes
    rounds: int
    notes: tuple[str, ...] = ()

    @property
    def gaussians(self) -> Gaussians:
        """One a spot."""
        return self.measurement.gaussians[0]

    def __len__(self) -> int:
        """Return the number of spots."""
        return len(self.measurement)


def fit_spots(
    stack: Stack,
    settings: SpotSettings | None = None,
    *,
    points: ArrayLike | None = None,
    excluded: ArrayLike | None = None,
    told: Callable[[int, int], None] | None = None,
    meanwhile: Callable[[str], object] | None = None,
) -> Spots:
    """Find the spots of a stack, one Gaussian each, and measure them.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    settings : SpotSettings, optional
        The defaults if None. No count is asked for.
    points : array-like, shape [P, 3], optional
        z, y, x in the stack's unit of spots that are there whatever the noise says.
    excluded : array-like, shape [P, 3], optional
        Where no spot is: what is found within its own FWHM of one is left out.
    told : callable, optional
        Called after each round with how many there were, and how many spots there are.
    meanwhile : callable, optional
        Called within rounds, with words: what is being done, and how far that is.

    Returns
    -------
    Spots
        The same each time.

    Raises
    ------
    SettingsError
        If a setting is none, a point lies outside of the stack, or the noise cannot be estimated.
    """
    settings = settings or SpotSettings()
    if settings.psf is not None:
        settings.psf.in_unit(stack.unit)  # which refuses a stack without a spacing
        if settings.likelihood != "poisson":
            raise SettingsError(
                "likelihood='squared' tells no points apart; leave it out, or the PSF"
            )
    places = _places(stack, points), _places(stack, excluded)
    search = Search(stack, settings, *places, meanwhile)
    return _found(stack, search, told)


def follow_spots(
    stack: Stack, settings: SpotSettings, before: Gaussians, threshold: float
) -> Spots:
    """Find the spots of a stack by those of another time: these are refined, and others sought.

    What is left is looked through once, by fewer filters than at a first time, as it is known how
    wide spots are. Of a time without spots nothing is known, and this one is a first.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    settings : SpotSettings
        As for `fit_spots`, with the noise of the other time: a detector has one.
    before : Gaussians
        Spots of the other time, where they should be by now.
    threshold : float
        Standard deviations from which the filters' answers were spots there: `Spots.least`.

    Returns
    -------
    Spots
        In no order of the ones before.
    """
    if not len(before):
        return fit_spots(stack, settings)
    nothing = np.zeros((0, 3))
    search = Search(stack, settings, nothing, nothing)
    search.follow(before, threshold)
    return _found(stack, search)


def _found(stack: Stack, search: Search, told: Callable[[int, int], None] | None = None) -> Spots:
    """Search and resolve until nothing is added, and measure what was found."""
    rounds, added = 0, True
    while added and rounds < ROUNDS:
        rounds += 1
        added = search.add()
        search.resolve()
        if told is not None:
            told(rounds, len(search.gaussians))
    measured = search.finish()
    psf = search.settings.psf
    if psf is not None:
        measured = measure_points(stack, measured.gaussians[0], psf, search.noise)
    pairs, _ = close_pairs(measured.gaussians[0], NEIGHBOURS_WITHIN)
    notes: tuple[str, ...] = (HELD,) if search.held else ()
    notes += (f"spots were still found in round {ROUNDS}, the last",) if added else ()
    return Spots(
        measured,
        _signal_to_noise(measured, search.noise, np.asarray(stack.spacing)),
        np.bincount(pairs.ravel(), minlength=len(measured)).astype(np.int64),
        search.threshold,
        search.least,
        search.noise,
        search.sizes,
        rounds,
        notes,
    )


def _places(stack: Stack, given: ArrayLike | None) -> Floats:
    """Return points in voxels; refuse those that are not of the stack."""
    at = np.asarray([] if given is None else given, np.float64).reshape(-1, 3)
    places: Floats = at / np.asarray(stack.spacing)
    outside = ~np.all((places >= -0.5) & (places <= np.array(stack.shape) - 0.5), axis=1)
    if outside.any():
        found = ", ".join(f"{n:g}" for n in at[np.argmax(outside)])
        message = f"the point {found} ({stack.unit}) lies outside of the stack; leave it out"
        raise SettingsError(message)
    return places


def _signal_to_noise(measured: Measurement, noise: Noise, spacing: Floats) -> Floats:
    """Return the root of the sum of f^2 / var(b + f) over all voxels, as an integral over r."""
    [gaussians] = measured.gaussians
    r = np.linspace(0.0, 6.0, 121)
    shape = np.exp(-0.5 * r * r)
    light = gaussians.amplitudes[:, None].astype(np.float64) * shape
    variance = np.maximum(noise.variance(light + measured.backgrounds[:, :1]), 1e-30)
    volumes = np.exp(gaussians.log_widths.sum(1)) / spacing.prod()
    squares = np.trapezoid(4 * np.pi * r * r * light**2 / variance, r, axis=1)
    found: Floats = np.sqrt(volumes * squares)
    return found


def peaks_seen(spots: Spots, shape: tuple[int, int, int], spacing: Sequence[float]) -> int:
    """Return how many peaks the projection along z of spots has: what a person counts there.

    Parameters
    ----------
    spots : Spots
        The spots that a search has found.
    shape : tuple of int
        The number of voxels along z, y and x.
    spacing : sequence of float
        (dz, dy, dx) of the stack, in the spots' unit.

    Returns
    -------
    int
        Fewer than spots, where these lie behind or close beside each other. Peaks stand above the
        usual background by as much as spots must.
    """
    field = GaussianField.from_numpy(replace(spots.gaussians, background=0.0))
    light = field.voxelise(shape, spacing).numpy().max(0, keepdims=True)
    if not len(spots):
        return 0
    usual = np.array([spots.gaussians.background])
    return len(
        local_maxima(light, spots.threshold * float(np.sqrt(spots.noise.variance(usual))[0]))
    )


def spots_table(spots: Spots, spacing: Sequence[float]) -> pd.DataFrame:
    """Return what there is to know of each spot.

    Parameters
    ----------
    spots : Spots
        The K spots that get a row each.
    spacing : sequence of float
        (dz, dy, dx) of the stack, in the spots' unit.

    Returns
    -------
    DataFrame, K rows
        The columns of `measurements`, error bars among them, and signal_to_noise (standard
        deviations by which the spot as a whole is above the noise) and neighbours (other spots
        within 3 sigmas) before flags.
    """
    field = GaussianField.from_numpy(spots.gaussians)
    table = measurements(field, spacing, measurement=spots.measurement)
    for name, values in (
        ("signal_to_noise", spots.signal_to_noise),
        ("neighbours", spots.neighbours),
    ):
        table.insert([*table.columns].index(FLAGS), name, values)
    return table
