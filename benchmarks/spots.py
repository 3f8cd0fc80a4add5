"""Spots found without a count: against the truth, an oracle that starts there, and others."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from benchmarks.peers import PEERS, Peer, by_curve_fit, missing
from benchmarks.stacks import BEADS, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.candidates import CandidateFinder
from napari_gaussfit.objects.spots import SpotSettings, fit_spots
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import Phantom, photon_counts
from napari_gaussfit.synthetic.phantoms import spots as isolated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.options import Options

    Floats = NDArray[np.float64]

SPACING, BACKGROUND = (0.2, 0.1, 0.1), 10.0
SIGMAS = np.multiply((2.0, 1.5, 1.5), SPACING)
MATCHED = 1.0
"""Sigmas of a spot within which what is found is that spot."""

MOST_FITTED = 200
"""Spots that other programs fit one by one: more takes them many minutes."""

DRAWS, SHARE = 20, 0.01


@dataclass(frozen=True)
class Kind:
    """A phantom of spots at random places."""

    name: str
    count: int
    shape: tuple[int, int, int]

    def phantom(self, seed: int = 0) -> Phantom:
        """Make it, of 50 to 150 photons a spot."""
        rng = np.random.default_rng(seed)
        last = np.subtract(self.shape, 4)
        means = rng.uniform((3, 3, 3), last, (self.count, 3)) * SPACING
        covariances = np.broadcast_to(np.diag(SIGMAS**2), (self.count, 3, 3))
        truth = GaussianField.from_covariances(
            means, covariances, rng.uniform(50, 150, self.count), background=BACKGROUND
        )
        return photon_counts(truth, self.shape, SPACING, seed=seed + 1)


KINDS = (
    Kind("150 at random", 150, (42, 120, 120)),
    Kind("500 at random", 500, (64, 512, 512)),
    Kind("5,000 at random", 5000, (64, 512, 512)),
)


def rods(seed: int = 0) -> Phantom:
    """Make 48 rods apart from each other, each turned at random."""
    rng = np.random.default_rng(seed)
    cells = np.indices((3, 4, 4)).reshape(3, -1).T
    means = ((cells + 0.5) * 26 + rng.uniform(-2, 2, cells.shape)) * SPACING
    turns = Rotation.random(len(means), random_state=rng).as_matrix()
    scale = np.diag(SPACING)
    covariances = scale @ turns @ np.diag(np.square((3.5, 1.5, 1.2))) @ turns.swapaxes(1, 2) @ scale
    truth = GaussianField.from_covariances(
        means, covariances, np.full(len(means), 100.0), background=BACKGROUND
    )
    return photon_counts(truth, (78, 104, 104), SPACING, seed=seed + 1)


@dataclass(frozen=True)
class Score:
    """How right places are, each of one true spot at most.

    error : root mean square of the distance of those found to their spots, in sigmas.
    """

    f1: float
    error: float

    @classmethod
    def of(cls, found: Floats, true: Floats) -> Score:
        """Places [N, 3] and true ones, in micrometres."""
        if not len(found):
            return cls(0.0, math.nan)
        apart, near = cKDTree(true / SIGMAS).query(found / SIGMAS, distance_upper_bound=MATCHED)
        hit = np.isfinite(apart)
        hits = len(np.unique(near[hit]))
        error = math.sqrt(np.mean(np.square(apart[hit]))) if hit.any() else math.nan
        return cls(2 * hits / (len(found) + len(true)), error)


def by_peer(peer: Peer, phantom: Phantom) -> Floats:
    """What a program finds, and fits if it does and they are not too many, in micrometres."""
    assert peer.find is not None
    voxels = phantom.stack.voxels.astype(np.float64)
    sigmas = SIGMAS / SPACING
    places = peer.find(voxels, sigmas).positions
    if peer.fit_at is not None and 0 < len(places) <= MOST_FITTED:
        fitted = peer.fit_at(voxels, places, sigmas).positions
        failed = ~np.all(np.isfinite(fitted), axis=1)
        places = np.where(failed[:, None], places, fitted)
    return np.asarray(places * SPACING, np.float64)


def compared(name: str, phantom: Phantom) -> list[tuple[Cell, ...]]:
    """Rows: ours, an oracle that is refined from the truth, and every other program."""
    true = phantom.truth.numpy()
    oracle = refine([true], [phantom.stack], noise=Noise(1.0))
    errors = oracle.errors()
    bars = np.column_stack([errors[f"sd_{axis}"] for axis in "zyx"])
    began = time.perf_counter()
    found = fit_spots(phantom.stack).gaussians.means
    took = time.perf_counter() - began
    bound = over_bound(found, true.means, bars)
    rows: list[tuple[Cell, ...]] = []
    own, best = Score.of(found, true.means), Score.of(oracle.gaussians[0].means, true.means)
    rows += [
        (name, len(true), "ours", len(found), own.f1, own.error, bound, took),
        (name, len(true), "oracle", len(true), best.f1, best.error, None, None),
    ]
    for peer in PEERS:
        if peer.find is None or not peer.installed:
            continue
        began = time.perf_counter()
        places = by_peer(peer, phantom)
        took = time.perf_counter() - began
        theirs = Score.of(places, true.means)
        rows.append((name, len(true), peer.name, len(places), theirs.f1, theirs.error, None, took))
    return rows


def over_bound(found: Floats, true: Floats, bars: Floats) -> float:
    """RMS error of centres over the Cramer-Rao bound of the spots that were found."""
    apart, near = cKDTree(true / SIGMAS).query(found / SIGMAS, distance_upper_bound=MATCHED)
    hit = np.isfinite(apart)
    off = (found[hit] - true[near[hit]]) / bars[near[hit]]
    return float(np.sqrt(np.nanmean(np.square(off))))


def false_discoveries(draws: int) -> tuple[Cell, ...]:
    """A row: what is found on noise alone."""
    rng = np.random.default_rng(7)
    found = [
        len(fit_spots(Stack.from_array(rng.poisson(BACKGROUND, (40, 128, 128)), spacing=SPACING)))
        for _ in range(draws)
    ]
    return ("noise alone", draws, SHARE, sum(map(bool, found)), sum(found))


def beads() -> list[tuple[Cell, ...]]:
    """A row a bead: FWHM by squared error, and by `curve_fit` in a window of 3.5 sigmas."""
    stack = open_stack(BEADS)
    spacing = np.asarray(stack.spacing)
    found = fit_spots(stack, SpotSettings(likelihood="squared")).gaussians
    rows: list[tuple[Cell, ...]] = []
    for mean, covariance in zip(found.means, found.covariances, strict=True):
        sigmas = np.sqrt(np.diagonal(covariance))
        place = mean / spacing
        theirs = by_curve_fit(stack.voxels.astype(np.float64), place[None], sigmas / spacing)
        own, other = FWHM_PER_SIGMA * sigmas, FWHM_PER_SIGMA * theirs.sigmas[0] * spacing
        where = ", ".join(f"{n:.1f}" for n in place)
        rows.append((where, *own.tolist(), *(own / other).tolist()))
    return rows


def measure(options: Options) -> list[Table]:
    """How many, where, how well, how fast."""
    ways = [("48 of 100 photons", isolated(peak=100.0)), ("48 of 20 photons", isolated(peak=20.0))]
    if not options.small:
        ways.append(("48 rods of 100 photons", rods()))
        ways += [(kind.name, kind.phantom()) for kind in KINDS]
    rows = tuple(row for name, phantom in ways for row in compared(name, phantom))
    header = ("what", "there", "way", "found", "F1", "error, sigmas", "over the bound", "seconds")
    note = (
        f"On {BACKGROUND:.0f} photons; found within {MATCHED:g} sigma. No count is given; the "
        "oracle is refined from the true places and count. Others are told how wide spots are, and "
        f"fit up to {MOST_FITTED} where they can; parameters as their documentation chooses them."
    )
    big = options.pick((64, 512, 512), (16, 64, 64))
    stack = Kind("", options.pick(5000, 20), big).phantom().stack
    began = time.perf_counter()
    finder = CandidateFinder(stack)
    found = finder.find()
    first = time.perf_counter() - began
    began = time.perf_counter()
    found.chosen(0.05)
    share = time.perf_counter() - began
    began = time.perf_counter()
    finder.find(0.25, 0.8)
    sizes = time.perf_counter() - began
    noise = false_discoveries(options.pick(DRAWS, 1))
    tables = [
        Table("Spots against the truth", header, rows, (note, *missing())),
        Table(
            "Spots in pure noise",
            ("what", "draws", "asked for", "draws with any", "spots"),
            (noise,),
        ),
        Table(
            "Candidates",
            ("stack", "first, s", "another share, s", "other sizes, s"),
            ((" x ".join(map(str, big)), first, share, sizes),),
        ),
    ]
    if not options.small:
        sides = ("z", "y", "x")
        columns = ("bead", *(f"FWHM {a}" for a in sides), *(f"over curve_fit {a}" for a in sides))
        tables.append(Table("Beads on a confocal", columns, tuple(beads())))
    return tables
