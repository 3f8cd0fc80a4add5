"""What is known of Gaussians that were measured: `Measurement`. Knows no kernel, loads no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.measure.principal import principal_widths, variances_between
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, LOWER, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["EDITED", "NOT_DETERMINED", "Measurement", "summary"]

EDITED = "edited since it was measured"
"""The flag of a Gaussian that a person has made or changed."""

SHAPE = 3 + len(LOWER[0])
"""Parameters of centre and covariance, before those of brightness."""

NOT_DETERMINED = "not determined"
"""The flag of what has no error bars."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Refined Gaussians and what is known of each.

    Parameters
    ----------
    gaussians : tuple of Gaussians
        Refined, one a channel, with equal means and covariances.
    covariances : ndarray, shape [K, 9 + 2 C, 9 + 2 C]
        Of z, y, x and the six Cholesky parameters (in `unit`), the amplitudes and the backgrounds
        (raw intensity) of each Gaussian; NaN where they are not determined.
    reduced_chi2 : ndarray, shape [K]
        Of the window, 1 where the model holds but for the noise; NaN where the variance of
        the noise is not known.
    backgrounds : ndarray, shape [K, C]
        Around each Gaussian, in raw intensity.
    steps : ndarray of int, shape [K]
        That were taken; below 0 where they did not converge.
    flags : tuple of str
        Of each Gaussian what keeps its numbers from being trusted, words between semicolons; empty
        where nothing does.
    noise : Noise or None
        By which the likelihood weighs; None where it is what is left in each window.
    notes : tuple of str
        What was assumed where it is not known, a sentence each.
    psf : Psf or None
        By which objects are blurred, where that is known.
    """

    gaussians: tuple[Gaussians, ...]
    covariances: Floats
    reduced_chi2: Floats
    backgrounds: Floats
    steps: Counts
    flags: tuple[str, ...]
    noise: Noise | None = None
    notes: tuple[str, ...] = ()
    psf: Psf | None = None

    @property
    def fields(self) -> tuple[GaussianField, ...]:
        """The refined Gaussians of each channel as fields; loads torch when they are rendered."""
        from napari_gaussfit.model.field import GaussianField

        return tuple(GaussianField.from_numpy(gaussians) for gaussians in self.gaussians)

    def __len__(self) -> int:
        """Return the number of Gaussians."""
        return len(self.flags)

    def edited(self, gaussians: Sequence[Gaussians], rows: NDArray[np.intp]) -> Measurement:
        """Return what is still known once some Gaussians are gone, others, or new.

        Parameters
        ----------
        gaussians : sequence of Gaussians
            As they are now, P of each channel.
        rows : ndarray of int, shape [P]
            Which of the measured ones each of them is, below 0 where it is none.

        Returns
        -------
        Measurement
            Of P Gaussians: those that are as they were measured to the bit, and others without
            error bars, with a flag that says why.
        """
        others = rows < 0
        kept = tuple(
            replace(
                now,
                means=np.where(others[:, None], now.means, was.means[rows]),
                cholesky=np.where(others[:, None], now.cholesky, was.cholesky[rows]),
                amplitudes=np.where(others, now.amplitudes, was.amplitudes[rows]),
            )
            for now, was in zip(gaussians, self.gaussians, strict=True)
        )
        flags = tuple(EDITED if row < 0 else self.flags[row] for row in rows)
        covariances, reduced, steps = (
            self.covariances[rows],
            self.reduced_chi2[rows],
            self.steps[rows],
        )
        covariances[others], reduced[others], steps[others] = np.nan, np.nan, 0
        return replace(
            self,
            gaussians=kept,
            covariances=covariances,
            reduced_chi2=reduced,
            backgrounds=self.backgrounds[rows],
            steps=steps,
            flags=flags,
        )

    def errors(self) -> dict[str, Floats]:
        """Return the standard deviation of each number, by the names of a table's columns.

        Returns
        -------
        dict of str to ndarray, shape [K]
            sd_z, sd_y, sd_x, sd_sigma_1 .. 3, sd_fwhm_1 .. 3, sd_fwhm_z, sd_fwhm_y, sd_fwhm_x
            (`unit`), sd_amplitude, sd_background (raw intensity), sd_integrated_intensity (raw
            intensity times `unit` cubed). Of several channels, those of the first; the others' end
            in their number. Errors are propagated linearly. Of widths 1 to 3, along the principal
            axes, they are those of `principal_widths`.
        """
        channels = len(self.gaussians)
        deviations = np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))
        found = {f"sd_{axis}": deviations[:, n] for n, axis in enumerate("zyx")}
        sigmas = self.principal_widths[1]
        found |= {f"sd_sigma_{n + 1}": sigmas[:, n] for n in range(3)}
        found |= {f"sd_fwhm_{n + 1}": FWHM_PER_SIGMA * sigmas[:, n] for n in range(3)}
        along = self.along_axes()[1]
        found |= {f"sd_fwhm_{axis}": FWHM_PER_SIGMA * along[:, n] for n, axis in enumerate("zyx")}
        for c, gaussians in enumerate(self.gaussians):
            end = f"_{c}" if c else ""
            found[f"sd_amplitude{end}"] = deviations[:, SHAPE + c]
            found[f"sd_integrated_intensity{end}"] = self._integral_errors(gaussians, c)
            found[f"sd_background{end}"] = deviations[:, SHAPE + channels + c]
        return found

    def along_axes(self) -> tuple[Floats, Floats]:
        """Return widths along z, y and x, and their errors.

        Returns
        -------
        ndarray, shape [K, 3]
            Standard deviations, the roots of the covariances' diagonals, in `unit`.
        ndarray, shape [K, 3]
            Of these numbers.
        """
        first = self.gaussians[0]
        sigmas = np.linalg.norm(first.factors, axis=2)
        axes = np.broadcast_to(np.eye(3), (len(self), 3, 3))
        variances = variances_between(first, axes, self._of_shapes)
        return sigmas, np.sqrt(np.diagonal(variances, axis1=1, axis2=2)) / (2 * sigmas)

    @cached_property
    def principal_widths(self) -> tuple[Floats, Floats]:
        """Widths [K, 3] along each Gaussian's own axes, and the errors [K, 3] of these.

        Standard deviations, descending, in `unit`, without the bias that their order has, and equal
        where they cannot be told apart; see `measure.principal`.
        """
        return principal_widths(self.gaussians[0], self._of_shapes)

    @property
    def _of_shapes(self) -> Floats:
        """The covariances [K, 6, 6] of the Cholesky parameters."""
        return self.covariances[:, 3:SHAPE, 3:SHAPE]

    def _integral_errors(self, gaussians: Gaussians, channel: int) -> Floats:
        """Return the errors [K] of A (2 pi)^(3/2) det L."""
        size = self.covariances.shape[1]
        gradients = np.zeros((len(self), size))
        integrals = gaussians.integrated_intensities()
        gradients[:, [3, 5, 8]] = integrals[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            gradients[:, SHAPE + channel] = integrals / gaussians.amplitudes.astype(np.float64)
        errors: Floats = np.sqrt(np.einsum("ki,kij,kj->k", gradients, self.covariances, gradients))
        return errors


def summary(found: Measurement | None) -> str:
    """Say how well Gaussians are known.

    Parameters
    ----------
    found : Measurement or None
        Of any; None where they were not measured.

    Returns
    -------
    str
        How many, typical errors, why the others are not, and what was assumed.
    """
    if found is None:
        return "not measured"
    errors, unit = found.errors(), found.gaussians[0].unit
    known = np.isfinite(errors["sd_z"]) & np.array([not flags for flags in found.flags], np.bool_)
    said = f"{int(known.sum()):,} of {counted(len(found))} determined"
    if known.any():
        z, y, x = (float(np.median(errors[f"sd_{axis}"][known])) for axis in "zyx")
        widths = np.stack([errors[f"sd_fwhm_{n}"][known] for n in (1, 2, 3)])
        said += (
            f", in the median to {z:.2g}, {y:.2g}, {x:.2g} (z, y, x) and FWHM to "
            f"{float(np.median(widths)):.2g} {unit}s"
        )
    words = Counter(word for flags in found.flags for word in flags.split("; ") if word)
    others = ", ".join(f"{count:,} {word}" for word, count in words.most_common())
    return "; ".join((said, *([f"not by themselves: {others}"] if others else []), *found.notes))
