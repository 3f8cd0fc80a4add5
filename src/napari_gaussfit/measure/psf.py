"""A microscope's point spread function: measured, told by its optics, or given; and its file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.measure.optics import Optics
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Psf", "triple"]

NARROWEST, WIDEST = 1e-4, 1e4
"""Micrometres between which the widths of light are."""

VERSION = 1
TRIPLES = ("fwhm", "sd", "principal_fwhm", "principal_sd")


@dataclass(frozen=True)
class Psf:
    """A point spread function, as a Gaussian.

    Parameters
    ----------
    fwhm : tuple of float
        Full widths at half maximum along z, y and x, in micrometres: means over the beads.
    sd : tuple of float
        Standard deviations over the beads; NaN for one bead, or none.
    principal_fwhm, principal_sd : tuple of float
        The same along the principal axes, the widest first.
    covariance : tuple of tuple of float
        Mean covariance, axis order z, y, x, in micrometres squared.
    beads : int
        How many were measured; 0 where the optics tell.
    source : str
        The stack, or the optics.
    """

    fwhm: tuple[float, float, float]
    sd: tuple[float, float, float]
    principal_fwhm: tuple[float, float, float]
    principal_sd: tuple[float, float, float]
    covariance: tuple[tuple[float, float, float], ...]
    beads: int
    source: str

    @classmethod
    def of_optics(cls, optics: Optics) -> Psf:
        """Return what light allows.

        Parameters
        ----------
        optics : Optics
            Objective, wavelength, immersion, pinhole.

        Returns
        -------
        Psf
            With the FWHM of the optics' point spread function.
        """
        return cls.of_fwhm(optics.fwhm, source=optics.words)

    @classmethod
    def of_fwhm(cls, fwhm: Sequence[float], *, source: str = "given") -> Psf:
        """Return a point spread function of known widths.

        Parameters
        ----------
        fwhm : sequence of float
            Full widths at half maximum along z, y and x, in micrometres.
        source : str
            Where they come from.

        Returns
        -------
        Psf
            With its axes along z, y and x.

        Raises
        ------
        SettingsError
            If they are not three lengths above 0.
        """
        widths = tuple(float(width) for width in fwhm)
        if len(widths) != 3 or not all(NARROWEST < width < WIDEST for width in widths):
            raise SettingsError(
                f"fwhm={widths}: expected three lengths above 0, along z, y and x, in micrometers "
                f"({NARROWEST:g} to {WIDEST:g})"
            )
        unknown = (math.nan,) * 3
        variances = np.diag(np.square(np.array(widths) / FWHM_PER_SIGMA))
        return cls(
            triple(widths), unknown, triple(sorted(widths, reverse=True)), unknown,
            tuple(triple(row) for row in variances), 0, source,
        )  # fmt: skip

    @property
    def matrix(self) -> Floats:
        """The covariance, shape [3, 3]."""
        return np.array(self.covariance, np.float64)

    @property
    def is_aligned(self) -> bool:
        """Whether its axes are z, y and x."""
        return bool((self.matrix == np.diag(np.diagonal(self.matrix))).all())

    @property
    def words(self) -> str:
        """Widths and source, for a person."""
        widths = ", ".join(f"{1000 * width:.0f}" for width in self.fwhm)
        beads = f", {self.beads} bead{'s' * (self.beads != 1)}" if self.beads else ""
        return f"FWHM {widths} nm along z, y, x ({self.source}{beads})"

    def in_unit(self, unit: str) -> Floats:
        """Return the covariance in the unit of a stack.

        Parameters
        ----------
        unit : str
            The unit of length that the covariance is returned in.

        Returns
        -------
        ndarray, shape [3, 3]
            In that unit squared.

        Raises
        ------
        SettingsError
            If its spacing is not known.
        """
        if unit != "micrometer":
            raise SettingsError(
                "psf: its widths are in micrometers, and the stack's spacing is not known; give it "
                "(--spacing DZ DY DX)"
            )
        return self.matrix

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, null for what is not known."""
        content: dict[str, Any] = {"version": VERSION, "unit": "micrometer"} | asdict(self)
        for name in ("sd", "principal_sd"):
            content[name] = [None if math.isnan(value) else value for value in content[name]]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Psf:
        """Return the point spread function that `to_dict` gave.

        Parameters
        ----------
        content : mapping
            The content of the file, by name, as `to_dict` returns it.

        Returns
        -------
        Psf
            As it was.

        Raises
        ------
        ValueError
            If it holds none.
        """
        try:
            fwhm, sd, principal_fwhm, principal_sd = (triple(content[name]) for name in TRIPLES)
            rows: list[list[float]] = content["covariance"]
            covariance = tuple(triple(row) for row in rows)
            matrix = np.array(covariance)
            widths = np.linalg.eigvalsh(matrix)
            sound = ((widths > NARROWEST**2) & (widths < WIDEST**2)).all()
            sound &= np.allclose(matrix, matrix.T)
            if len(covariance) != 3 or not sound:
                raise ValueError("its covariance is none")
            return cls(
                fwhm, sd, principal_fwhm, principal_sd, covariance,
                int(content["beads"]), str(content["source"]),
            )  # fmt: skip
        except (TypeError, KeyError, OverflowError, np.linalg.LinAlgError) as error:
            raise ValueError(str(error)) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file that `load` reads.

        Parameters
        ----------
        path : path-like
            The file to write or to replace, by convention named ``psf.json``.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Psf:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file that is read.

        Returns
        -------
        Psf
            As it was saved.

        Raises
        ------
        FormatError
            If there is no such file, or it holds no point spread function.
        """
        source = Path(path)
        try:
            return cls.from_dict(json.loads(source.read_text(encoding="utf-8")))
        except OSError as error:
            raise FormatError(f"{source}: cannot be read: {error.strerror}") from error
        except (ValueError, AttributeError) as error:
            raise FormatError(
                f"{source}: holds no point spread function; give the psf.json that "
                "napari-gaussfit psf wrote"
            ) from error

    @classmethod
    def named(cls, words: str) -> Psf:
        """Return the one that a person names.

        Parameters
        ----------
        words : str
            A file that `save` wrote, or NA, wavelength in nanometres and refractive index of the
            immersion, with commas between.

        Returns
        -------
        Psf
            That of the file, or of the optics.

        Raises
        ------
        SettingsError
            If three numbers do not make a microscope.
        FormatError
            If there is no such file, or it holds no point spread function.
        """
        from napari_gaussfit.measure.optics import Optics

        try:
            numbers = [float(part) for part in words.split(",")]
        except ValueError:
            return cls.load(words)
        if len(numbers) != 3:
            raise SettingsError(
                f"{words}: expected the psf.json of "
                "napari-gaussfit psf, or NA,WAVELENGTH_NM,INDEX such as 1.4,520,1.518"
            )
        return cls.of_optics(Optics(*numbers))


def triple(values: Iterable[float | None]) -> tuple[float, float, float]:
    """Return three numbers, NaN for those that are None.

    Parameters
    ----------
    values : iterable of float or None
        Three numbers, or None where one is not known.

    Returns
    -------
    tuple of float
        The same.

    Raises
    ------
    ValueError
        If they are more or fewer.
    """
    z, y, x = (math.nan if value is None else float(value) for value in values)
    return z, y, x
