"""Report: how good a fit is, by views never trained on, by the voxels, and by itself."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.metrics import noise_psnr, psnr, ssim
from napari_gaussfit.measure.noise import Noise, draw_noise, given_noise
from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.stacks.reading import is_number, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from dataclasses import Field

    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.scaling import WorkingStack
    from napari_gaussfit.model.views import View, Views
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.stack import Stack

    Image = NDArray[np.float32]

TRAINING_VIEWS_REPORTED = 5
"""Training views that the report looks at; with the held-out ones' number it shows the gap."""

NOISY_VIEWS = 3
"""Held-out views on which is measured what the noise leaves to reach."""

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
        Unit of length of the spacing: "micrometer" or "pixel".
    gaussians : int
        Number of Gaussians of the field.
    background : float
        Constant background of the field, in raw intensity.
    heldout_mip_psnr, heldout_mip_ssim : float
        Means over the views never trained on; dB. The MIPs of a noisy stack are brighter than
        those of what is there, so that no honest field has them.
    heldout_noise_psnr : float
        What the noise leaves to reach of `heldout_mip_psnr`: that of the field's MIPs against those
        of the field with a draw of the stack's noise; dB, None where the noise cannot be known.
    train_mip_psnr : float
        Mean over a sample of the views trained on; dB.
    mip_psnr_gap : float
        Of the views trained on over those held out; dB. Much above 0, there are more Gaussians than
        the views can tell apart.
    voxel_psnr : float
        Of the field on the stack's own voxels; dB.
    noise_psnr : float
        What the stack's noise leaves to reach, as `metrics.noise_psnr` estimates it; dB, None where
        the noise cannot be known. A voxel PSNR well above it says that Gaussians describe noise.
    consistency_psnr : float
        Of the field's MIPs against the MIPs of its own voxels, over the held-out views (of a time
        that follows another, over three of them); dB.
    compression : float
        The stack's bytes for each byte of the field.
    seconds : float
        Time that the fit took, in seconds, without reading and writing files.
    iterations : int
        Number of optimiser steps taken.
    device, backend : str
        Device ("cpu", "cuda:0") and kernels ("numba", "numba-cuda") that computed the fit.
    peak_memory_mb : float
        Largest memory of the process so far, imports included.
    seed : int
        Seed of the fit's random choices.
    version : str
        Version of this package that made the fit.
    converged : bool
        Whether more steps would leave the Gaussians as they are, but for noise.
    convergence : str
        How that is known, and what to do; empty where it was not looked at.
    count_reason : str
        Why there are as many Gaussians; empty where a fit did not say.
    notes : tuple of str
        What the settings assume, and what it means for the numbers.
    noise : str
        The noise in words, or why it cannot be known; empty where it was not looked at.
    measured : str
        Whether the Gaussians of the table were measured, one by one with error bars, and why.
        Empty where nobody asked: in a notebook, `FitResult.measured` does it.
    psf : str
        The point spread function that was fitted with; empty where there was none.
    gain, offset, read_noise, saturation : float
        Of the detector, in raw intensity, see `noise.Noise`; None for what is not known. Those of a
        stack, without what was given, have either offset or read noise: their sum alone is known.
    """

    stack: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    unit: str
    gaussians: int
    background: float
    heldout_mip_psnr: float
    heldout_mip_ssim: float
    heldout_noise_psnr: float | None
    train_mip_psnr: float
    mip_psnr_gap: float
    voxel_psnr: float
    noise_psnr: float | None
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
    convergence: str = ""
    count_reason: str = ""
    notes: tuple[str, ...] = ()
    noise: str = ""
    measured: str = ""
    psf: str = ""
    gain: float | None = None
    offset: float | None = None
    read_noise: float | None = None
    saturation: float | None = None

    @property
    def detector(self) -> Noise | None:
        """The noise that gain, offset and read noise make; None where they are not known."""
        offset, read = (
            0.0 if value is None or math.isnan(value) else value
            for value in (self.offset, self.read_noise)
        )
        if self.gain is None or not (self.gain > 0 or read > 0):
            return None
        return Noise.of_detector(self.gain, offset=offset, read=read)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Return the report that `to_dict` gave, of this version or an earlier one.

        Parameters
        ----------
        values : mapping
            Values by name. A real number that an earlier version did not measure is NaN, or None
            where that may be; names that are not known here are left out.

        Returns
        -------
        Report
            With values of the right types.

        Raises
        ------
        SettingsError
            If a value is missing, or is not of its type.
        """
        return cls(**{one.name: _checked(one, values) for one in fields(cls)})


def _checked(part: Field[Any], values: Mapping[str, Any]) -> Any:
    """Return the value of one field of a report that comes from a file."""
    kind, _, optional = str(part.type).partition("[")[0].partition(" | ")
    value = values.get(part.name)
    if part.name not in values and part.default is not MISSING:
        return part.default
    if kind == "float" and value is None:
        return None if optional else math.nan
    expected, right = {
        "float": ("a number", is_number(value)),
        "int": ("a whole number", isinstance(value, int) and is_number(value)),
        "bool": ("true or false", isinstance(value, bool)),
        "str": ("text", isinstance(value, str)),
        "tuple": ("a list", isinstance(value, list)),
    }[kind]
    if not right:
        raise SettingsError(f"report: {part.name} is {shown(value)}; expected {expected}")
    return tuple(value) if isinstance(value, list) else value


@in_one_torch_thread()
def make_report(
    field: GaussianField,
    working: WorkingStack,
    views: Views,
    settings: FitSettings,
    *,
    seconds: float,
    iterations: int,
    known: Noise | None = None,
) -> Report:
    """Measure a field against its stack; no contribution is left out.

    Parameters
    ----------
    field : GaussianField
        What was fitted, in working units.
    working : WorkingStack
        What it was fitted to.
    views : Views
        Of the stack in working units.
    settings : FitSettings
        What was asked for.
    seconds, iterations : float, int
        Time in seconds and number of optimiser steps that the fit took.
    known : Noise, optional
        Of the detector in raw intensity, as the time before has told it. What makes a time worse
        than that one shows in the held-out views, all of which are looked at; how well views are
        rendered, and those trained on, are sampled by three then.

    Returns
    -------
    Report
        Of this field.
    """
    from importlib.metadata import version

    from napari_gaussfit._kernels import backend_name, device_named

    original, stack, device = working.original, working.stack, device_named(settings.device)
    field = field.to(device)
    volume: Image = field.voxelise(stack.shape, stack.spacing).cpu().numpy()
    every = max(1, len(views.training) // TRAINING_VIEWS_REPORTED)
    sample = views.training[::every][:TRAINING_VIEWS_REPORTED]
    if known is not None:
        sample = sample[::2]
    held_out = [views.view(camera) for camera in views.held_out]
    few = [*range(0, len(held_out), max(1, len(held_out) // NOISY_VIEWS))][:NOISY_VIEWS]
    looked = range(len(held_out)) if known is None else few
    images = [_image(field, stack, view) for view in held_out]
    heldout_mip_psnr = _mean(
        _view_psnr(view.target.numpy(), image, view, stack)
        for view, image in zip(held_out, images, strict=True)
    )
    train_mip_psnr = _mean(
        _view_psnr(view.target.numpy(), _image(field, stack, view), view, stack)
        for view in map(views.view, sample)
    )
    own = dict(zip(looked, _projections(volume, stack, [held_out[n] for n in looked]), strict=True))
    voxel_psnr = psnr(stack.voxels, volume, stack.value_range)
    noise, words = _noise(working, volume, settings, known)
    noisy: list[Image] = []
    if noise is not None:
        # In place: with a copy, this would be the fullest moment of a fit.
        volume += draw_noise(noise, volume, np.random.default_rng(settings.seed))
        noisy = _projections(volume, stack, [held_out[n] for n in few])
    report = Report(
        stack=original.name,
        shape=original.shape,
        spacing=original.spacing,
        unit=original.unit,
        gaussians=len(field),
        background=working.restored_background(field.background),
        heldout_mip_psnr=heldout_mip_psnr,
        heldout_mip_ssim=_mean(
            ssim(view.target.numpy(), image, stack.value_range)
            for view, image in zip(held_out, images, strict=True)
        ),
        heldout_noise_psnr=None
        if noise is None
        else _mean(
            _view_psnr(with_noise, own[n], held_out[n], stack)
            for n, with_noise in zip(few, noisy, strict=True)
        ),
        train_mip_psnr=train_mip_psnr,
        mip_psnr_gap=train_mip_psnr - heldout_mip_psnr,
        voxel_psnr=voxel_psnr,
        noise_psnr=None if noise is None else noise_psnr(stack.voxels, stack.value_range),
        consistency_psnr=_mean(
            _view_psnr(projection, images[n], held_out[n], stack) for n, projection in own.items()
        ),
        compression=original.nbytes / max(1, len(field) * NUMBERS_PER_GAUSSIAN * BYTES_PER_NUMBER),
        seconds=seconds,
        iterations=iterations,
        device=str(device),
        backend=backend_name(device),
        peak_memory_mb=peak_memory_mb(),
        seed=settings.seed,
        version=version("napari-gaussfit"),
        notes=_notes(working, settings),
    )
    noise = noise and noise.rescaled(working.range, float(working.lowest))
    return replace(_with_detector(report, noise, settings), noise=words)


def _noise(
    working: WorkingStack, volume: Image, settings: FitSettings, known: Noise | None
) -> tuple[Noise | None, str]:
    """Return the noise in working units, and the original's in words, or why there is none."""
    scale = working.range, float(working.lowest)
    given, whence = given_noise(settings, working.original.voxels), "as given"
    if given is None and known is not None:
        given, whence = known, "as at the time before"
    if given is not None:
        back = given.rescaled(1 / scale[0], -scale[1] / scale[0])
        return back, f"{given.words}, {whence}"
    curve = photon_transfer(working.stack.voxels, volume)
    return curve.noise, curve.rescaled(*scale).words


def _with_detector(report: Report, noise: Noise | None, settings: FitSettings) -> Report:
    """Return a report that says what is known of the detector."""
    if noise is None:
        return report
    offset, read = noise.offset, noise.read
    if settings.gain is not None:
        offset, read = settings.offset or 0.0, settings.read_noise or 0.0
    saturation = noise.saturation if math.isfinite(noise.saturation) else None
    return replace(report, gain=noise.gain, offset=offset, read_noise=read, saturation=saturation)


def _image(field: GaussianField, stack: Stack, view: View) -> Image:
    """Return a field's MIP, 0 where a ray misses the box."""
    from napari_gaussfit.model.projection import render

    image = render(field, view.camera, stack.box).cpu().numpy()
    return np.where(view.hit.numpy(), image, np.float32(0.0))


def _view_psnr(reference: Image, image: Image, view: View, stack: Stack) -> float:
    return psnr(reference, image, stack.value_range, view.hit.numpy())


def _projections(volume: Image, stack: Stack, views: Sequence[View]) -> list[Image]:
    """Return the MIPs of other voxels in a stack's place."""
    from napari_gaussfit.model.projection import StackProjector

    projector = StackProjector(replace(stack, voxels=volume))
    return [projector.maximum(view.camera) for view in views]


def _notes(working: WorkingStack, settings: FitSettings) -> tuple[str, ...]:
    """Return what the settings assume of a stack."""
    notes = []
    if settings.objective == "mip":
        notes.append(
            "objective mip fits the maxima of the noisy stack, which noise lifts: amplitudes and "
            "integrated intensities are too large (by a fifth at 100 photons); mip+voxels is "
            "unbiased"
        )
    if settings.loss == "poisson":
        notes.append(
            "loss poisson assumes that intensity is proportional to photons: 0 where there is no "
            f"light (the lowest voxel is {working.lowest:g}), and no read noise"
        )
    return tuple(notes)


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
