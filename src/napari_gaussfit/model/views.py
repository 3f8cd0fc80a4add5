"""The views of a fit: which cameras train, which are held out, and what the stack shows them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit.model.camera import ORBIT_ELEVATIONS, axis_view, orbit
from napari_gaussfit.model.projection import StackProjector, hits
from napari_gaussfit.settings import TRAINING_VIEWS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit._kernels.geometry import Rays
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.stacks.stack import Stack

TRAINING_PIXEL = 2.0
"""Size of the pixels trained on, in finest spacings."""

PARALLEL = 1 - 1e-9
"""Cosine between two views from which on their rays are the same lines."""


@dataclass(frozen=True, eq=False)
class View:
    """A camera, its rays, and what the stack shows it.

    Parameters
    ----------
    camera : Camera
        The camera of the view.
    rays : Rays
        Its rays, clipped to the stack's box.
    hit : Tensor, shape [H, W]
        Which rays cross the box.
    projector : StackProjector
        Projector of the stack that is fitted.
    """

    camera: Camera
    rays: Rays
    hit: Tensor
    projector: StackProjector

    @cached_property
    def target(self) -> Tensor:
        """The stack's MIP [H, W]; 0 where a ray misses. Made when first asked for."""
        image = np.where(self.hit.numpy(), self.projector.maximum(self.camera), np.float32(0.0))
        return torch.from_numpy(image)

    @cached_property
    def pixels(self) -> int:
        """How many rays cross the box."""
        return int(np.count_nonzero(self.hit.numpy()))


class Views:
    """The views of one stack.

    Parameters
    ----------
    stack : Stack
        What they look at.
    orbit_views : int
        Number of views on the orbit.
    held_out : int
        How many of these, evenly spread and from each ring in turn, are never trained on; nor
        are the views from the other side, whose MIPs are the same, mirrored.

    Attributes
    ----------
    training, held_out : list of Camera
        Directions that the views are seen from.
    along_axes : list of Camera
        Those trained on that look along z, y and x.
    projector : StackProjector
        Of the stack, for all of them.
    """

    def __init__(self, stack: Stack, orbit_views: int, held_out: int) -> None:
        self._stack = stack
        self.projector = StackProjector(stack)
        cameras = orbit(stack.box, min(stack.spacing), views=orbit_views)
        chosen = _spread(cameras, held_out)
        self.held_out = [cameras[n] for n in chosen]
        # Along the axes the fit sees the spline's maxima, as in every other view: the voxels'
        # own lie up to a plane's spacing beside the peaks (48 dB from the spline's on the
        # dendrite), and the two would pull against each other.
        self.along_axes = [axis_view(stack.shape, stack.spacing, axis) for axis in range(3)]
        coarse = orbit(stack.box, TRAINING_PIXEL * min(stack.spacing), views=orbit_views)
        others = [
            camera
            for camera in coarse
            if not any(_same_direction(camera, unseen) for unseen in self.held_out)
        ]
        step = max(1.0, len(others) / TRAINING_VIEWS)
        self.training = [others[int(n)] for n in np.arange(0, len(others), step)]
        self.training += self.along_axes
        self._made: dict[Camera, View] = {}

    def view(self, camera: Camera) -> View:
        """Return a camera's view, made when first asked for.

        Parameters
        ----------
        camera : Camera
            The camera whose rays and target are wanted.

        Returns
        -------
        View
            The same one at every call.
        """
        if camera not in self._made:
            hit = torch.from_numpy(hits(camera, self._stack.box))
            self._made[camera] = View(camera, camera.rays(self._stack.box), hit, self.projector)
        return self._made[camera]


def _spread(cameras: list[Camera], count: int) -> list[int]:
    """Choose views of an orbit evenly around it, from each of its rings in turn.

    A view along an axis, which is trained on anyway, comes last.
    """
    views, rings = len(cameras), len(ORBIT_ELEVATIONS)
    along_axis = [bool(np.abs(camera.rotation[2]).max() > PARALLEL) for camera in cameras]
    chosen: list[int] = []
    for n in range(count):
        place = n * views / count

        def unfitness(view: int, n: int = n, place: float = place) -> tuple[bool, bool, float]:
            away = abs(view - place)
            return along_axis[view], view % rings != n % rings, min(away, views - away)

        chosen.append(min((v for v in range(views) if v not in chosen), key=unfitness))
    return sorted(chosen)


def _same_direction(one: Camera, other: Camera) -> bool:
    """Whether two views look along the same line, from either side: their MIPs agree."""
    return bool(abs(one.rotation[2] @ other.rotation[2]) > PARALLEL)


class EndlessShuffle:
    """Draws the numbers 0 to n - 1 in random order, all before any comes again.

    Parameters
    ----------
    count : int
        How many numbers there are.
    rng : Generator
        The source of the random order.
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        self.left: list[int] = []

    def restore(self, left: list[int]) -> None:
        """Take up the numbers that an earlier one had left.

        Parameters
        ----------
        left : list of int
            The numbers that come before all are shuffled anew.

        Raises
        ------
        ValueError
            If they are none of these.
        """
        own = range(self._count)
        if not all(type(n) is int and n in own for n in left):
            message = f"what is left of {self._count} views or bricks are none of them"
            raise ValueError(message)
        self.left = list(left)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Return the next numbers.

        Parameters
        ----------
        count : int
            How many to draw.

        Returns
        -------
        ndarray of int, shape [count]
            Each from 0 to n - 1.
        """
        while len(self.left) < count:
            self.left.extend(self._rng.permutation(self._count).tolist())
        drawn, self.left = self.left[:count], self.left[count:]
        return np.asarray(drawn)
