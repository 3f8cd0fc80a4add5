"""Where measuring is hard: light that no Gaussian over a constant describes, and two spots near."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import j1

from benchmarks.tables import Cell, Table
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.objects.spots import fit_spots
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.options import Options
    from napari_gaussfit.measure.measurement import Measurement

    Floats = NDArray[np.float64]

BACKGROUND, PITCH = 10.0, 26
SIGMAS = np.array([2.0, 1.5, 1.5])
NUMBERS = ("z", "y", "x", "amplitude", "integrated_intensity")


def grid_of(count: int, rng: np.random.Generator) -> tuple[Floats, tuple[int, int, int]]:
    """Places [N, 3] of things apart from each other, and the shape of a stack about them."""
    cells = (max(count // 16, 1), 4, 4)
    places = (np.indices(cells).reshape(3, -1).T + 0.5) * PITCH
    return places + rng.uniform(-2, 2, places.shape), (cells[0] * PITCH, 4 * PITCH, 4 * PITCH)


def squares(place: Floats, shape: tuple[int, int, int]) -> Floats:
    """Squared distances of all voxels from a place, in sigmas."""
    apart = (np.indices(shape).reshape(3, -1).T - place) / SIGMAS
    distances: Floats = np.square(apart).sum(axis=1).reshape(shape)
    return distances


def airy(places: Floats, shape: tuple[int, int, int]) -> Floats:
    """Spots of 1,000 photons with the rings of an Airy pattern about them."""
    light = np.full(shape, BACKGROUND)
    for place in places:
        v = np.maximum(1.4 * np.sqrt(squares(place, shape)), 1e-6)
        light += 1000.0 * np.square(2 * j1(v) / v)
    return light


def slanted(places: Floats, shape: tuple[int, int, int]) -> Floats:
    """Spots of 100 photons, the background rising by two photons a voxel across each one's cell."""
    light = np.broadcast_to(BACKGROUND + 2.0 * (np.arange(shape[2]) % PITCH), shape).copy()
    for place in places:
        light += 100.0 * np.exp(-0.5 * squares(place, shape))
    return light


def spots_at(places: Floats, peak: float) -> Gaussians:
    """Spots of one width."""
    covariances = np.tile(np.diag(SIGMAS**2), (len(places), 1, 1))
    return Gaussians.from_covariances(
        places, covariances, np.full(len(places), peak), background=BACKGROUND, unit="pixel"
    )


def values_of(found: Measurement) -> dict[str, Floats]:
    """The numbers that are compared."""
    gaussians = found.gaussians[0]
    values = {axis: gaussians.means[:, n].astype(np.float64) for n, axis in enumerate("zyx")}
    values["amplitude"] = gaussians.amplitudes.astype(np.float64)
    return values | {"integrated_intensity": gaussians.integrated_intensities()}


def model_of(found: Measurement, shape: tuple[int, int, int]) -> Floats:
    """The light that a measurement describes: Gaussians, each cell with its own background."""
    cells = tuple(n // PITCH for n in shape)
    light = np.kron(found.backgrounds[:, 0].reshape(cells), np.ones((PITCH,) * 3))
    dark = replace(found.gaussians[0], background=0.0)
    whole: Floats = light + GaussianField.from_numpy(dark).voxelise(shape, (1, 1, 1)).numpy()
    return whole


def wrong_models(draws: int, count: int) -> list[tuple[Cell, ...]]:
    """A row a number: spread over draws, over Fisher's error bars and over those that are given."""
    rows: list[tuple[Cell, ...]] = []
    for title, made, peak in (("Airy", airy, 1000.0), ("slanted background", slanted, 100.0)):
        rng = np.random.default_rng(4)
        places, shape = grid_of(count, rng)
        light = made(places, shape)
        clean = Stack.from_array(light)
        best = refine([spots_at(places, peak)], [clean], noise=Noise(1.0))
        # Where the model were true, Fisher's error bars are what is given.
        model = Stack.from_array(model_of(best, shape))
        bound = refine(list(best.gaussians), [model], noise=Noise(1.0), most_steps=0).errors()
        off: dict[str, list[Floats]] = {name: [] for name in NUMBERS}
        bars: dict[str, list[Floats]] = {name: [] for name in NUMBERS}
        for _ in range(draws):
            stack = Stack.from_array(rng.poisson(light).astype(np.float64))
            found = refine(list(best.gaussians), [stack], noise=Noise(1.0))
            own, errors = values_of(found), found.errors()
            for name in NUMBERS:
                off[name].append(own[name])
                bars[name].append(errors[f"sd_{name}"])
        for name in NUMBERS:
            spread = np.nanstd(off[name], axis=0, ddof=1)
            given = np.sqrt(np.nanmean(np.square(bars[name]), axis=0))
            ratios = (
                float(np.sqrt(np.nanmean(np.square(spread / one))))
                for one in (bound[f"sd_{name}"], given)
            )
            rows.append((title, name, *ratios))
    return rows


def pairs_phantom(
    distance: float, *, peak: float = 100.0, count: int = 48, seed: int = 0
) -> tuple[Gaussians, Stack]:
    """Make pairs of equal spots, `distance` sigmas apart in any direction; and their stack.

    Gaussians 2 n and 2 n + 1 are a pair. In voxels, on `BACKGROUND` photons.
    """
    rng = np.random.default_rng(seed)
    middles, shape = grid_of(count, rng)
    directions = rng.normal(size=middles.shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    half = directions * SIGMAS * distance / 2
    truth = spots_at(np.stack([middles - half, middles + half], axis=1).reshape(-1, 3), peak)
    light = np.full(shape, BACKGROUND)
    for place in truth.means:
        light += peak * np.exp(-0.5 * squares(place, shape))
    return truth, Stack.from_array(rng.poisson(light).astype(np.float64))


def both_found(truth: Gaussians, found: Measurement) -> float:
    """Part of the pairs of which both are found, within three error bars along each axis."""
    if not len(found):
        return 0.0
    means, errors = found.gaussians[0].means, found.errors()
    bars = np.column_stack([errors[f"sd_{axis}"] for axis in "zyx"])
    nearest = cKDTree(means / SIGMAS).query(truth.means / SIGMAS)[1]
    near = np.all(np.abs(means[nearest] - truth.means) < 3 * bars[nearest], axis=1)
    pairs = nearest.reshape(-1, 2)
    return float(np.mean(near.reshape(-1, 2).all(axis=1) & (pairs[:, 0] != pairs[:, 1])))


def pairs(distance: float, count: int) -> tuple[Cell, ...]:
    """A row: pairs that are found without a count, and by an oracle that starts from the truth."""
    truth, stack = pairs_phantom(distance, count=count)
    oracle = refine([truth], [stack], noise=Noise(1.0))
    spots = fit_spots(stack).measurement
    return (
        f"{distance:g} sigmas",
        len(truth) // 2,
        both_found(truth, spots),
        both_found(truth, oracle),
    )


def measure(options: Options) -> list[Table]:
    """How true error bars are where no model holds; how near two spots may be."""
    draws, count = options.pick((20, 48), (2, 16))
    wrong = wrong_models(draws, count)
    near = tuple(pairs(d, count) for d in options.pick((3.0, 2.0, 1.5), (3.0,)))
    return [
        Table(
            "Error bars where the model does not hold",
            ("what", "number", "spread over Fisher's", "spread over those given"),
            tuple(wrong),
            (f"{draws} draws of {count}; spread of what is found over error bars (their RMS).",),
        ),
        Table(
            "Pairs of spots of 100 photons",
            ("apart", "pairs", "both found, as spots", "by an oracle"),
            near,
            ("Found within three error bars along z, y and x; the oracle starts from the truth.",),
        ),
    ]
