"""Cameras: where the pixels of a projection look from.

Knows no field and no stack: a camera turns pixels into rays, points into pixels, and
covariances into its own frame. Camera axes are (v, u, d): down the rows, along the columns, and
forward along the view. Lengths are in the unit of whatever is looked at; axis order z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit._kernels.geometry import Rays

    Array = NDArray[np.float64]
    Box = tuple[Array, Array]

__all__ = ["AXIS_NAMES", "Camera", "axis_view", "look_at", "orbit", "orbit_view"]

AXIS_NAMES = ("z", "y", "x")

ORBIT_ELEVATIONS = (-20.0, 0.0, 20.0)
"""Degrees above and below the equator at which an orbit's rings of views lie."""

LARGEST_SIDE = 256
"""Pixels a side of a view at most, unless asked for otherwise."""

_ROWS_DOWN_COLUMNS = {0: (1, 2), 1: (0, 2), 2: (1, 0)}


@dataclass(frozen=True, eq=False)
class Camera:
    """An orthographic or pinhole camera.

    Parameters
    ----------
    rotation : ndarray, shape (3, 3)
        Rows are the unit vectors v, u and d in world axes z, y, x.
    centre : ndarray, shape (3,)
        World point seen by the image's middle: any point on that ray for an orthographic
        camera; for a pinhole camera the camera's own position.
    shape : tuple of int
        Number of rows and columns of the picture.
    pixel : tuple of float
        Size of a pixel down and along: in world units for an orthographic camera; for a pinhole
        camera at distance 1 (the tangent of the angle).
    perspective : bool
        Whether it is a pinhole camera.
    name : str
        What to call the view.
    axis : int or None
        The axis looked along when pixels are the voxels' own columns, see `axis_view`.
    """

    rotation: Array
    centre: Array
    shape: tuple[int, int]
    pixel: tuple[float, float]
    perspective: bool = False
    name: str = "view"
    axis: int | None = None

    @property
    def middle(self) -> tuple[float, float]:
        """Row and column of the image's middle."""
        return (self.shape[0] - 1) / 2, (self.shape[1] - 1) / 2

    def rays(self, box: Box) -> Rays:
        """Return the rays of all pixels clipped to a box (lower corner, upper corner).

        t is the distance along d from `centre` (from the box's middle for an orthographic one).

        Parameters
        ----------
        box : tuple of ndarray
            Lower and upper corner (z, y, x).

        Returns
        -------
        Rays
            One for each pixel [H, W].
        """
        from napari_gaussfit._kernels.geometry import Rays

        v, u, d = self.rotation
        down, along = v * self.pixel[0], u * self.pixel[1]
        i, j = self.middle
        corner = -i * down - j * along
        nothing = np.zeros(3)
        lower, upper = (np.asarray(c, np.float32) for c in box)
        if self.perspective:
            frame = [self.centre, nothing, nothing, d + corner, down, along]
        else:
            # From the box's middle, so that t stays small and float32 exact.
            start = self.centre + d * (d @ ((lower + upper) / 2 - self.centre))
            frame = [start + corner, down, along, d, nothing, nothing]
        near = 0.0 if self.perspective else -np.inf
        rays = np.stack(frame).astype(np.float32)
        if not (np.isfinite(rays).all() and np.isfinite([lower, upper]).all()):
            message = f"camera {self.name!r} or its box is not finite; give finite numbers"
            raise SettingsError(message)
        return Rays(rays, self.shape, lower, upper, near)

    def to_camera(self, points: ArrayLike) -> Array:
        """Return points [..., 3] (z, y, x) as (v, u, d) relative to `centre`.

        Parameters
        ----------
        points : array-like, shape [..., 3]
            World positions z, y, x.

        Returns
        -------
        ndarray, shape [..., 3]
            In the unit of the world.
        """
        moved: Array = (np.asarray(points, np.float64) - self.centre) @ self.rotation.T
        return moved

    def covariances_to_camera(self, covariances: ArrayLike) -> Array:
        """Return covariances [..., 3, 3] in the camera's axes: S' = R S R^T.

        Parameters
        ----------
        covariances : array-like, shape [..., 3, 3]
            In world axes z, y, x.

        Returns
        -------
        ndarray, shape [..., 3, 3]
            In axes v, u, d.
        """
        turned: Array = self.rotation @ np.asarray(covariances, np.float64) @ self.rotation.T
        return turned

    def project(self, points: ArrayLike) -> tuple[Array, Array]:
        """Return where points are seen.

        Parameters
        ----------
        points : array, shape [..., 3]
            World positions z, y, x.

        Returns
        -------
        pixels : ndarray, shape [..., 2]
            Row and column (fractional; a pixel's centre is whole).
        depths : ndarray, shape [...]
            Distance along d from `centre`.
        """
        seen = self.to_camera(points)
        depths = seen[..., 2]
        plane = seen[..., :2] / depths[..., None] if self.perspective else seen[..., :2]
        return plane / np.asarray(self.pixel) + np.asarray(self.middle), depths

    def image_covariances(self, points: ArrayLike, covariances: ArrayLike) -> Array:
        """Return 2D covariances [..., 2, 2] of Gaussians on the image, in pixels squared.

        Exact for an orthographic camera. For a pinhole camera the usual linearisation
        J S' J^T (Zwicker et al., EWA splatting, 2001) with J the Jacobian of the projection at
        each mean; the renderers do not use it.

        Parameters
        ----------
        points : array-like, shape [..., 3]
            Means, world positions z, y, x.
        covariances : array-like, shape [..., 3, 3]
            Covariances along world axes (z, y, x).

        Returns
        -------
        ndarray, shape [..., 2, 2]
            In pixels squared, axis order row, column.
        """
        seen = self.to_camera(points)
        jacobian = np.zeros((*seen.shape[:-1], 2, 3))
        for n in range(2):
            jacobian[..., n, n] = 1 / self.pixel[n]
        if self.perspective:
            depths = seen[..., 2, None]
            jacobian[..., :2, :2] /= depths[..., None]
            jacobian[..., 2] = -seen[..., :2] / depths**2 / np.asarray(self.pixel)
        turned = self.covariances_to_camera(covariances)
        flat: Array = jacobian @ turned @ np.swapaxes(jacobian, -1, -2)
        return flat


def _framed(rotation: Array, box: Box, pixel: float, largest_side: int, name: str) -> Camera:
    """Return an orthographic camera that sees the whole box."""
    lower, upper = box
    half = np.abs(rotation) @ (upper - lower) / 2
    pixel = max(pixel, 2 * float(half[:2].max()) / largest_side)
    rows, columns = (max(1, int(np.ceil(2 * h / pixel - 1e-6))) for h in half[:2])
    return Camera(rotation, (lower + upper) / 2, (rows, columns), (pixel, pixel), name=name)


def orbit_view(
    box: Box,
    azimuth: float,
    elevation: float,
    pixel: float,
    *,
    largest_side: int = LARGEST_SIDE,
) -> Camera:
    """Return an orthographic view of the whole box.

    Parameters
    ----------
    box : tuple of ndarray
        Lower and upper corner (z, y, x).
    azimuth, elevation : float
        Degrees. (0, 0) looks along z with y down and x to the right; azimuth turns about y.
    pixel : float
        Size of a pixel; larger where `largest_side` pixels would not hold the box.
    largest_side : int
        Pixels a side at most.

    Returns
    -------
    Camera
        Orthographic.
    """
    a, e = np.radians([azimuth, elevation])
    forward = np.array([np.cos(e) * np.cos(a), np.sin(e), np.cos(e) * np.sin(a)])
    right = np.array([-np.sin(a), 0.0, np.cos(a)])
    down = np.cross(right, forward)
    name = f"azimuth {azimuth:g}°, elevation {elevation:g}°"
    return _framed(np.stack([down, right, forward]), box, pixel, largest_side, name)


def orbit(
    box: Box, pixel: float, *, views: int = 60, largest_side: int = LARGEST_SIDE
) -> list[Camera]:
    """Return `views` orthographic cameras around the box, in rings of `ORBIT_ELEVATIONS`.

    Rings are turned against each other, so that no two views share an azimuth.

    Parameters
    ----------
    box : tuple of ndarray
        Lower and upper corner (z, y, x).
    pixel : float
        Size of a pixel; larger where `largest_side` pixels would not hold the box.
    views : int
        How many cameras stand on the orbit.
    largest_side : int
        Pixels a side at most.

    Returns
    -------
    list of Camera
        In the order of their azimuths.
    """
    rings = len(ORBIT_ELEVATIONS)
    return [
        orbit_view(
            box,
            360.0 * n / views,
            ORBIT_ELEVATIONS[n % rings],
            pixel,
            largest_side=largest_side,
        )
        for n in range(views)
    ]


def axis_view(shape: Sequence[int], spacing: Sequence[float], axis: int) -> Camera:
    """Return the orthographic view along an axis whose pixels are the voxels' own columns.

    Looking along z: y down, x right; along y: z down, x right; along x: y down, z right.

    Parameters
    ----------
    shape, spacing : sequence of 3
        Of the stack, z, y, x.
    axis : int
        0, 1 or 2.

    Returns
    -------
    Camera
        Orthographic.
    """
    if axis not in _ROWS_DOWN_COLUMNS:
        message = f"axis={axis}: expected 0 (z), 1 (y) or 2 (x)"
        raise SettingsError(message)
    v, u = _ROWS_DOWN_COLUMNS[axis]
    centre = (np.asarray(shape) - 1) / 2 * np.asarray(spacing, np.float64)
    return Camera(
        np.eye(3)[[v, u, axis]],
        centre,
        (shape[v], shape[u]),
        (spacing[v], spacing[u]),
        name=f"along {AXIS_NAMES[axis]}",
        axis=axis,
    )


def look_at(
    position: Sequence[float],
    target: Sequence[float],
    *,
    shape: tuple[int, int],
    field_of_view: float,
    down: Sequence[float] = (0.0, 1.0, 0.0),
) -> Camera:
    """Return a pinhole camera at `position` that looks at `target`.

    Parameters
    ----------
    position, target : sequence of 3
        World points z, y, x.
    shape : tuple of int
        Number of rows and columns of the picture.
    field_of_view : float
        Angle that the image's height subtends, in degrees.
    down : sequence of 3
        Direction that points down in the image; must not be the direction of the view.

    Returns
    -------
    Camera
        With perspective.
    """
    eye = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - eye
    if not np.any(forward):
        message = f"target={tuple(target)}: is the position itself; expected another point"
        raise SettingsError(message)
    if not 0 < field_of_view < 180:
        message = f"field_of_view={field_of_view}: expected an angle between 0 and 180 degrees"
        raise SettingsError(message)
    forward /= np.linalg.norm(forward)
    down_axis = np.asarray(down, np.float64)
    down_axis = down_axis - forward * (forward @ down_axis)
    if np.linalg.norm(down_axis) < 1e-9:
        message = f"down={tuple(down)}: is the direction of the view; expected another one"
        raise SettingsError(message)
    down_axis /= np.linalg.norm(down_axis)
    right = np.cross(forward, down_axis)
    pixel = 2 * float(np.tan(np.radians(field_of_view) / 2)) / shape[0]
    return Camera(
        np.stack([down_axis, right, forward]),
        eye,
        shape,
        (pixel, pixel),
        perspective=True,
        name="pinhole",
    )
