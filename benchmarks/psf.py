"""Objects whose blur is known: their own widths, points that overlap, widths that are shared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tables import Cell, Table
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.spots import SpotSettings, fit_spots
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import photon_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.options import Options

    Floats = NDArray[np.float64]

SPACING = np.array([0.2, 0.1, 0.1])
BLUR = np.array([0.4, 0.15, 0.15])
"""Standard deviations of the light of a point, in micrometres: 2, 1.5 and 1.5 voxels."""

PSF = Psf.of_fwhm(tuple(FWHM_PER_SIGMA * BLUR))
BACKGROUND, NOISE = 10.0, Noise(1.0)
PITCH, CELLS = np.array([28, 32, 32]), (3, 4, 4)
"""Voxels from one object or pair to the next; objects along z, y, x."""

TIMES, PEAKS, APART = (0.5, 1.0, 1.5, 2.0), (20.0, 100.0, 1000.0), (2.0, 1.5, 1.0)
FITS = 3
"""Draws that the fit itself sees."""


def middles(cells: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """Places apart from each other, in micrometres."""
    places = np.indices(cells).reshape(3, -1).T
    return (places + 0.5) * PITCH * SPACING + rng.uniform(-0.5, 0.5, places.shape) * SPACING


def made(means: Floats, sigmas: Floats, peak: float) -> Gaussians:
    """Gaussians along the axes, of equal widths and heights, in photons."""
    covariances = np.broadcast_to(np.diag(np.square(sigmas)), (len(means), 3, 3))
    return Gaussians.from_covariances(
        means, covariances, np.full(len(means), peak), background=BACKGROUND
    )


def recorded(truth: Gaussians, cells: tuple[int, int, int], seed: int) -> Stack:
    """A stack of them."""
    z, y, x = (int(n) for n in PITCH * cells)
    dz, dy, dx = (float(step) for step in SPACING)
    return photon_counts(GaussianField.from_numpy(truth), (z, y, x), (dz, dy, dx), seed=seed).stack


def beside(truth: Gaussians, rng: np.random.Generator) -> Gaussians:
    """Where a fit may have left them: a tenth of a voxel and a tenth of all else away."""
    off = 0.1 * np.array([1, 0, 1, 0, 0, 1])
    means = truth.means + rng.normal(0, 0.1, truth.means.shape) * SPACING
    return replace(
        truth, means=means, cholesky=truth.cholesky + off, amplitudes=0.9 * truth.amplitudes
    )


def own_widths(found: Measurement) -> tuple[Floats, Floats]:
    """Objects' widths along z, y and x, and their errors, as tables have them along own axes."""
    sigmas, errors = found.along_axes()
    variances = np.maximum(sigmas**2 - BLUR**2, 0.0)
    spread = 2 * sigmas * errors
    widths = np.sqrt(variances)
    below = widths - np.sqrt(np.maximum(variances - spread, 0.0))
    return widths, np.maximum(np.sqrt(variances + spread) - widths, below)


def width_row(
    times: float, peak: float, draws: int, cells: tuple[int, int, int]
) -> tuple[Cell, ...]:
    """A row: how near to the truth, and how often within 5 % or two error bars."""
    rng = np.random.default_rng(1)
    true, errors, within, pulls, by_fit = times * BLUR, [], [], [], []
    for draw in range(draws):
        truth = made(middles(cells, rng), BLUR * np.hypot(1, times), peak)
        stack = recorded(truth, cells, draw)
        constraints = Constraints(psf=PSF)
        found = refine([beside(truth, rng)], [stack], noise=NOISE, constraints=constraints)
        widths, bars = own_widths(found)
        errors.append(widths / true - 1)
        pulls.append((widths - true) / bars)
        within.append(np.abs(widths - true) <= np.maximum(0.05 * true, 2 * bars))
        if draw < FITS:
            settings = FitSettings(device="cpu")
            result = fit(stack, settings, points=truth.means.astype(np.float64), psf=PSF)
            variances = np.diagonal(result.field.numpy().covariances, axis1=1, axis2=2)
            by_fit.append(np.sqrt(np.maximum(variances - BLUR**2, 0.0)) / true - 1)
    off = np.concatenate(errors)
    return (
        f"{times:g} times, {peak:.0f} photons",
        100 * float(np.sqrt(np.mean(off**2))),
        100 * float(np.mean(off)),
        100 * float(np.mean(np.concatenate(within))),
        float(np.std(np.concatenate(pulls))),
        100 * float(np.sqrt(np.mean(np.concatenate(by_fit) ** 2))),
        100 * float(np.mean(np.concatenate(by_fit))),
    )


def told_apart(found: Measurement, pairs: Floats) -> list[bool]:
    """Of which pairs [P, 2, 3] both are found, each within three of its error bars."""
    means = found.gaussians[0].means
    bars = np.stack([found.errors()[f"sd_{axis}"] for axis in "zyx"], 1)
    right = []
    for pair in pairs:
        near = np.flatnonzero((np.abs((means - pair.mean(0)) / BLUR) < 4).all(1))
        ways = ([0, 1], [1, 0]) if len(near) == 2 else ()
        right.append(any((np.abs(means[near] - pair[w]) < 3 * bars[near]).all() for w in ways))
    return right


def pairs_row(apart: float, draws: int, cells: tuple[int, int, int]) -> tuple[Cell, ...]:
    """A row: pairs found by spots and from the truth, with their width known and without."""
    rng = np.random.default_rng(2)
    shares: dict[str, list[bool]] = {}
    for draw in range(draws):
        centres = middles(cells, rng)
        along = rng.normal(size=centres.shape)
        off = along / np.linalg.norm(along, axis=1, keepdims=True) * BLUR * apart / 2
        pairs = np.stack([centres - off, centres + off], 1)
        truth = made(pairs.reshape(-1, 3), BLUR, 100.0)
        stack = recorded(truth, cells, draw)
        known = Constraints(shape="point", psf=PSF)
        for name, found in {
            "spots": fit_spots(stack, SpotSettings(psf=PSF)).measurement,
            "oracle": refine([truth], [stack], noise=NOISE, constraints=known),
            "free spots": fit_spots(stack).measurement,
            "free oracle": refine([truth], [stack], noise=NOISE),
        }.items():
            shares.setdefault(name, []).extend(told_apart(found, pairs))
    count = len(shares["spots"])
    return (f"{apart:g} sigma", count, *(100 * float(np.mean(one)) for one in shares.values()))


def shared_rows(draws: int, cells: tuple[int, int, int]) -> list[tuple[Cell, ...]]:
    """A row a number: RMS error over the bound, where widths are shared and where they are free."""
    rng = np.random.default_rng(3)
    off: dict[tuple[str, str], list[Floats]] = {}
    names = ("amplitude", "integrated_intensity", "z", "x")
    for draw in range(draws):
        truth = made(middles(cells, rng), np.array([0.44, 0.2, 0.15]), 100.0)
        stack, start = recorded(truth, cells, draw), beside(truth, rng)
        for way, known in (("free", None), ("shared", Constraints(widths="shared"))):
            found = refine([start], [stack], noise=NOISE, constraints=known)
            errors, [own] = found.errors(), found.gaussians
            values = {"amplitude": (own.amplitudes, truth.amplitudes)}
            integrals = own.integrated_intensities(), truth.integrated_intensities()
            values["integrated_intensity"] = integrals
            values |= {a: (own.means[:, n], truth.means[:, n]) for n, a in enumerate("zyx")}
            for name in names:
                one, true = values[name]
                pull = np.asarray(one - true, np.float64) / errors[f"sd_{name}"]
                off.setdefault((way, name), []).append(np.stack([pull, errors[f"sd_{name}"]]))
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        free, shared = (np.concatenate(off[way, name], axis=1) for way in ("free", "shared"))
        rms = [float(np.sqrt(np.mean(one[0] ** 2))) for one in (free, shared)]
        rows.append((name, *rms, float(np.mean(shared[1]) / np.mean(free[1]))))
    return rows


def measure(options: Options) -> list[Table]:
    """What a known blur, and what other knowledge, is worth."""
    draws, cells = options.pick(10, 1), options.pick(CELLS, (1, 2, 2))
    times, apart = options.pick(TIMES, TIMES[:1]), options.pick(APART, APART[:1])
    peaks = options.pick(PEAKS, PEAKS[1:2])
    objects = int(np.prod(cells))
    widths = tuple(width_row(one, peak, draws, cells) for peak in peaks for one in times)
    note = (
        f"{draws} draws of {objects} on {BACKGROUND:.0f} photons, widths along z, y and x; the fit "
        f"alone, which has not measured: {min(draws, FITS)} draws. In percent of the true width, "
        "but for pulls."
    )
    header = (
        "own width", "RMS error", "bias", "within 5 % or two error bars", "pulls' sd",
        "RMS error of the fit alone", "its bias",
    )  # fmt: skip
    pairs = tuple(pairs_row(one, draws, cells) for one in apart)
    said = (
        f"Percent of which both are found, each within three error bars; {draws} draws, peaks of "
        f"100 photons over {BACKGROUND:.0f}, in any direction. The oracle begins at the truth."
    )
    columns = (
        "apart", "pairs", "spots, PSF known", "an oracle, PSF known", "spots", "an oracle",
    )  # fmt: skip
    shared = ("number", "free, RMS over bound", "shared, RMS over bound", "shared bound over free")
    return [
        Table("Objects' own widths, the PSF known", header, widths, (note,)),
        Table("Pairs of points", columns, pairs, (said,)),
        Table("Widths that all share", shared, tuple(shared_rows(draws, cells))),
    ]
