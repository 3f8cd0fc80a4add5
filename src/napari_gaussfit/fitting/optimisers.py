"""Optimisers of a fit: what moves the Gaussians against the gradients of a step.

A new one is a function in a file of its own and a line in `OPTIMISERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from napari_gaussfit import _kernels

if TYPE_CHECKING:
    from torch import Tensor

    from napari_gaussfit.fitting.state import OptimiserState, Tensors

__all__ = ["DEFAULT_OPTIMISER", "OPTIMISERS", "Optimiser"]


class Optimiser(Protocol):
    """Moves the Gaussians of a fit by one step, in place."""

    def __call__(self, state: OptimiserState, gradients: Tensors, rates: Tensor) -> None:
        """Take a step against the gradients.

        On a CUDA device a step is captured in a graph: only operations on the device, none that
        depends on a value there. `first`, `second` and `age` of the state are the optimiser's own:
        they begin at 0, are set to 0 for a Gaussian that is relocated, and are saved with a fit.

        Parameters
        ----------
        state : OptimiserState
            The Gaussians and the optimiser's moments, changed in place.
        gradients : tuple of Tensor
            Derivatives of the loss by means [K, 3], Cholesky parameters [K, 6] and amplitudes
            [C, K].
        rates : Tensor, shape [9 + C]
            The step size, once for each coordinate of a Gaussian.
        """


def adam(state: OptimiserState, gradients: Tensors, rates: Tensor) -> None:
    """Take a step of Adam (Kingma and Ba, 2015) in each Gaussian's own frame.

    Steps are relative to the Gaussian's own brightness, widths and axes, so that one rate suits
    every scale and unit; see `reference.adam_step`.
    """
    _kernels.adam_step(state.gaussians, gradients, state.moments, rates)


OPTIMISERS: dict[str, Optimiser] = {"adam": adam}
"""Every optimiser by its name."""

DEFAULT_OPTIMISER = "adam"
