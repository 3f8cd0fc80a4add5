"""Synthetic stacks with ground truth, for the demo, the tests and napari's sample data.

Each phantom is a sum of Gaussians that looks like what a confocal microscope records: the
structure's own Gaussians, blurred by a Gaussian point spread function, over a background, with
photon noise. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.structures import (
    Parts,
    blurred,
    body,
    branch,
    joined,
    nucleus,
    path_through,
    process,
    tapering,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Triple = tuple[float, float, float]
    Shape = tuple[int, int, int]

__all__ = [
    "PSF_HIGH_NA",
    "Branch",
    "MovingPhantom",
    "Phantom",
    "beads",
    "moving_spots",
    "neurite",
    "neuron",
    "nuclei",
    "photon_counts",
    "separated",
    "spots",
]

_BACKGROUND = 100.0
"""Raw intensity without any structure: a camera's usual offset."""

_PEAK = 3000.0
"""Raw intensity that the brightest structure adds: most of a 12-bit detector's range."""

_READ_NOISE = 2.0
"""Standard deviation of a detector's own noise, in raw intensity."""

PSF_HIGH_NA = (0.28, 0.1, 0.1)
"""Sigmas (z, y, x) in micrometres of a 1.4 NA oil objective in green: FWHM 0.66 and 0.24."""

_PSF_LOW_NA = (0.55, 0.18, 0.18)
"""Sigmas (z, y, x) in micrometres of a 0.8 NA objective."""

_ATTEMPTS = 500
"""Random places tried for each object before a box counts as full."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic stack, and the Gaussians that it was made of.

    Parameters
    ----------
    stack : Stack
        float32 without noise, else uint16; lengths in micrometres.
    truth : GaussianField
        Its amplitudes and background are in the stack's raw intensities: without noise,
        ``truth.voxelise(stack.shape, stack.spacing)`` is the stack.
    name : str
        Which phantom it is.
    branches : tuple of Branch
        Of a neurite, where its centre lines run.
    soma : tuple of float or None
        Of a neuron: centre (z, y, x) and radius of the ball of its soma's volume, in micrometres.
    """

    stack: Stack
    truth: GaussianField
    name: str
    branches: tuple[Branch, ...] = ()
    soma: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class MovingPhantom:
    """A synthetic recording of several times, and what it was made of.

    Parameters
    ----------
    stacks : tuple of Stack
        The recording, a stack for each time.
    truths : tuple of GaussianField
        At each time, the Gaussians that the stack was made of.
    tracks : tuple of ndarray of int, shape [K]
        At each time, which object each Gaussian is.
    drift : ndarray, shape [3]
        z, y, x in micrometres by which all move from a time to the next.
    """

    stacks: tuple[Stack, ...]
    truths: tuple[GaussianField, ...]
    tracks: tuple[NDArray[np.int64], ...]
    drift: Floats


class Branch(NamedTuple):
    """A branch of a neurite that was made.

    Parameters
    ----------
    path : ndarray, shape [N, 3]
        Its centre line, in micrometres, axis order z, y, x; it begins on that of its parent.
    radii : ndarray, shape [N]
        In micrometres, before any blur.
    """

    path: Floats
    radii: Floats


def neurite(
    *,
    seed: int = 0,
    photons: float | None = 150.0,
    shape: Shape = (40, 128, 128),
    spacing: Triple = (0.3, 0.1, 0.1),
    spines: bool = True,
) -> Phantom:
    """Make a branching, tapering dendrite with spines, which enters the box from one side.

    Parameters
    ----------
    seed : int
        Of the course of the dendrite, its spines and the noise.
    photons : float or None
        Photons at the brightest voxel, of which the noise follows; None makes no noise.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx) in micrometres.
    spines : bool
        Whether it has any.

    Returns
    -------
    Phantom
        Some 200 overlapping Gaussians, a few of them just outside of the box.

    Raises
    ------
    SettingsError
        If `photons` is not above 0.
    """
    rng = np.random.default_rng(seed)
    box = np.asarray(shape) * np.asarray(spacing)
    course = np.array(
        [[0.35, 0.72, -0.06], [0.42, 0.66, 0.25], [0.5, 0.44, 0.55], [0.62, 0.4, 0.92]]
    )
    trunk = path_through((course + rng.normal(0.0, 0.04, course.shape)) * box)
    upper = branch(rng, trunk[len(trunk) // 3], np.array([0.75, 0.08, 0.6]) * box)
    lower = branch(rng, trunk[len(trunk) // 2], np.array([0.22, 0.9, 0.8]) * box)
    branches, parts = [], []
    for path, radius, tip_radius in (
        (trunk, 0.5, 0.24),
        (upper, 0.3, 0.14),
        (lower, 0.32, 0.15),
    ):
        branches.append(Branch(path, tapering(rng, len(path), radius, tip_radius)))
        parts.append(process(rng, *branches[-1], spines=spines))
    structure = _scaled_to_peak(blurred(joined(parts), PSF_HIGH_NA), shape, spacing)
    phantom = _phantom("neurite", structure, shape, spacing, photons, rng)
    return replace(phantom, branches=tuple(branches))


def neuron(*, seed: int = 0, photons: float | None = 150.0) -> Phantom:
    """Make a soma, 3.4 to 4.4 micrometres wide, that four neurites leave.

    Parameters
    ----------
    seed : int
        Of the course of the neurites and the noise.
    photons : float or None
        Peak photons of the noise; without noise where it is None, as for `neurite`.

    Returns
    -------
    Phantom
        Each neurite begins at the centre of the soma.

    Raises
    ------
    SettingsError
        If `photons` is not above 0.
    """
    rng = np.random.default_rng(seed)
    shape, spacing = (44, 160, 160), (0.3, 0.1, 0.1)
    box = np.asarray(shape) * np.asarray(spacing)
    centre = box * (np.array([0.5, 0.5, 0.45]) + rng.normal(0.0, 0.02, 3))
    semiaxes = np.array([1.7, 2.0, 2.2])
    branches, parts = [], [body(rng, centre, semiaxes)]
    for tip in ([0.4, 0.5, 1.1], [0.65, 0.5, -0.1], [0.6, 1.1, 0.5], [0.35, -0.1, 0.6]):
        path = branch(rng, centre, np.array(tip) * box)
        branches.append(Branch(path, tapering(rng, len(path), 0.42, 0.25)))
        outside = np.square((path - centre) / semiaxes).sum(axis=1) > 0.7
        parts.append(process(rng, path[outside], branches[-1].radii[outside], spines=False))
    structure = _scaled_to_peak(blurred(joined(parts), PSF_HIGH_NA), shape, spacing)
    phantom = _phantom("neuron", structure, shape, spacing, photons, rng)
    z, y, x = map(float, centre)
    soma = z, y, x, float(np.cbrt(semiaxes.prod()))
    return replace(phantom, branches=tuple(branches), soma=soma)


def beads(
    *,
    seed: int = 0,
    count: int = 40,
    diameter: float = 0.2,
    photons: float | None = 150.0,
    shape: Shape = (40, 128, 128),
    spacing: Triple = (0.3, 0.1, 0.1),
) -> Phantom:
    """Make fluorescent beads of one known size: a Gaussian each, elongated along z.

    Parameters
    ----------
    seed : int
        Of the places, the brightness and the noise.
    count : int
        How many beads the stack holds.
    diameter : float
        Of a bead, in micrometres. Its sigma along each axis is that of a solid ball,
        diameter / sqrt(20), and the point spread function's, added in squares.
    photons : float or None
        Peak photons of the noise; without noise where it is None, as for `neurite`.
    shape, spacing : tuple
        Voxels along z, y, x and their distances, as for `neurite`.

    Returns
    -------
    Phantom
        `count` Gaussians of one covariance.

    Raises
    ------
    SettingsError
        If the box is too small for the beads, or `photons` is not above 0.
    """
    rng = np.random.default_rng(seed)
    covariance = np.diag(np.square(PSF_HIGH_NA) + diameter**2 / 20)
    sigmas = np.sqrt(np.diag(covariance))
    means = _scattered(rng, count, shape, spacing, margin=2 * sigmas, apart=5 * sigmas)
    brightness = np.clip(rng.normal(0.75, 0.1, count), 0.4, 1.0)
    structure = Parts(means, np.tile(covariance, (count, 1, 1)), _PEAK * brightness)
    return _phantom("beads", structure, shape, spacing, photons, rng)


def nuclei(
    *,
    seed: int = 0,
    count: int = 12,
    photons: float | None = 100.0,
    shape: Shape = (40, 128, 128),
    spacing: Triple = (0.6, 0.25, 0.25),
) -> Phantom:
    """Make nuclei with chromatin texture: clusters of Gaussians with bright foci and dark nucleoli.

    Parameters
    ----------
    seed : int
        Of the places, sizes, textures and the noise.
    count : int
        How many nuclei the stack holds.
    photons : float or None
        Peak photons of the noise; without noise where it is None, as for `neurite`.
    shape, spacing : tuple
        Voxels along z, y, x and their distances, as for `neurite`.

    Returns
    -------
    Phantom
        Some 150 Gaussians a nucleus.

    Raises
    ------
    SettingsError
        If the box is too small for the nuclei, or `photons` is not above 0.
    """
    rng = np.random.default_rng(seed)
    radius = np.array([2.8, 3.1, 4.0])
    places = _scattered(
        rng, count, shape, spacing, margin=0.6 * radius, apart=np.full(3, 2.0 * radius.mean())
    )
    parts = [nucleus(rng, place, radius * rng.uniform(0.85, 1.1, 3)) for place in places]
    structure = _scaled_to_peak(blurred(joined(parts), _PSF_LOW_NA), shape, spacing)
    return _phantom("nuclei", structure, shape, spacing, photons, rng)


def separated(
    *,
    seed: int = 0,
    count: int = 50,
    photons: float | None = None,
    shape: Shape = (40, 128, 128),
    spacing: Triple = (0.3, 0.1, 0.1),
) -> Phantom:
    """Make Gaussians that do not overlap, of random widths, orientations and amplitudes.

    Parameters
    ----------
    seed : int
        Of all that is random.
    count : int
        How many Gaussians the stack holds.
    photons : float or None
        As for `neurite`, but without noise unless asked for.
    shape, spacing : tuple
        Voxels along z, y, x and their distances, as for `neurite`.

    Returns
    -------
    Phantom
        `count` Gaussians with principal sigmas of 1.2 to 2 voxels, whole within the box.

    Raises
    ------
    SettingsError
        If the box is too small for the Gaussians, or `photons` is not above 0.
    """
    rng = np.random.default_rng(seed)
    voxel = np.asarray(spacing, dtype=np.float64)
    means = _scattered(rng, count, shape, spacing, margin=6 * voxel, apart=14 * voxel)
    turns = Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix()
    variances = np.square(rng.uniform(1.2, 2.0, (count, 3)))
    in_voxels = np.einsum("kij,kj,klj->kil", turns, variances, turns)
    covariances = in_voxels * np.outer(voxel, voxel)
    amplitudes = _PEAK * rng.uniform(0.2, 1.0, count)
    structure = Parts(means, covariances, amplitudes)
    return _phantom("separated", structure, shape, spacing, photons, rng)


def spots(*, peak: float = 100.0, background: float = 10.0, seed: int = 0) -> Phantom:
    """Make 48 equal spots apart from each other, as a photon counter records them.

    Parameters
    ----------
    peak : float
        Photons that a spot adds at its centre.
    background : float
        Photons a voxel without any spot.
    seed : int
        Of the places and the noise.

    Returns
    -------
    Phantom
        Spots of sigma 2, 1.5 and 1.5 voxels (z, y, x), the finest spacing 0.1 micrometres.
    """
    rng = np.random.default_rng(seed)
    pitch, counts, spacing = np.array([14, 20, 20]), (3, 4, 4), (0.2, 0.1, 0.1)
    cells = np.indices(counts).reshape(3, -1).T
    places = (cells + 0.5) * pitch + rng.uniform(-2, 1, cells.shape)
    sigmas = np.multiply((2.0, 1.5, 1.5), spacing)
    truth = GaussianField.from_covariances(
        places * spacing,
        np.broadcast_to(np.diag(sigmas**2), (len(places), 3, 3)),
        np.full(len(places), peak),
        background=background,
    )
    depth, rows, columns = (int(size) for size in pitch * counts)
    return replace(photon_counts(truth, (depth, rows, columns), spacing, seed=seed), name="spots")


def moving_spots(
    *,
    seed: int = 0,
    count: int = 60,
    times: int = 20,
    crossings: int = 6,
    shape: Shape = (32, 128, 128),
    peaks: tuple[float, float] = (60.0, 150.0),
) -> MovingPhantom:
    """Make spots that walk at random and drift, appear, vanish, and pass each other closely.

    Parameters
    ----------
    seed : int
        Seed of all places, motions and the noise.
    count : int
        Spots at each time; one in fifty vanishes from a time to the next, and as many appear.
    times : int
        How many times are recorded.
    crossings : int
        Pairs that pass each other. No two spots are ever nearer than 3 sigma.
    shape : tuple of int
        Voxels along z, y and x, of 0.2, 0.1 and 0.1 micrometres.
    peaks : tuple of float
        Least and largest peak, in photons, over a background of 10.

    Returns
    -------
    MovingPhantom
        Sigmas of 2, 1.5 and 1.5 voxels; steps of half a sigma along each axis, and a drift of
        half a voxel along z and 1 along y and x.
    """
    spacing = (0.2, 0.1, 0.1)
    sigmas = np.multiply((2.0, 1.5, 1.5), spacing)
    drift = np.multiply((0.5, 1.0, -1.0), spacing)
    walk = _Walk(np.random.default_rng(seed), np.multiply(shape, spacing) / sigmas, drift / sigmas)
    walk.begin(count, crossings, times)
    covariance, stacks, truths, tracks = np.diag(sigmas**2), [], [], []
    brightness: dict[int, float] = {}
    for n in range(times):
        for track in walk.tracks:
            brightness.setdefault(int(track), float(walk.rng.uniform(*peaks)))
        truth = GaussianField.from_covariances(
            walk.places * sigmas,
            np.broadcast_to(covariance, (len(walk.places), 3, 3)),
            [brightness[int(track)] for track in walk.tracks],
            background=10.0,
        )
        counts = photon_counts(truth, shape, spacing, seed=1000 * seed + n).stack
        stacks.append(replace(counts, name="moving spots", time=n if times > 1 else None))
        truths.append(truth)
        tracks.append(walk.tracks.copy())
        walk.step(count)
    return MovingPhantom(tuple(stacks), tuple(truths), tuple(tracks), drift)


@dataclass(eq=False)
class _Walk:
    """Places [K, 3] of spots that walk, in their sigmas; aims [K, 3], where some go beside."""

    rng: Generator
    box: Floats
    drift: Floats

    def begin(self, count: int, crossings: int, times: int) -> None:
        """Put pairs that will pass each other half way, then others anywhere."""
        self.places, self.aims = np.zeros((0, 3)), np.zeros((0, 3))
        self.tracks: NDArray[np.int64] = np.zeros(0, np.int64)
        self.born = 0
        speed, half = 0.6, times / 2
        for _ in range(crossings):
            for _ in range(_ATTEMPTS):
                along, aside = np.linalg.qr(self.rng.normal(size=(3, 2)))[0].T
                centre = self.rng.uniform(0.3, 0.7, 3) * self.box - self.drift * half
                pair = [centre + way * (1.6 * aside - along * speed * half) for way in (1, -1)]
                if all(self._free(place, 5.0) for place in pair):
                    self._add(pair[0], along * speed)
                    self._add(pair[1], -along * speed)
                    break
        self._fill(count)

    def step(self, count: int) -> None:
        """Move all; let some vanish and others appear."""
        kept = np.ones(len(self.places), np.bool_)
        kept[(self.rng.random(len(kept)) < 0.02) & ~self.aims.any(axis=1)] = False
        for k in np.flatnonzero(kept):
            others = self.places[kept & (np.arange(len(kept)) != k)]
            for _ in range(_ATTEMPTS):
                place = self.places[k] + self.aims[k] + self.rng.normal(0.0, 0.5, 3)
                if self._clear(place + self.drift, others + self.drift, 3.0):
                    self.places[k] = place
                    break
            else:
                kept[k] = False
        self.places = self.places[kept] + self.drift
        self.aims, self.tracks = self.aims[kept], self.tracks[kept]
        self._fill(count)

    def _fill(self, count: int) -> None:
        while len(self.places) < count:
            for _ in range(_ATTEMPTS):
                place = self.rng.uniform(0.0, 1.0, 3) * self.box
                if self._free(place, 5.0):
                    self._add(place, np.zeros(3))
                    break
            else:
                message = f"{count} spots have no room in the box; take fewer, or a larger one"
                raise SettingsError(message)

    def _free(self, place: Floats, apart: float) -> bool:
        return self._clear(place, self.places, apart)

    def _clear(self, place: Floats, others: Floats, apart: float) -> bool:
        inside = bool(((place > 2.5) & (place < self.box - 2.5)).all())
        return inside and not (np.linalg.norm(others - place, axis=1) < apart).any()

    def _add(self, place: Floats, aim: Floats) -> None:
        self.places, self.aims = np.vstack([self.places, place]), np.vstack([self.aims, aim])
        self.tracks = np.append(self.tracks, self.born)
        self.born += 1


def photon_counts(truth: GaussianField, shape: Shape, spacing: Triple, *, seed: int = 0) -> Phantom:
    """Record a field as an ideal photon counter does: its voxels are Poisson's.

    Parameters
    ----------
    truth : GaussianField
        The field that is recorded, with amplitudes and background in photons.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx) in the field's unit.
    seed : int
        Seed of the Poisson noise.

    Returns
    -------
    Phantom
        A gain of 1, no offset, no read noise.
    """
    clean = truth.voxelise(shape, spacing).numpy().astype(np.float64)
    voxels = np.random.default_rng(seed).poisson(clean).astype(np.uint16)
    stack = Stack.from_array(voxels, spacing=spacing, name="photon counts")
    return Phantom(stack, truth, "photon counts")


def _phantom(
    name: str,
    structure: Parts,
    shape: Shape,
    spacing: Triple,
    photons: float | None,
    rng: Generator,
) -> Phantom:
    """Record a structure over the background."""
    if photons is not None and not 0 < photons < np.inf:
        raise SettingsError(
            f"photons={photons} is no amount of light; give a number above 0, or None for no noise"
        )
    truth = GaussianField.from_covariances(*structure, background=_BACKGROUND)
    clean = truth.voxelise(shape, spacing).numpy()
    voxels = clean if photons is None else _recorded(clean, photons, rng)
    return Phantom(Stack.from_array(voxels, spacing=spacing, name=name), truth, name)


def _recorded(clean: NDArray[np.float32], photons: float, rng: Generator) -> NDArray[np.uint16]:
    """Return what a detector with a linear gain makes of a stack."""
    gain = float(clean.max()) / photons
    light = rng.poisson(clean.astype(np.float64) / gain) * gain
    counts = np.rint(light + rng.normal(0.0, _READ_NOISE, clean.shape))
    return np.clip(counts, 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _scaled_to_peak(parts: Parts, shape: Shape, spacing: Triple) -> Parts:
    brightest = float(GaussianField.from_covariances(*parts).voxelise(shape, spacing).max())
    return parts._replace(amplitudes=parts.amplitudes * (_PEAK / brightest))


def _scattered(
    rng: Generator,
    count: int,
    shape: Shape,
    spacing: Triple,
    *,
    margin: Floats,
    apart: Floats,
) -> Floats:
    """Return random places [count, 3], away from the box's faces and from each other.

    `apart` is the distance to keep along each axis; in between, that of an ellipsoid.
    """
    if count < 1:
        raise SettingsError(f"count={count} leaves the stack empty; give 1 or more")
    lower = margin
    upper = (np.asarray(shape) - 1) * np.asarray(spacing) - margin
    places = np.empty((count, 3))
    placed = 0
    if (upper > lower).all():
        for place in rng.uniform(lower, upper, (_ATTEMPTS * count, 3)):
            distances = np.linalg.norm((place - places[:placed]) / apart, axis=1)
            if (distances >= 1).all():
                places[placed] = place
                placed += 1
            if placed == count:
                return places
    raise SettingsError(
        f"count={count} does not fit into shape={tuple(shape)} with spacing={tuple(spacing)}; "
        "give fewer or a larger shape"
    )
