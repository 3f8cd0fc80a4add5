"""Placement: where the voxels of a fitted stack lie in napari's world.

Every layer of a fit takes it from its source layer, so that both move together, and so that napari
keeps their units: it drops those of all layers when one has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["AXIS_LABELS", "METADATA", "OF", "Placement"]

METADATA = "napari_gaussfit"
"""The entry of a layer's metadata that is this package's."""

OF = "of"
"""The entry therein of what was fitted; layers that a fit has made have it, whatever their name."""

AXIS_LABELS = ("z", "y", "x")


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels of a fitted stack lie in the world: its source layer's transform.

    Parameters
    ----------
    spacing : ndarray, shape [3]
        (dz, dy, dx) of the fitted stack in its field's unit: what turns positions into voxels.
        Not always the layer's scale, which the user may not have set.
    scale, translate : ndarray, shape [3]
        As napari has them; z, y, x.
    rotate, shear : ndarray, shape [3, 3]
        As napari has them.
    affine : ndarray, shape [4, 4]
        What napari applies after the four above.
    units : tuple
        Of the three axes: names, or pint's units.
    axis_labels : tuple of str
        Of the three axes.
    """

    spacing: Floats
    scale: Floats
    translate: Floats
    rotate: Floats
    shear: Floats
    affine: Floats
    units: tuple[Any, ...]
    axis_labels: tuple[str, ...]

    @classmethod
    def of_stack(
        cls, spacing: Sequence[float], unit: str, origin: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Placement:
        """Return the placement of a stack that has no layer, its first voxel at `origin`."""
        known = np.asarray(spacing, np.float64)
        no_turn = np.eye(3)
        at = np.asarray(origin, np.float64)
        return cls(known, known, at, no_turn, no_turn, np.eye(4), (unit,) * 3, AXIS_LABELS)

    @classmethod
    def of_layer(cls, layer: Layer, spacing: Sequence[float]) -> Placement:
        """Return the placement of a layer's last three axes.

        Parameters
        ----------
        layer : napari.layers.Layer
            The fitted layer; with more than three axes, the first ones are time and the like.
        spacing : sequence of float
            (dz, dy, dx) of the fitted stack, in its field's unit.

        Raises
        ------
        SettingsError
            If the layer has fewer than three axes.
        """
        if layer.ndim < 3:
            message = f"layer {layer.name!r} has {layer.ndim} axes; expected z, y and x"
            raise SettingsError(message)
        shear = np.asarray(layer.shear, np.float64)
        if shear.ndim == 1:
            upper = np.eye(layer.ndim)
            upper[np.triu_indices(layer.ndim, 1)] = shear
            shear = upper
        return cls(
            np.asarray(spacing, np.float64),
            np.asarray(layer.scale, np.float64)[-3:],
            np.asarray(layer.translate, np.float64)[-3:],
            np.asarray(layer.rotate, np.float64)[-3:, -3:],
            shear[-3:, -3:],
            np.asarray(layer.affine.affine_matrix, np.float64)[-4:, -4:],
            tuple(layer.units)[-3:],
            tuple(layer.axis_labels)[-3:],
        )

    @property
    def origin(self) -> tuple[float, float, float]:
        """Where the first voxel lies in the world (z, y, x), in the field's unit."""
        place = self.affine[:3, :3] @ self.translate + self.affine[:3, 3]
        z, y, x = (place * self.spacing / np.abs(self.scale)).tolist()
        return z, y, x

    def starting_at(self, voxel: ArrayLike) -> Placement:
        """Return the placement of a part of the stack that begins at `voxel` (z, y, x)."""
        linear = self.rotate @ self.shear @ np.diag(self.scale)
        return replace(self, translate=self.translate + linear @ np.asarray(voxel, np.float64))

    def in_voxels(self, lengths: Floats) -> Floats:
        """Return positions or differences [..., 3] of the field's unit in voxels."""
        voxels: Floats = np.asarray(lengths, np.float64) / self.spacing
        return voxels

    def keywords(self) -> dict[str, Any]:
        """Return what a layer's constructor takes."""
        return {
            "scale": self.scale,
            "translate": self.translate,
            "rotate": self.rotate,
            "shear": self.shear,
            "affine": self.affine,
            "units": self.units,
            "axis_labels": self.axis_labels,
        }
