"""Other programs that find and fit spots: an adapter each, used as its own documentation says.

All take voxels [z, y, x] and the standard deviations of a spot along z, y and x in voxels, which
each asks for in its own way. `find` looks for spots without a count; `fit_at` fits those at given
positions. Programs come with the extra `peers`; `missing` says which are not installed.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import curve_fit
from scipy.special import erf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Fitter = Callable[[Floats, Floats, Floats], "Spots"]
    Finder = Callable[[Floats, Floats], "Spots"]

VOLUME = (2 * np.pi) ** 1.5
"""Of a Gaussian of amplitude and widths 1."""


@dataclass(frozen=True)
class Spots:
    """What a program says of N spots, in voxels; empty where it does not say, NaN where it failed.

    positions, sigmas : [N, 3], z, y, x; the others [N].
    """

    positions: Floats
    sigmas: Floats = field(default_factory=lambda: np.empty((0, 3)))
    amplitudes: Floats = field(default_factory=lambda: np.empty(0))

    def numbers(self) -> dict[str, Floats]:
        """What is known of each, by the names of a table's columns."""
        known = {axis: self.positions[:, n] for n, axis in enumerate("zyx")}
        if len(self.sigmas):
            known |= {f"sigma_{axis}": self.sigmas[:, n] for n, axis in enumerate("zyx")}
        if len(self.amplitudes):
            known["amplitude"] = self.amplitudes
        if len(self.sigmas) and len(self.amplitudes):
            integrals = VOLUME * self.amplitudes * self.sigmas.prod(axis=1)
            known["integrated_intensity"] = integrals
        return known


@dataclass(frozen=True)
class Peer:
    """A program: `find(voxels, sigmas)` and `fit_at(voxels, positions, sigmas)`, where it has them.

    How its parameters are chosen stands in the function that calls it.
    """

    name: str
    module: str
    find: Finder | None = None
    fit_at: Fitter | None = None

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        return importlib.util.find_spec(self.module) is not None


def missing() -> tuple[str, ...]:
    """A note that names the programs that are not there; nothing where all are."""
    names = [peer.name for peer in PEERS if not peer.installed]
    return (f"Not installed, and left out: {', '.join(names)} (the extra `peers`).",) * bool(names)


def counts(voxels: Floats) -> NDArray[Any]:
    """Voxels as a camera gives them: whole numbers of 16 bits if they are, else as they were."""
    whole = voxels.min() >= 0 and voxels.max() < 2**16 and bool(np.all(voxels == np.rint(voxels)))
    return voxels.astype(np.uint16) if whole else voxels.astype(np.float64)


def windows(
    voxels: Floats, positions: Floats, half: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], Floats]]:
    """First voxel and voxels of a box about each position, cut at the stack's faces."""
    found = []
    for position in np.rint(positions).astype(np.int64):
        first = np.maximum(position - half, 0)
        last = np.minimum(position + half + 1, voxels.shape)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        found.append((first, np.asarray(voxels[box], np.float64)))
    return found


def gaussian(places: Floats, *given: float) -> Floats:
    """The model as `curve_fit` wants it: centre, Cholesky parameters, amplitude, background."""
    z, y, x, d00, l10, d11, l20, l21, d22, amplitude, background = given
    u0 = (places[0] - z) / np.exp(d00)
    u1 = (places[1] - y - l10 * u0) / np.exp(d11)
    u2 = (places[2] - x - l20 * u0 - l21 * u1) / np.exp(d22)
    light: Floats = amplitude * np.exp(-0.5 * (u0 * u0 + u1 * u1 + u2 * u2)) + background
    return light


def by_curve_fit(voxels: Floats, positions: Floats, sigmas: Floats) -> Spots:
    """Fit our model by SciPy in windows of 3.5 sigmas, squared error."""
    rows = []
    for first, box in windows(voxels, positions, np.ceil(3.5 * sigmas).astype(np.int64)):
        places = np.indices(box.shape).reshape(3, -1).astype(np.float64)
        middle = np.divide(np.subtract(box.shape, 1), 2)
        d = np.log(sigmas)
        guess = [*middle, d[0], 0, d[1], 0, 0, d[2], np.ptp(box), np.median(box)]
        try:
            values, _ = curve_fit(gaussian, places, box.ravel(), guess)
        except RuntimeError:
            values = np.full(11, np.nan)
        factor = np.zeros((3, 3))
        factor[np.tril_indices(3)] = values[3:9]
        factor[np.diag_indices(3)] = np.exp(np.diag(factor))
        rows.append([*(values[:3] + first), *np.linalg.norm(factor, axis=1), values[9]])
    return _of_rows(rows)


def by_psf_analysis(voxels: Floats, positions: Floats, sigmas: Floats) -> Spots:
    """Fit as napari-psf-analysis 1.2 does: its ZYXFitter, written out again.

    The package cannot be installed beside this one (it wants matplotlib below 3.9). Its model is a
    Gaussian by its covariance's six entries over a background; its start is the median of the crop,
    the largest voxel less that, centroid and covariance of the crop's raw intensities; its solver
    `curve_fit` without limits. Its crop is by default 20 widths of a PSF; here 12, which leaves the
    neighbours out.
    """
    from skimage.measure import centroid

    rows = []
    for first, box in windows(voxels, positions, np.ceil(6 * sigmas).astype(np.int64)):
        places = np.indices(box.shape).reshape(3, -1).T.astype(np.float64)
        covariance = np.cov(places.T, aweights=box.ravel())
        background = np.floor(np.median(box))
        start = [background, box.max() - background, *centroid(box)]
        start += [covariance[0, 0], 0, 0, covariance[1, 1], 0, covariance[2, 2]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of steps that leave what is a covariance
                values, _ = curve_fit(gaussian_by_covariance, places, box.ravel(), start)
        except (RuntimeError, np.linalg.LinAlgError):
            values = np.full(11, np.nan)
        widths = np.sqrt(np.abs(values[[5, 8, 10]]))
        rows.append([*(values[2:5] + first), *widths, values[1]])
    return _of_rows(rows)


def gaussian_by_covariance(places: Floats, *given: float) -> Floats:
    """The model of napari-psf-analysis: background, amplitude, centre, covariance."""
    background, amplitude, z, y, x, zz, zy, zx, yy, yx, xx = given
    d = places - (z, y, x)
    inverse = np.linalg.inv([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]])
    square = np.einsum("ni,ij,nj->n", d, inverse, d)
    light: Floats = amplitude * np.exp(-0.5 * square) + background
    return light


def found_by_big_fish(voxels: Floats, sigmas: Floats) -> Spots:
    """Find by big-fish: a spot's radius is its sigma, and the threshold is found automatically.

    Where the counts over thresholds have no elbow it raises ValueError: nothing is found then.
    """
    from bigfish.detection import detect_spots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logarithms of no spots at all
        try:
            places = detect_spots(counts(voxels), voxel_size=1, spot_radius=tuple(sigmas.tolist()))
        except ValueError:
            places = np.empty((0, 3))
    return Spots(np.asarray(places, np.float64).reshape(-1, 3))


def fitted_by_big_fish(voxels: Floats, positions: Floats, sigmas: Floats) -> Spots:
    """Fit by big-fish's `modelize_spot` in the volume that its `fit_subpixel` takes.

    Its Gaussian is integrated over a voxel's cube and as wide along y as along x. Widths and
    amplitude are given as those of the light at the voxels' centres, as all others have them.
    """
    from bigfish.detection import modelize_spot
    from bigfish.detection.utils import get_spot_volume

    image, radius = counts(voxels), np.sqrt(3) * sigmas
    size = (float(sigmas[0]), float(sigmas[2]), float(sigmas[2]))
    rows = []
    for at in np.rint(positions).astype(np.int64):
        box, first = get_spot_volume(image, *at, radius[0], radius[-1])
        try:
            values = modelize_spot(box, 1, size, return_coord=True)
        except RuntimeError:
            rows.append([np.nan] * 7)
            continue
        own = np.abs([values[3], values[4], values[4]])
        flattened = np.sqrt(np.pi / 2) * own * 2 * erf(0.5 / (np.sqrt(2) * own))
        height = values[5] * flattened.prod()
        rows.append([*np.add(values[:3], first), *np.sqrt(own**2 + 1 / 12), height])
    return _of_rows(rows)


def _diameters(sigmas: Floats) -> tuple[int, ...]:
    """Odd sides, rounded up, of three to four times trackpy's size, which is sqrt(3) sigma."""
    return tuple(int(np.ceil(3.5 * np.sqrt(3) * sigma)) // 2 * 2 + 1 for sigma in sigmas)


def found_by_trackpy(voxels: Floats, sigmas: Floats) -> Spots:
    """Find by trackpy's `locate`, with the diameter that its documentation asks for.

    `minmass` is to be chosen by eye where the histogram of masses falls apart in two; Otsu's
    threshold of their logarithms stands for the eye.
    """
    import trackpy
    from skimage.filters import threshold_otsu

    trackpy.quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not found
        found = trackpy.locate(counts(voxels), _diameters(sigmas))
    if not len(found):
        return Spots(np.empty((0, 3)))
    masses = np.log(found["mass"].to_numpy(np.float64))
    kept = masses >= (threshold_otsu(masses) if np.ptp(masses) > 0 else masses[0])
    return Spots(found[["z", "y", "x"]].to_numpy(np.float64)[kept])


def fitted_by_trackpy(voxels: Floats, positions: Floats, sigmas: Floats) -> Spots:
    """Fit by trackpy's `refine_leastsq` of Gaussians, widths and background free."""
    import pandas as pd
    import trackpy

    trackpy.quiet()
    image, columns = counts(voxels), [f"size_{axis}" for axis in "zyx"]
    first = pd.DataFrame(np.rint(positions).astype(np.float64), columns=["z", "y", "x"])
    first[columns] = np.sqrt(3) * sigmas
    first["background"] = float(np.median(image))
    at = tuple(np.rint(positions).astype(int).T)
    first["signal"] = np.maximum(image[at].astype(np.float64) - float(np.median(image)), 1.0)
    free = dict.fromkeys(columns, "var") | {"background": "cluster"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas' next version
        found = trackpy.refine_leastsq(first, image, _diameters(sigmas), param_mode=free)
    failed = ~np.isfinite(found["cost"].to_numpy(np.float64))
    rows = found[["z", "y", "x", *columns, "signal"]].to_numpy(np.float64, copy=True)
    rows[:, 3:6] /= np.sqrt(3)
    rows[failed] = np.nan
    return _of_rows(rows)


def found_by_blob_log(voxels: Floats, sigmas: Floats) -> Spots:
    """Find by scikit-image's `blob_log`, as in its gallery: of 0 to 1, threshold 0.1."""
    from skimage.feature import blob_log

    light = (voxels - voxels.min()) / max(float(np.ptp(voxels)), 1e-30)
    blobs = blob_log(
        light, min_sigma=0.7 * sigmas, max_sigma=1.4 * sigmas, num_sigma=10, threshold=0.1
    )
    return Spots(np.asarray(blobs[:, :3], np.float64))


def _of_rows(rows: Any) -> Spots:
    """Return spots of rows of position, widths, amplitude."""
    table = np.asarray(rows, np.float64).reshape(-1, 7)
    return Spots(table[:, :3], np.abs(table[:, 3:6]), table[:, 6])


PEERS = (
    Peer("curve_fit", "scipy", fit_at=by_curve_fit),
    Peer("napari-psf-analysis' fitter", "scipy", fit_at=by_psf_analysis),
    Peer("big-fish", "bigfish", found_by_big_fish, fitted_by_big_fish),
    Peer("trackpy", "trackpy", found_by_trackpy, fitted_by_trackpy),
    Peer("blob_log", "skimage", found_by_blob_log),
)
