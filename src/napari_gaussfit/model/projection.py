"""Projections of fields and of stacks: MIP, soft-MIP and sum, for any camera.

A field's exact MIP is the largest value of the sum on each ray clipped to the box; by the
envelope theorem its derivative is that of f at the maximum held fixed. Held-out views are compared
with the stack's own MIP for the same camera.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import DEFAULT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.model.camera import Box, Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

    Image = NDArray[np.float32]

Mode = Literal["mip", "soft-mip", "sum"]

_VOXELS_AT_ONCE = 2**23
"""Voxels of a field that are held together: those of a large stack would fill the memory."""


def hits(camera: Camera, box: Box) -> NDArray[np.bool_]:
    """Return which pixels' rays cross the box [H, W].

    Parameters
    ----------
    camera : Camera
        The camera whose rays are cast.
    box : tuple of ndarray
        Lower and upper corner (z, y, x).

    Returns
    -------
    ndarray of bool, shape [H, W]
        True where the ray crosses the box.
    """
    from napari_gaussfit._kernels.cpu import backend

    mask: NDArray[np.bool_] = backend.hits(camera.rays(box))
    return mask


def render(
    field: GaussianField,
    camera: Camera,
    box: Box,
    *,
    mode: Mode = "mip",
    temperature: float | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Tensor:
    """Return a projection [H, W] of a field, differentiable by the field's tensors.

    Parameters
    ----------
    field : GaussianField
        What to look at.
    camera : Camera
        The camera whose picture is rendered.
    box : tuple of ndarray
        Lower and upper corner (z, y, x) in the field's unit: rays exist inside only.
    mode : {"mip", "soft-mip", "sum"}
        The largest f on each ray; the softmax-weighted mean of the Gaussians' own peaks (plus
        the background); the integral of f over the ray's length in the box.
    temperature : float, optional
        Of the soft-MIP, in raw intensity; a tenth of the largest amplitude by default.
    tolerance : float
        A Gaussian is left out where it adds less than this part of the largest amplitude.

    Returns
    -------
    Tensor, shape [H, W]
        In raw intensity; a sum in raw intensity times the field's unit.

    Raises
    ------
    SettingsError
        If there is no such mode, or the temperature is not positive.
    """
    if mode not in get_args(Mode):
        message = f"mode={mode!r}: expected 'mip', 'soft-mip' or 'sum'"
        raise SettingsError(message)
    rays = camera.rays(box)
    tensors = (field.means, field.cholesky, field.amplitudes)
    cutoff = field.cutoff(tolerance)
    if mode == "mip":
        _kernels.refuse_transforms()
        step = search_step(field, camera, box)
        image = _kernels.mip(*tensors, rays, cutoff=cutoff, bin_step=step)
    elif mode == "soft-mip":
        if temperature is None:
            if _kernels.transformed():
                raise SettingsError(
                    "temperature=None: under a transform of torch.func no amplitude can be looked "
                    "at; give one in raw intensity"
                )
            temperature = 0.1 * field.cutoff(1.0)
        if not temperature > 0:
            message = f"temperature={temperature}: expected a positive intensity"
            raise SettingsError(message)
        image = _kernels.soft_mip(*tensors, rays, cutoff=cutoff, temperature=temperature)
    else:
        from napari_gaussfit._kernels.cpu import backend

        lengths = torch.from_numpy(backend.lengths(rays)).to(field.device)
        return _kernels.line_integral(*tensors, rays, cutoff=cutoff) + field.background * lengths
    return image + field.background


def voxel_mip(
    field: GaussianField,
    shape: tuple[int, int, int],
    spacing: Sequence[float],
    axis: int,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Tensor:
    """Return the MIP [H, W] of a field's own voxels along an axis.

    What `StackProjector.project` is to a stack for an axis view: the largest of the values at the
    voxels' centres, which lies below the exact MIP where a peak is between two planes.

    Parameters
    ----------
    field : GaussianField
        What to look at.
    shape : tuple of int
        Voxels along z, y and x.
    spacing : sequence of float
        (dz, dy, dx) in the field's unit.
    axis : int
        0, 1 or 2: along z, y or x.
    tolerance : float
        Contributions below this part of the largest amplitude may be left out.

    Returns
    -------
    Tensor, shape [H, W]
        In raw intensity, in the pixels of `camera.axis_view`.
    """
    depth, rows, columns = shape
    planes = max(1, _VOXELS_AT_ONCE // (rows * columns))
    images = [
        field.voxelise_planes(first, first + planes, shape, spacing, tolerance=tolerance).amax(axis)
        for first in range(0, depth, planes)
    ]
    image = torch.stack(images).amax(0) if axis == 0 else torch.cat(images)
    return image.T if axis == 2 else image


def search_step(field: GaussianField, camera: Camera, box: Box) -> float:
    """Return how far apart along a ray the search for its maximum looks.

    Along d a Gaussian's profile has the width ``1 / |L^-1 d|``. Steps of the narrowest hundredth's
    width see every peak that matters; what is narrower still is widened in the search.

    Parameters
    ----------
    field : GaussianField
        What is looked at.
    camera : Camera
        The camera whose rays are searched.
    box : tuple of ndarray
        Lower and upper corner (z, y, x).

    Returns
    -------
    float
        In the field's unit.
    """
    if not len(field):
        return float(np.linalg.norm(np.subtract(*box[::-1])))
    forward = torch.as_tensor(camera.rotation[2], dtype=field.means.dtype, device=field.device)
    whitened = torch.linalg.solve_triangular(
        field.factors.detach(), forward.reshape(1, 3, 1).expand(len(field), 3, 1), upper=False
    )
    widths = 1.0 / whitened.squeeze(-1).norm(dim=-1)
    step = float(torch.nanquantile(widths[: 2**24], 0.01))
    return step if 0 < step < math.inf else float(np.linalg.norm(np.subtract(*box[::-1])))


class StackProjector:
    """Projects one stack many times: its spline is made once.

    Parameters
    ----------
    stack : Stack
        The stack that is projected.

    Attributes
    ----------
    spline : SplineVolume
        The stack between its voxels, as kernels see it.
    """

    def __init__(self, stack: Stack) -> None:
        from napari_gaussfit._kernels.cpu.spline import SplineVolume

        self.stack = stack
        self._floor = float(stack.voxels.min())
        self.spline = SplineVolume(
            np.asarray(stack.voxels, np.float32), np.asarray(stack.spacing, np.float32)
        )

    def project(self, camera: Camera, *, mode: Literal["mip", "sum"] = "mip") -> Image:
        """Return a projection [H, W] of the stack.

        Rays are clipped to the stack's box and sampled twice a voxel, with cubic B-spline
        interpolation. The axis-aligned MIPs are the voxels' own. A ray that misses the box has
        the stack's smallest value (in a sum: 0).

        Parameters
        ----------
        camera : Camera
            The camera whose picture is made.
        mode : {"mip", "sum"}
            The largest value on each ray, or the integral over its length in the box.

        Returns
        -------
        ndarray, shape [H, W]
            In raw intensity; a sum in raw intensity times the stack's unit.
        """
        if mode == "sum":
            return self.spline.integral(camera.rays(self.stack.box))
        if camera.axis is not None:
            image: Image = self.stack.voxels.max(axis=camera.axis).astype(np.float32)
            return image.T if camera.axis == 2 else image
        return self.maximum(camera)

    def maximum(self, camera: Camera) -> Image:
        """Return the MIP [H, W] of the stack's spline, along axes too.

        Parameters
        ----------
        camera : Camera
            The camera whose rays are cast.

        Returns
        -------
        ndarray, shape [H, W]
            In raw intensity; where a ray misses the box, the stack's smallest value.
        """
        image, _ = self.spline.mip(camera.rays(self.stack.box))
        image[~hits(camera, self.stack.box)] = self._floor
        return image


def project_stack(stack: Stack, camera: Camera, *, mode: Literal["mip", "sum"] = "mip") -> Image:
    """Return one projection [H, W] of a stack; see `StackProjector` for several.

    Parameters
    ----------
    stack : Stack
        What to look at.
    camera : Camera
        The camera whose picture is made.
    mode : {"mip", "sum"}
        The largest value on each ray, or the integral over its length in the box.

    Returns
    -------
    ndarray, shape [H, W]
        In raw intensity; a sum in raw intensity times the stack's unit.
    """
    return StackProjector(stack).project(camera, mode=mode)
