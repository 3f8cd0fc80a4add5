"""Refined Gaussians against the truth, the Cramer-Rao bound, and SciPy's `curve_fit`."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import curve_fit
from scipy.spatial.transform import Rotation

from benchmarks.peers import PEERS, Peer, Spots, gaussian, missing, windows
from benchmarks.tables import Cell, Table
from benchmarks.timing import Way, medians, with_kernels
from napari_gaussfit.measure.measurement import Measurement
from napari_gaussfit.measure.measuring import measure as measure_points
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.refinement import LEAST_HALF, WINDOW, refine
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.options import Options

    Floats = NDArray[np.float64]

BACKGROUND, PITCH, CELLS = 10.0, 26, (3, 4, 4)
"""Photons a voxel without any; voxels from one Gaussian to the next; Gaussians along z, y, x."""

MANY = (8, 16, 16)
"""Gaussians along z, y, x whose refinement is timed."""

DIMMEST = 20.0
"""Photons at the peak of the dimmest."""

MANY_DRAWS = 40
"""That tell a mean of pulls to a fortieth of an error bar: of 10 it would be a twentieth, and of so
many numbers some are by twice as much off by chance."""

SPOT = (2.0, 1.5, 1.5)
"""Sigmas along z, y and x of a spot that others fit too."""

COMPARED = ("z", "y", "x", "sigma_z", "sigma_y", "sigma_x", "amplitude", "integrated_intensity")
OURS = "ours"
ASTRAY = 20.0
"""Times the bound that an error is of a fit that went astray."""

DETECTOR = {"gain": 2.3, "offset": 100.0, "read": 1.5}
NUMBERS = (*COMPARED, "sigma_1", "sigma_2", "sigma_3", "background")


@dataclass(frozen=True)
class Scene:
    """What is measured: Gaussians apart from each other, each turned at random or not at all."""

    name: str
    sigmas: tuple[float, float, float]
    peak: float
    detector: bool = False
    turned: bool = True

    @property
    def noise(self) -> Noise:
        """The noise of its stacks."""
        return Noise.of_detector(**DETECTOR) if self.detector else Noise(1.0)

    def recorded(self, light: Floats, rng: np.random.Generator) -> Stack:
        """A stack of it."""
        photons = rng.poisson(light).astype(np.float64)
        if not self.detector:
            return Stack.from_array(photons)
        read = rng.normal(0, DETECTOR["read"], light.shape)
        return Stack.from_array(DETECTOR["gain"] * photons + DETECTOR["offset"] + read)


SCENES = (
    *(Scene("spots", SPOT, peak, turned=False) for peak in (DIMMEST, 100.0, 1000.0)),
    *(Scene("rods", (3.5, 1.5, 1.2), peak) for peak in (DIMMEST, 100.0, 1000.0)),
    Scene("spots, gain 2.3", SPOT, 100.0, detector=True, turned=False),
)


def truth_of(scene: Scene, cells: tuple[int, int, int], rng: np.random.Generator) -> Gaussians:
    """The Gaussians of a scene, in photons."""
    places = np.indices(cells).reshape(3, -1).T
    means = (places + 0.5) * PITCH + rng.uniform(-2, 2, places.shape)
    turns = np.broadcast_to(np.eye(3), (len(means), 3, 3))
    if scene.turned:
        turns = Rotation.random(len(means), random_state=rng).as_matrix()
    covariances = turns @ np.diag(np.square(scene.sigmas)) @ turns.swapaxes(1, 2)
    return Gaussians.from_covariances(
        means, covariances, np.full(len(means), scene.peak), background=BACKGROUND, unit="pixel"
    )


def light_of(truth: Gaussians, cells: tuple[int, int, int]) -> Floats:
    """What is to be seen of them, without an end: photons a voxel in the mean."""
    shape = tuple(PITCH * n for n in cells)
    light = np.full(shape, BACKGROUND)
    for mean, covariance, amplitude in zip(
        truth.means, truth.covariances, truth.amplitudes, strict=True
    ):
        first = np.maximum(np.rint(mean).astype(int) - 24, 0)
        part = tuple(slice(a, a + 49) for a in first)
        places = np.stack(
            np.meshgrid(
                *(np.arange(n)[s] for n, s in zip(shape, part, strict=True)), indexing="ij"
            ),
            -1,
        )
        d = places - mean
        square = np.einsum("...i,ij,...j", d, np.linalg.inv(covariance), d)
        light[part] += amplitude * np.exp(-0.5 * square)
    return light


def start_of(scene: Scene, truth: Gaussians, rng: np.random.Generator) -> Gaussians:
    """Where a fit may have left them: a tenth of a voxel and a tenth of all else away."""
    gain, offset = (DETECTOR["gain"], DETECTOR["offset"]) if scene.detector else (1.0, 0.0)
    return Gaussians(
        truth.means + rng.normal(0, 0.1, truth.means.shape),
        truth.cholesky + np.array([0.1, 0, 0.1, 0, 0, 0.1]),
        truth.amplitudes * 0.9 * gain,
        BACKGROUND * gain + offset,
        "pixel",
    )


def values_of(gaussians: Gaussians, backgrounds: Floats) -> dict[str, Floats]:
    """What is measured of each."""
    found = spots_of(gaussians).numbers()
    found |= {f"sigma_{n + 1}": own for n, own in enumerate(gaussians.principal()[0].T)}
    found["integrated_intensity"] = gaussians.integrated_intensities()
    found["background"] = backgrounds
    return found


def errors_of(scene: Scene, found: Measurement, truth: Gaussians) -> dict[str, Floats]:
    """Measured less true."""
    gain, offset = (DETECTOR["gain"], DETECTOR["offset"]) if scene.detector else (1.0, 0.0)
    true = Gaussians(truth.means, truth.cholesky, truth.amplitudes * gain, 0.0, "pixel")
    right = values_of(true, np.full(len(truth), BACKGROUND * gain + offset))
    own = values_of(found.gaussians[0], found.backgrounds[:, 0])
    own |= {f"sigma_{n + 1}": widths for n, widths in enumerate(found.principal_widths[0].T)}
    return {name: own[name] - right[name] for name in NUMBERS}


def accuracy(scene: Scene, draws: int, cells: tuple[int, int, int]) -> list[tuple[Cell, ...]]:
    """A row a number: RMS error over the bound, the pulls' spread, and bias over the spread."""
    rng = np.random.default_rng(1)
    errors: list[dict[str, Floats]] = []
    bars: list[dict[str, Floats]] = []
    for _ in range(draws):
        truth = truth_of(scene, cells, rng)
        stack = scene.recorded(light_of(truth, cells), rng)
        found = refine([start_of(scene, truth, rng)], [stack], noise=scene.noise)
        errors.append(errors_of(scene, found, truth))
        along = found.along_axes()[1]
        bars.append(found.errors() | {f"sd_sigma_{a}": along[:, n] for n, a in enumerate("zyx")})
    rows: list[tuple[Cell, ...]] = []
    for name in NUMBERS:
        off = np.concatenate([one[name] for one in errors])
        deviations = np.concatenate([one[f"sd_{name}"] for one in bars])
        # The bound is that of Fisher's information at what was found, all but that at the truth.
        bound = float(np.sqrt(np.mean(np.square(deviations))))
        pulls = off / deviations
        title = f"{scene.name}, {scene.peak:.0f} photons"
        rms = float(np.sqrt(np.mean(np.square(off))))
        bias = float(np.mean(off)) / bound
        rows.append((title, name, rms / bound, bias, float(np.std(pulls)), float(np.mean(pulls))))
    return rows


def bounds_of(truth: Gaussians, light: Floats) -> dict[str, Floats]:
    """The Cramer-Rao bounds at the truth, by the names of `Spots.numbers`."""
    known = refine([truth], [Stack.from_array(light)], noise=Noise(1.0), most_steps=0)
    bounds = {name: known.errors()[f"sd_{name}"] for name in COMPARED if "sigma" not in name}
    return bounds | {f"sigma_{a}": known.along_axes()[1][:, n] for n, a in enumerate("zyx")}


def spots_of(gaussians: Gaussians) -> Spots:
    """Gaussians as the adapters of other programs give spots."""
    widths = np.sqrt(np.diagonal(gaussians.covariances, axis1=1, axis2=2))
    return Spots(gaussians.means, widths, gaussians.amplitudes.astype(np.float64))


def side_by_side(
    peak: float, peers: tuple[Peer, ...], draws: int, cells: tuple[int, int, int]
) -> list[tuple[Cell, ...]]:
    """A row a number: RMS error over the bound of ours and others', from the nearest voxels."""
    scene, rng = Scene("spots", SPOT, peak, turned=False), np.random.default_rng(5)
    ratios: dict[tuple[str, str], list[Floats]] = {}
    for _ in range(draws):
        truth = truth_of(scene, cells, rng)
        light = light_of(truth, cells)
        stack, bounds = scene.recorded(light, rng), bounds_of(truth, light)
        starts, voxels = np.rint(truth.means), np.asarray(stack.voxels, np.float64)
        found = {OURS: spots_of(measure_points(starts, stack).gaussians[0])}
        found |= {p.name: p.fit_at(voxels, starts, np.array(SPOT)) for p in peers if p.fit_at}
        right = spots_of(truth).numbers()
        for name, spots in found.items():
            for number, values in spots.numbers().items():
                off = (values - right[number]) / bounds[number]
                ratios.setdefault((number, name), []).append(off)
    names = (OURS, *(peer.name for peer in peers))
    rows: list[tuple[Cell, ...]] = []
    for number in COMPARED:
        off_by = {name: np.concatenate(ratios[number, name]) for name in names}
        ahead = (_ahead(off_by[OURS], off_by[peer.name]) for peer in peers)
        shown = (_rms_and_bias(off_by[name]) for name in names)
        rows.append((f"{peak:.0f} photons", number, *shown, max(ahead, default=math.nan)))
    return rows


def _rms_and_bias(ratios: Floats) -> str:
    """RMS of errors over their bounds, and their mean, without fits that failed or went astray."""
    kept = ratios[np.abs(ratios) < ASTRAY]
    if not len(kept):
        return "–"
    return f"{np.sqrt(np.mean(np.square(kept))):.3f} ({kept.mean():+.2f})"


def _ahead(own: Floats, other: Floats) -> float:
    """By how many standard errors the mean square of another's errors is less than ours."""
    kept = (np.abs(own) < ASTRAY) & (np.abs(other) < ASTRAY)
    gains = np.square(own[kept]) - np.square(other[kept])
    spread = float(gains.std()) / math.sqrt(max(len(gains), 1))
    return float(gains.mean()) / spread if spread else math.nan


def beside_others(options: Options, draws: int, many: int, cells: tuple[int, int, int]) -> Table:
    """Ours and other programs on the same spots: on many of the dimmest, where all come near."""
    peers = tuple(peer for peer in PEERS if peer.fit_at and peer.installed)
    rows: list[tuple[Cell, ...]] = []
    for peak in options.pick((DIMMEST, 100.0, 1000.0), (100.0,)):
        rows += side_by_side(peak, peers, many if peak == DIMMEST else draws, cells)
    note = (
        f"RMS errors over the bound of Cramer and Rao at the truth, in brackets their mean (bias); "
        f"{draws} draws of {int(np.prod(cells))} Gaussians of sigma 2, 1.5, 1.5, and {many} of the "
        f"dimmest, fitted from the nearest voxels. The bound is that of a window of {WINDOW:g} "
        "sigmas; who looks farther knows more of the background, and may come below. The last "
        "column is how far the best of "
        "the others is ahead, in standard errors of the difference of squared errors of the same "
        "spots: up to 2 it is chance, and below 0 ours are nearer. Fits that failed, or are off by "
        f"more than {ASTRAY:.0f} times the bound, are left out."
    )
    header = ("what", "number", OURS, *(peer.name for peer in peers), "best of others ahead")
    return Table("Refined Gaussians beside other programs", header, tuple(rows), (note, *missing()))


def one_by_curve_fit(stack: Stack, start: Gaussians, k: int) -> Floats:
    """Gaussian k by `curve_fit` from the same start in the same window as ours, squared error."""
    sides = np.linalg.norm(start.factors[k], axis=1)
    half = np.maximum(np.ceil(WINDOW * sides), LEAST_HALF).astype(int)
    ((first, box),) = windows(stack.voxels, start.means[k : k + 1], half)
    places = np.indices(box.shape).reshape(3, -1) + first[:, None]
    guess = [*start.means[k], *start.cholesky[k], start.amplitudes[k], start.background]
    found, _ = curve_fit(gaussian, places.astype(float), box.ravel(), guess)
    return np.asarray(found)


def by_curve_fit(stack: Stack, start: Gaussians) -> None:
    """All of them, one after another."""
    for k in range(len(start)):
        one_by_curve_fit(stack, start, k)


def speeds(options: Options, cells: tuple[int, int, int]) -> tuple[Cell, ...]:
    """How long a spot takes, of spots that are where a fit leaves them."""
    scene, rng = Scene("spots", SPOT, 100.0), np.random.default_rng(2)
    truth = truth_of(scene, cells, rng)
    stack, start = scene.recorded(light_of(truth, cells), rng), start_of(scene, truth, rng)
    few = start.select(slice(0, min(len(start), 32)))
    ways = [
        with_kernels("ours", partial(refine, [start], [stack], noise=scene.noise)),
        Way("curve_fit", partial(by_curve_fit, stack, few), 1),
    ]
    taken = medians(ways, turns=options.turns)
    ours, theirs = taken["ours"] / len(start), taken["curve_fit"] / len(few)
    own, others = (
        statistics.median(processor_time(way.call) for _ in range(options.turns)) / count
        for way, count in zip(ways, (len(start), len(few)), strict=True)
    )
    times = (1e6 * ours, 1e6 * theirs, theirs / ours, 1e6 * own, 1e6 * others, others / own)
    return (f"{len(start)} spots", *times)


def processor_time(call: Callable[[], object]) -> float:
    """Seconds that cores spend on a call, all together: the same on a busy machine."""
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(options: Options) -> list[Table]:
    """How near to the truth, how true the error bars, how fast."""
    draws, cells = (1, (1, 2, 2)) if options.small else (10, CELLS)
    many = options.pick(MANY_DRAWS, draws)
    rows: list[tuple[Cell, ...]] = []
    for scene in SCENES[:1] if options.small else SCENES:
        rows += accuracy(scene, many, cells)
    note = (
        f"{many} draws of {int(np.prod(cells))} Gaussians on {BACKGROUND:.0f} photons. The bound "
        "is that of Cramer and Rao; pulls are errors over their error bars. Widths 1 to 3 are in "
        "order: of spots, whose second and third are the same, one is found greater all the same, "
        "by less than the two can be told apart."
    )
    header = ("what", "number", "RMS over bound", "bias over bound", "pulls' sd", "pulls' mean")
    fast = (
        "what", "ours, us a spot", "curve_fit, us a spot", "times as fast", "ours, us of a core",
        "curve_fit, us of a core", "times as fast on a core",
    )  # fmt: skip
    return [
        Table("Refined Gaussians against the truth", header, tuple(rows), (note,)),
        beside_others(options, draws, many, cells),
        Table("Time of a refinement", fast, (speeds(options, cells if options.small else MANY),)),
    ]
