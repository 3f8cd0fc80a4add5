"""Spots found without a count, against the truth, an oracle that starts there, and a peer."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from benchmarks.measurement import gaussian
from benchmarks.stacks import BEADS, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import measure as refine
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.candidates import candidates
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


def score(found: Floats, true: Floats) -> float:
    """F1 of places, each of one true one at most."""
    if not len(found):
        return 0.0
    near = cKDTree(true / SIGMAS).query(found / SIGMAS, distance_upper_bound=MATCHED)[1]
    hits = len(np.unique(near[near < len(true)]))
    return 2 * hits / (len(found) + len(true))


def error_over_bound(phantom: Phantom, means: Floats, bars: Floats) -> float:
    """RMS error of centres over the Cramer-Rao bound of the spots that were found."""
    true = phantom.truth.numpy().means
    nearest = cKDTree(true / SIGMAS).query(means / SIGMAS)[1]
    off = means - true[nearest]
    return float(np.sqrt(np.mean(np.square(off / bars))))


def by_blob_log(stack: Stack) -> Floats | None:
    """Return what skimage's blob_log finds with its defaults, widths aside; None without it."""
    try:
        feature = importlib.import_module("skimage.feature")
    except ImportError:
        return None
    blobs = feature.blob_log(stack.voxels.astype(np.float64), min_sigma=1, max_sigma=4, num_sigma=4)
    return np.asarray(blobs[:, :3] * stack.spacing, np.float64)


def compared(name: str, phantom: Phantom, *, peer: bool) -> tuple[Cell, ...]:
    """A row: ours, the oracle's, the peer's."""
    true = phantom.truth.numpy()
    began = time.perf_counter()
    found = fit_spots(phantom.stack)
    took = time.perf_counter() - began
    oracle = refine([true], [phantom.stack], noise=Noise(1.0))
    theirs = by_blob_log(phantom.stack) if peer else None
    errors = found.measurement.errors()
    bars = np.column_stack([errors[f"sd_{axis}"] for axis in "zyx"])
    return (
        name,
        len(true),
        len(found),
        score(found.gaussians.means, true.means),
        score(oracle.gaussians[0].means, true.means),
        None if theirs is None else score(theirs, true.means),
        error_over_bound(phantom, found.gaussians.means, bars),
        took,
    )


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
    found = fit_spots(stack, SpotSettings(likelihood="squared"))
    rows: list[tuple[Cell, ...]] = []
    for k in range(len(found)):
        ours = found.gaussians.select(np.array([k]))
        theirs = independent(stack, ours.means[0] / stack.spacing, ours)
        own = FWHM_PER_SIGMA * np.sqrt(np.diagonal(ours.covariances[0]))
        ratios = own / theirs
        place = ", ".join(f"{n:.1f}" for n in ours.means[0] / stack.spacing)
        rows.append((place, *map(float, own), *map(float, ratios)))
    return rows


def independent(stack: Stack, centre: Floats, near: object) -> Floats:
    """FWHM along z, y and x of a bead by `curve_fit`, in the stack's unit."""
    spacing = np.asarray(stack.spacing)
    sides = np.sqrt(np.diagonal(near.covariances[0])) / spacing  # type: ignore[attr-defined]
    half = np.ceil(3.5 * sides).astype(int)
    first = np.maximum(np.rint(centre).astype(int) - half, 0)
    last = np.minimum(np.rint(centre).astype(int) + half + 1, stack.shape)
    window = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    places = np.stack([axis.ravel() for axis in np.mgrid[window]]).astype(float)
    guess = [*centre, np.log(sides[0]), 0, np.log(sides[1]), 0, 0, np.log(sides[2])]
    values = stack.voxels[window].astype(float).ravel()
    found, _ = curve_fit(gaussian, places, values, [*guess, np.ptp(values), values.min()])
    factor = np.zeros((3, 3))
    factor[np.tril_indices(3)] = found[3:9]
    factor[np.diag_indices(3)] = np.exp(np.diag(factor))
    widths: Floats = FWHM_PER_SIGMA * np.sqrt(np.diagonal(factor @ factor.T)) * spacing
    return widths


def measure(options: Options) -> list[Table]:
    """How many, where, how well, how fast."""
    ways = [("48 of 100 photons", isolated(peak=100.0)), ("48 of 20 photons", isolated(peak=20.0))]
    if not options.small:
        ways.append(("48 rods of 100 photons", rods()))
        ways += [(kind.name, kind.phantom()) for kind in KINDS]
    rows = tuple(compared(name, phantom, peer=len(phantom.truth) < 500) for name, phantom in ways)
    header = (
        "what", "there", "found", "F1", "F1 of an oracle", "F1 of blob_log", "error over bound",
        "seconds",
    )  # fmt: skip
    note = (
        f"On {BACKGROUND:.0f} photons; found within {MATCHED:g} sigma. The oracle is refined from "
        "the true places and count; blob_log (skimage) has its default threshold."
    )
    big = options.pick((64, 512, 512), (16, 64, 64))
    stack = Kind("", options.pick(5000, 20), big).phantom().stack
    began = time.perf_counter()
    found = candidates(stack)
    first = time.perf_counter() - began
    began = time.perf_counter()
    found.chosen(0.05)
    again = time.perf_counter() - began
    noise = false_discoveries(options.pick(DRAWS, 1))
    tables = [
        Table("Spots against the truth", header, rows, (note,)),
        Table(
            "Spots in pure noise",
            ("what", "draws", "asked for", "draws with any", "spots"),
            (noise,),
        ),
        Table(
            "Candidates",
            ("stack", "first, s", "another share, s"),
            ((" x ".join(map(str, big)), first, again),),
        ),
    ]
    if not options.small:
        sides = ("z", "y", "x")
        columns = ("bead", *(f"FWHM {a}" for a in sides), *(f"over curve_fit {a}" for a in sides))
        tables.append(Table("Beads on a confocal", columns, tuple(beads())))
    return tables
