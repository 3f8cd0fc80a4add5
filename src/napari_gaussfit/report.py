"""Report: how good a fit is, by views never trained on, by the voxels, and by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.metrics import noise_psnr, psnr, ssim
from napari_gaussfit.projection import StackProjector, render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_gaussfit.camera import Camera
    from napari_gaussfit.field import GaussianField
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stack import Stack
    from napari_gaussfit.views import Views

TRAINING_VIEWS_REPORTED = 10
"""Training views that the report looks at; with the held-out ones' number it shows the gap."""

NUMBERS_PER_GAUSSIAN = 10
BYTES_PER_NUMBER = 4


@dataclass(frozen=True)
class Report:
    """How good a fit is and what it took.

    Parameters
    ----------
    stack : str
        Name of the stack.
    shape : tuple of int
        Its voxels, z, y, x.
    spacing : tuple of float
        (dz, dy, dx) in `unit`.
    unit : str
        "micrometer" or "pixel".
    gaussians : int
        Number of Gaussians.
    background : float
        Raw intensity.
    heldout_mip_psnr, heldout_mip_ssim : float
        Means over the views never trained on; dB.
    train_mip_psnr : float
        Mean over a sample of the views trained on; dB.
    mip_psnr_gap : float
        Of the views trained on over those held out; dB. Much above 0, there are more Gaussians than
        the views can tell apart.
    voxel_psnr : float
        Of the field on the stack's own voxels; dB.
    noise_psnr : float
        What the stack's noise leaves to reach, as `metrics.noise_psnr` estimates it; dB. A voxel
        PSNR well above it says that Gaussians describe noise.
    consistency_psnr : float
        Of the field's MIPs against the MIPs of its own voxels, over the held-out views; dB.
    compression : float
        The stack's bytes for each byte of the field.
    seconds : float
        Time spent fitting.
    iterations : int
        Steps taken.
    device, backend : str
        Where and with what.
    peak_memory_mb : float
        Largest memory of the process so far, imports included.
    seed : int
        Of the random choices.
    version : str
        Of this package.
    converged : bool
        Whether more steps would leave the Gaussians as they are, but for noise.
    convergence : str
        How that is known, and what to do.
    """

    stack: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    unit: str
    gaussians: int
    background: float
    heldout_mip_psnr: float
    heldout_mip_ssim: float
    train_mip_psnr: float
    mip_psnr_gap: float
    voxel_psnr: float
    noise_psnr: float
    consistency_psnr: float
    compression: float
    seconds: float
    iterations: int
    device: str
    backend: str
    peak_memory_mb: float
    seed: int
    version: str
    converged: bool = False
    convergence: str = "not looked at"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)


def make_report(
    field: GaussianField,
    stack: Stack,
    views: Views,
    settings: FitSettings,
    *,
    seconds: float,
    iterations: int,
) -> Report:
    """Measure a field against its stack; no contribution is left out.

    Parameters
    ----------
    field : GaussianField
        What was fitted, in raw intensity.
    stack : Stack
        What it was fitted to.
    views : Views
        Its views.
    settings : FitSettings
        What was asked for.
    seconds, iterations : float, int
        What it took.

    Returns
    -------
    Report
        Of this field.
    """
    from importlib.metadata import version

    from napari_gaussfit._kernels import backend_name, device_named
    from napari_gaussfit.stack import Stack

    field = field.to(device_named(settings.device))
    volume = field.voxelise(stack.shape, stack.spacing).cpu().numpy()
    again = StackProjector(Stack(volume, stack.spacing, stack.unit, "the field's own voxels"))
    sample = views.training[:: max(1, len(views.training) // TRAINING_VIEWS_REPORTED)]
    held_out = [_compare(field, stack, views, camera) for camera in views.held_out]
    consistency = [
        psnr(
            again.project(camera),
            _image(field, stack, views, camera),
            stack.value_range,
            views.view(camera).hit.numpy(),
        )
        for camera in views.held_out
    ]
    heldout_mip_psnr = _mean(value for value, _ in held_out)
    train_mip_psnr = _mean(_compare(field, stack, views, camera)[0] for camera in sample)
    return Report(
        stack=stack.name,
        shape=stack.shape,
        spacing=stack.spacing,
        unit=stack.unit,
        gaussians=len(field),
        background=field.background,
        heldout_mip_psnr=heldout_mip_psnr,
        heldout_mip_ssim=_mean(value for _, value in held_out),
        train_mip_psnr=train_mip_psnr,
        mip_psnr_gap=train_mip_psnr - heldout_mip_psnr,
        voxel_psnr=psnr(stack.voxels, volume, stack.value_range),
        noise_psnr=noise_psnr(stack.voxels, stack.value_range),
        consistency_psnr=_mean(consistency),
        compression=stack.nbytes / max(1, len(field) * NUMBERS_PER_GAUSSIAN * BYTES_PER_NUMBER),
        seconds=seconds,
        iterations=iterations,
        device=str(field.device),
        backend=backend_name(field.device),
        peak_memory_mb=peak_memory_mb(),
        seed=settings.seed,
        version=version("napari-gaussfit"),
    )


def _image(
    field: GaussianField, stack: Stack, views: Views, camera: Camera
) -> np.ndarray[Any, Any]:
    image = render(field, camera, stack.box).cpu().numpy()
    return np.where(views.view(camera).hit.numpy(), image, 0.0)


def _compare(
    field: GaussianField, stack: Stack, views: Views, camera: Camera
) -> tuple[float, float]:
    """Return PSNR and SSIM of a field's MIP against the stack's."""
    view = views.view(camera)
    image, target = _image(field, stack, views, camera), view.target.numpy()
    found = psnr(target, image, stack.value_range, view.hit.numpy())
    return found, ssim(target, image, stack.value_range)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def peak_memory_mb() -> float:
    """Return the largest memory that this process has used, in MB (10^6 bytes)."""
    try:
        import resource
    except ImportError:  # Windows keeps it elsewhere
        import psutil

        return float(psutil.Process().memory_info()._asdict()["peak_wset"]) / 1e6
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1.0 if sys.platform == "darwin" else 1024.0) / 1e6
