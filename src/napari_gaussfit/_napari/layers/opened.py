"""The points of a fit whose stack is not in the viewer; `LiveLayers` has those of one that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.hidden import set_points
from napari_gaussfit._napari.layers.looks import move_points, remember_looks
from napari_gaussfit._napari.layers.placement import METADATA, Placement
from napari_gaussfit._napari.layers.unwrapped import is_same

if TYPE_CHECKING:
    from napari.layers import Layer, Points
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.pictures import LayerData
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["OpenedLayers", "placement_of"]


def placement_of(stack: StackFacts) -> Placement:
    """Return where the voxels of a stack lie that has no layer."""
    return Placement.of_stack(stack.spacing, stack.unit, stack.origin)


def _points(fit: FitResult, name: str) -> LayerData:
    """Return the points of a fit."""
    return points_layer(fit, placement_of(fit.stack), name=name)


class OpenedLayers:
    """The centres of a fit without its stack: there are no pictures to compare with.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the points are, or are added.
    fit : FitResult
        Whose points they are.
    points : napari.layers.Points, optional
        Those that opening a file has brought; made if None.
    anew : bool
        Whether they are made too where a person has deleted them.
    """

    source = None
    """There is no stack."""

    def __init__(
        self, viewer: Viewer, fit: FitResult, points: Points | None, *, anew: bool = True
    ) -> None:
        self._viewer = viewer
        there = points in viewer.layers
        if points is None or (anew and not there):
            name = f"{fit.stack.name} centres"
            data, keywords, _ = _points(fit, name)
            points = viewer.add_points(data, **keywords)
            remember_looks(points)
            there = True
        self._centres: Points | None = points if there else None
        viewer.layers.events.removed.connect(self._forget)

    @property
    def centres(self) -> Points | None:
        """The Points layer, None where the user has deleted it."""
        return self._centres

    @property
    def layers(self) -> list[Layer]:
        """All layers that follow the fit."""
        return [] if self._centres is None else [self._centres]

    def settle(self, fit: FitResult) -> None:
        """Show Gaussians that stand still, ready to be edited."""
        layer = self._centres
        if layer is None:
            return
        data, keywords, _ = _points(fit, layer.name)
        looks = {"size": keywords["size"]}
        move_points(layer, lambda: set_points(layer, data), data, **looks)
        layer.features = keywords["features"]
        carried = {**layer.metadata.get(METADATA, {}), **keywords["metadata"][METADATA]}
        layer.metadata = {**layer.metadata, METADATA: carried}

    def show_mips(self, mips: MipPair) -> None:
        """Show no projections: there is no stack beside which they could stand."""

    def make_no_more(self) -> None:
        """Make nothing, as ever."""

    def close(self) -> None:
        """Follow no more; the layer stays."""
        self._viewer.layers.events.removed.disconnect(self._forget)

    def _forget(self, event: Event) -> None:
        if is_same(self._centres, event.value):
            self._centres = None
