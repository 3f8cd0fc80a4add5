"""Gaussians in the shapes of cells: dendrites with spines, nuclei with chromatin.

Knows no stack and no microscope: lengths are micrometres, axis order z, y, x, and amplitudes are
relative to those of the same structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.random import Generator
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Parts",
    "blurred",
    "body",
    "branch",
    "joined",
    "nucleus",
    "path_through",
    "process",
    "tapering",
]

_STEP = 0.3
"""Micrometres between the Gaussians of a tube."""

_ALONG = 0.25
"""Their sigma along the tube, in micrometres: in steps of 1.2 sigmas the sum has no ripple."""

_WANDERING = 0.35
"""Micrometres, a standard deviation, by which a branch leaves the straight line."""

_SPINES_PER_STEP = 0.35
"""Spines per `_STEP`, 1.2 a micrometre: as many as a pyramidal cell's dendrite has."""

_SHELLS = {0.0: 1, 0.29: 12, 0.57: 46, 0.85: 102}
"""Gaussians at each radius of a unit ball, 0.29 apart: even, and with a smooth surface."""

_SHELL_SIGMA = 0.18
"""Of the Gaussians that fill a unit ball."""


class Parts(NamedTuple):
    """Gaussians as they are put together: [K, 3] in micrometres, [K, 3, 3], [K]."""

    means: Floats
    covariances: Floats
    amplitudes: Floats


def joined(parts: Iterable[Parts]) -> Parts:
    """Return all Gaussians of several structures."""
    means, covariances, amplitudes = zip(*parts, strict=True)
    return Parts(np.concatenate(means), np.concatenate(covariances), np.concatenate(amplitudes))


def blurred(parts: Parts, psf: tuple[float, float, float]) -> Parts:
    """Convolve with a point spread function that keeps the integrated intensity."""
    covariances = parts.covariances + np.diag(np.square(psf))
    kept = np.linalg.det(parts.covariances) / np.linalg.det(covariances)
    return Parts(parts.means, covariances, parts.amplitudes * np.sqrt(kept))


def branch(rng: Generator, start: Floats, tip: Floats) -> Floats:
    """Return the path [N, 3] of a branch that wanders from `start` to about `tip`."""
    course = start + np.array([0.0, 0.35, 0.7, 1.0])[:, None] * (tip - start)
    course[1:] += rng.normal(0.0, _WANDERING, (3, 3))
    return path_through(course)


def path_through(controls: Floats) -> Floats:
    """Return points [N, 3] in equal steps along a smooth curve through `controls`."""
    from scipy.interpolate import CubicSpline  # of no use to phantoms without curves

    chords = np.linalg.norm(np.diff(controls, axis=0), axis=1)
    curve = CubicSpline(np.concatenate([[0.0], np.cumsum(chords)]), controls)
    dense = curve(np.linspace(0.0, chords.sum(), 1000))
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    steps = np.arange(0.0, lengths[-1], _STEP)
    return np.stack([np.interp(steps, lengths, dense[:, axis]) for axis in range(3)], axis=1)


def process(rng: Generator, path: Floats, radii: Floats, *, spines: bool = True) -> Parts:
    """Return a process along `path` of radii [N], with spines or without."""
    return joined([_tube(path, radii), *(_spines(rng, path, radii) if spines else ())])


def tapering(rng: Generator, length: int, radius: float, tip_radius: float) -> Floats:
    """Return radii [length] that fall towards the tip, with varicosities."""
    along = np.arange(length) * _STEP
    swelling = sum(
        0.07 * np.sin(2 * np.pi * along / wavelength + rng.uniform(0, 2 * np.pi))
        for wavelength in (1.7, 2.9, 4.3)
    )
    return np.asarray(np.geomspace(radius, tip_radius, length) * (1 + swelling))


def _rods(means: Floats, directions: Floats, along: ArrayLike, across: ArrayLike) -> Floats:
    """Return covariances [K, 3, 3] of sigma `along` a direction and `across` it."""
    outer = directions[:, :, None] * directions[:, None, :]
    length, width = (np.broadcast_to(np.square(sigma), len(means)) for sigma in (along, across))
    return length[:, None, None] * outer + width[:, None, None] * (np.eye(3) - outer)


def _directions(path: Floats) -> Floats:
    tangents = np.gradient(path, axis=0)
    return np.asarray(tangents / np.linalg.norm(tangents, axis=1, keepdims=True))


def _tube(path: Floats, radii: Floats) -> Parts:
    """Fill a tube evenly: a disc of radius r has the sigma r / 2 along each of its axes."""
    covariances = _rods(path, _directions(path), _ALONG, radii / 2)
    return Parts(path, covariances, np.full(len(path), _STEP / (np.sqrt(2 * np.pi) * _ALONG)))


def _spines(rng: Generator, path: Floats, radii: Floats) -> Iterable[Parts]:
    """Yield spines, a neck and a head each, that stand off a process at random."""
    directions = _directions(path)
    for at in np.flatnonzero(rng.random(len(path)) < _SPINES_PER_STEP):
        # Mostly in the image plane, where they are seen.
        aside = np.cross(directions[at], rng.normal(size=3) * (1.0, 0.4, 0.4))
        aside /= np.linalg.norm(aside)
        length = radii[at] + rng.uniform(0.3, 1.1)
        neck = path[at] + aside * (radii[at] + length) / 2
        head = path[at] + aside * length
        means = np.stack([neck, head])
        head_sigma = rng.uniform(0.1, 0.18)
        sigmas_along = np.array([(length - radii[at]) / 2.5, head_sigma])
        covariances = _rods(
            means, np.stack([aside, aside]), sigmas_along, np.array([0.07, head_sigma])
        )
        yield Parts(means, covariances, np.array([0.8, 1.0]))


def body(rng: Generator, centre: Floats, semiaxes: Floats) -> Parts:
    """Fill an ellipsoid evenly, as bright within as a process."""
    places = np.concatenate([radius * _on_sphere(rng, count) for radius, count in _SHELLS.items()])
    covariances = np.tile(_SHELL_SIGMA**2 * np.diag(np.square(semiaxes)), (len(places), 1, 1))
    apart = np.square(places).sum(axis=1) / (2 * _SHELL_SIGMA**2)
    brightness = np.full(len(places), 1 / np.exp(-apart).sum())
    return Parts(centre + places * semiaxes, covariances, brightness)


def nucleus(rng: Generator, centre: Floats, semiaxes: Floats) -> Parts:
    """Fill an ellipsoid with Gaussians, but for its nucleoli, and add bright foci."""
    body = np.concatenate([radius * _on_sphere(rng, count) for radius, count in _SHELLS.items()])
    nucleoli = rng.normal(0.0, 0.3, (rng.integers(1, 4), 3))
    distances = np.linalg.norm(body[:, None] - nucleoli[None], axis=-1)
    body = body[(distances > rng.uniform(0.3, 0.45, len(nucleoli))).all(axis=1)]
    foci = _on_sphere(rng, int(rng.integers(6, 12)))
    foci *= rng.uniform(0.1, 1.0, (len(foci), 1)) ** (1 / 3) * 0.85
    places = np.concatenate([body, foci])
    widths = np.concatenate([np.full(len(body), _SHELL_SIGMA), rng.uniform(0.07, 0.12, len(foci))])
    amplitudes = np.concatenate(
        [rng.lognormal(0.0, 0.35, len(body)), rng.uniform(4.0, 9.0, len(foci))]
    )
    turn = Rotation.from_rotvec([rng.uniform(0, 2 * np.pi), 0, 0]).as_matrix()
    stretch = turn @ np.diag(semiaxes)
    covariances = np.square(widths)[:, None, None] * (stretch @ stretch.T)
    return Parts(centre + places @ stretch.T, covariances, amplitudes * rng.uniform(0.6, 1.0))


def _on_sphere(rng: Generator, count: int) -> Floats:
    """Return unit vectors [count, 3], evenly spread (a Fibonacci spiral), turned at random."""
    steps = np.arange(count) + 0.5
    height = 1 - 2 * steps / count
    angle = np.pi * (1 + np.sqrt(5)) * steps
    ring = np.sqrt(1 - height**2)
    spiral = np.stack([height, ring * np.sin(angle), ring * np.cos(angle)], axis=1)
    return np.asarray(Rotation.from_quat(rng.normal(size=4)).apply(spiral))
