"""How well a fit finds what a stack is made of: errors against a truth that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.synthetic.phantoms import Phantom

__all__ = ["against_truth", "errors_of", "errors_under_noise", "intensity_errors"]


def errors_of(found: GaussianField, truth: GaussianField) -> Mapping[str, NDArray[np.float64]]:
    """Return how far each true Gaussian's partner is from it, one partner each.

    Parameters
    ----------
    found, truth : GaussianField
        In one unit. Partners are chosen so that the distances' sum is least.

    Returns
    -------
    mapping of ndarray
        "centre" [P], in `unit`; "width" [P], of the three principal sigmas the largest relative
        error; "amplitude" [P], relative. P is the smaller of the two counts.
    """
    known, partner, distances = _partners(found, truth)
    sigmas, true_sigmas = (field.principal()[0].numpy() for field in (found, truth))
    widths = np.abs(sigmas[partner] / true_sigmas[known] - 1).max(axis=1)
    amplitudes = np.abs(found.amplitudes.numpy()[partner] / truth.amplitudes.numpy()[known] - 1)
    return {"centre": distances, "width": widths, "amplitude": amplitudes}


def intensity_errors(found: GaussianField, truth: GaussianField) -> NDArray[np.float64]:
    """Return by how much each true Gaussian's partner has too much integrated intensity.

    Their mean is the bias, their standard deviation the scatter.

    Parameters
    ----------
    found, truth : GaussianField
        In one unit and intensity; partners as for `errors_of`.

    Returns
    -------
    ndarray, shape [P]
        Relative: 0.1 where a tenth is too much.
    """
    known, partner, _ = _partners(found, truth)
    light, true = (field.integrated_intensities().double().numpy() for field in (found, truth))
    errors: NDArray[np.float64] = light[partner] / true[known] - 1
    return errors


def against_truth(found: GaussianField, phantom: Phantom) -> tuple[float, float]:
    """Return the PSNRs of a field against its stack without noise.

    A PSNR against the noisy stack rewards what describes its noise; here that is an error.

    Parameters
    ----------
    found : GaussianField
        A fit of the phantom.
    phantom : Phantom
        What was fitted, and the truth behind it.

    Returns
    -------
    held_out, voxels : float
        Mean over the ten views that a default fit holds out, and that of the voxels; in dB.
    """
    from napari_gaussfit.measure.metrics import psnr
    from napari_gaussfit.model.projection import render
    from napari_gaussfit.model.views import Views
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.stack import Stack

    shape, spacing = phantom.stack.shape, phantom.stack.spacing
    clean = Stack.from_array(phantom.truth.voxelise(shape, spacing).numpy(), spacing=spacing)
    views = Views(clean, FitSettings.views, FitSettings.held_out)
    held_out = [
        psnr(
            view.target.numpy(),
            render(found, view.camera, clean.box).numpy(),
            clean.value_range,
            view.hit.numpy(),
        )
        for view in map(views.view, views.held_out)
    ]
    voxels = psnr(clean.voxels, found.voxelise(shape, spacing).numpy(), clean.value_range)
    return float(np.mean(held_out)), voxels


def _partners(
    found: GaussianField, truth: GaussianField
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return true Gaussians, their partners in `found`, and how far these are from them."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    distances = cdist(truth.means.numpy(), found.means.numpy())
    known, partner = linear_sum_assignment(distances)
    return known, partner, distances[known, partner]


def errors_under_noise(
    photons: Iterable[float | None], settings: FitSettings | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """Fit Gaussians that do not overlap under less and less light, and measure the errors.

    Parameters
    ----------
    photons : iterable of float or None
        Photons at the brightest voxel of each recording, of which the Poisson noise follows; None
        is a recording without noise.
    settings : FitSettings, optional
        Of the fits, but for their number of Gaussians, which is the phantom's.
    seed : int
        Of the phantom, `phantoms.separated`.

    Returns
    -------
    DataFrame, a row for each number of photons
        ``photons`` (NaN without noise); ``centre`` in finest spacings, ``width`` (of the principal
        sigmas, the worst of a Gaussian's three) and ``amplitude`` in percent, as
        medians over the Gaussians, and as ``..._95``, 95th percentiles, and ``..._worst``;
        ``voxel_psnr`` in dB.
    """
    from dataclasses import replace

    import pandas as pd

    from napari_gaussfit.fitting.fit import fit
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.synthetic.phantoms import separated

    rows = []
    for light in photons:
        phantom = separated(photons=light, seed=seed)
        asked = replace(settings or FitSettings(), gaussians=len(phantom.truth), exactly=True)
        result = fit(phantom.stack, asked)
        errors = errors_of(result.field, phantom.truth)
        shown = {
            "centre": errors["centre"] / min(phantom.stack.spacing),
            "width": 100 * errors["width"],
            "amplitude": 100 * errors["amplitude"],
        }
        row = {"photons": float("nan") if light is None else light}
        for name, values in shown.items():
            row[name] = float(np.median(values))
            row[f"{name}_95"] = float(np.percentile(values, 95))
            row[f"{name}_worst"] = float(values.max())
        rows.append(row | {"voxel_psnr": result.report.voxel_psnr})
    return pd.DataFrame(rows)
