"""Gaussians: a field's numbers as arrays, which is all that files, windows and messages need.

Knows no torch: a `GaussianField`, which is what is rendered and learnt, gives them and is made of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_gaussfit import _limits
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "FWHM_PER_SIGMA",
    "LOWER",
    "Gaussians",
    "brightest_as_html",
    "counted",
    "factors_of",
    "refuse_other_shapes",
]

SHOWN = 5
"""Gaussians in a notebook's table."""

FWHM_PER_SIGMA = 2.0 * float(np.sqrt(2.0 * np.log(2.0)))

DIAGONAL = (1.0, 0.0, 1.0, 0.0, 0.0, 1.0)
"""Which of the Cholesky parameters are on the diagonal of L."""

LOWER = np.tril_indices(3)
"""Where the Cholesky parameters stand in L: row by row."""

_ON_DIAGONAL, _OFF_DIAGONAL = np.flatnonzero(DIAGONAL), np.flatnonzero(np.equal(DIAGONAL, 0))


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The numbers of a `GaussianField`; what follows from them is computed in float64.

    Parameters
    ----------
    means : ndarray, shape [K, 3]
        Centres, in `unit`, axis order z, y, x.
    cholesky : ndarray, shape [K, 6]
        Cholesky parameters, see `GaussianField`; in `unit`.
    amplitudes : ndarray, shape [K]
        Peak value a_k of each Gaussian, in raw intensity.
    background : float
        Constant that is added to the Gaussians, in raw intensity.
    unit : str
        Of lengths: "micrometer" or "pixel".
    full_covariance : bool
        False keeps the axes along z, y and x, see `GaussianField`.

    Raises
    ------
    SettingsError
        If shapes do not belong together, or a number is not finite or beyond what float32 can
        work with.
    """

    means: NDArray[Any]
    cholesky: NDArray[Any]
    amplitudes: NDArray[Any]
    background: float = 0.0
    unit: str = "micrometer"
    full_covariance: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together, and what the kernels cannot evaluate."""
        refuse_other_shapes(self.means, self.cholesky, self.amplitudes)
        self._refuse_unsound()
        if not self.full_covariance:
            kept = np.asarray(DIAGONAL, self.cholesky.dtype)
            object.__setattr__(self, "cholesky", self.cholesky * kept)

    @classmethod
    def from_covariances(
        cls,
        means: ArrayLike,
        covariances: ArrayLike,
        amplitudes: ArrayLike,
        *,
        background: float = 0.0,
        unit: str = "micrometer",
        full_covariance: bool = True,
    ) -> Gaussians:
        """Make Gaussians, in float32, of covariances; see `GaussianField.from_covariances`.

        Parameters
        ----------
        means : array-like, shape [K, 3]
            In `unit`, axis order z, y, x.
        covariances : array-like, shape [K, 3, 3]
            Covariances Sigma_k along (z, y, x), in `unit` squared.
        amplitudes : array-like, shape [K]
            Peak value a_k of each Gaussian, in raw intensity.
        background : float
            Constant that is added to the Gaussians, in raw intensity.
        unit : str
            Of lengths: "micrometer" or "pixel".
        full_covariance : bool
            Whether more than the diagonals counts.

        Raises
        ------
        SettingsError
            If a covariance is not positive definite; the message gives its index. Or if a number
            is not finite, or beyond what float32 can work with.
        """
        sigma = np.asarray(covariances, np.float64).reshape(-1, 3, 3)
        if not full_covariance:
            sigma = sigma * np.eye(3)
        cholesky = _factors_of_covariances(sigma)[:, *LOWER]
        cholesky[:, _ON_DIAGONAL] = np.log(cholesky[:, _ON_DIAGONAL])
        with np.errstate(over="ignore"):  # an infinity that comes of it is refused
            return cls(
                np.asarray(means, np.float32).reshape(-1, 3).copy(),
                cholesky.astype(np.float32),
                np.asarray(amplitudes, np.float32).reshape(-1).copy(),
                background,
                unit,
                full_covariance,
            )

    def _refuse_unsound(self) -> None:
        """Refuse what is NaN, infinite, or beyond the limits, with the Gaussian that it is in."""
        slants = self.cholesky[:, _OFF_DIAGONAL]
        for what, numbers, most in (
            ("centre", self.means, _limits.FARTHEST_MEAN),
            ("log-widths", self.log_widths, float(np.log(_limits.WIDEST))),
            ("slants", slants, _limits.WIDEST),
            ("amplitude", self.amplitudes[:, None], _limits.BRIGHTEST),
        ):
            # Not "larger than": a comparison with NaN is false.
            bad = ~(np.abs(numbers) <= most).all(axis=1)
            if bad.any():
                k = int(np.argmax(bad))
                found = ", ".join(f"{n:.4g}" for n in numbers[k])
                self._refuse(k, f"has the {what} {found}; expected finite numbers up to {most:.4g}")
        widths = np.exp(self.log_widths)
        longest = np.maximum(widths, np.abs(slants)).max(axis=1, initial=0.0)
        aspects = longest / widths.min(axis=1, initial=np.inf)
        if (aspects > _limits.MOST_ELONGATED).any():
            k = int(np.argmax(aspects))
            most = _limits.MOST_ELONGATED
            self._refuse(k, f"is {aspects[k]:.3g} times as long as wide; expected up to {most:g}")
        if not abs(self.background) <= _limits.BRIGHTEST:
            message = (
                f"background={self.background:g}: expected a finite number up to "
                f"{_limits.BRIGHTEST:g}"
            )
            raise SettingsError(message)

    def _refuse(self, k: int, why: str) -> NoReturn:
        message = f"Gaussian {k} of {len(self)}, from 0, {why}"
        raise SettingsError(message)

    def __repr__(self) -> str:
        """Say how many there are."""
        background, unit = f"{self.background:g}", self.unit
        return f"{type(self).__name__}({len(self):,}, background={background}, unit={unit!r})"

    def __len__(self) -> int:
        """Return the number of Gaussians."""
        return len(self.means)

    def select(self, which: NDArray[Any] | slice) -> Gaussians:
        """Return the Gaussians that a mask [K], indices or a slice choose.

        Parameters
        ----------
        which : ndarray or slice
            A mask [K], indices, or a slice.

        Returns
        -------
        Gaussians
            With the same background and unit.
        """
        return replace(
            self,
            means=self.means[which],
            cholesky=self.cholesky[which],
            amplitudes=self.amplitudes[which],
        )

    @property
    def log_widths(self) -> Floats:
        """The logarithms of L's diagonal [K, 3]: their sum is that of the principal sigmas'."""
        return self.cholesky[:, _ON_DIAGONAL].astype(np.float64)

    @property
    def factors(self) -> Floats:
        """L, shape [K, 3, 3], in `unit`."""
        return factors_of(self.cholesky)

    @property
    def covariances(self) -> Floats:
        """Sigma = L L^T, shape [K, 3, 3], in `unit` squared, axis order z, y, x."""
        lower = self.factors
        return lower @ lower.transpose(0, 2, 1)

    def principal(self) -> tuple[Floats, Floats]:
        """Return principal sigmas and axes.

        Returns
        -------
        sigmas : ndarray, shape [K, 3]
            Standard deviations along the principal axes, descending, in `unit`.
        axes : ndarray, shape [K, 3, 3]
            ``axes[k, n]`` is the unit vector (z, y, x) of ``sigmas[k, n]``.
        """
        values, vectors = np.linalg.eigh(self.covariances)
        sigmas = np.sqrt(np.maximum(values, 0.0))[:, ::-1]
        axes = vectors.transpose(0, 2, 1)[:, ::-1]
        return np.ascontiguousarray(sigmas), np.ascontiguousarray(axes)

    def fwhm(self) -> Floats:
        """Return full widths at half maximum along the principal axes [K, 3], descending."""
        return self.principal()[0] * FWHM_PER_SIGMA

    def integrated_intensities(self) -> Floats:
        """Return a (2 pi)^(3/2) sqrt(det Sigma) [K], raw intensity times `unit` cubed."""
        widths: Floats = np.exp(self.log_widths.sum(axis=1))
        integrals: Floats = (2 * np.pi) ** 1.5 * widths * self.amplitudes
        return integrals


def brightest_as_html(gaussians: Gaussians) -> str:
    """Return a table of the brightest Gaussians, for notebooks.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of which the `SHOWN` with most light are shown.

    Returns
    -------
    str
        A paragraph with their number, and a table of position, FWHM, amplitude and light.
    """
    from napari_gaussfit.stacks.html import table

    light = gaussians.integrated_intensities()
    which = np.argsort(-light, kind="stable")[:SHOWN]
    chosen = gaussians.select(which)
    columns = [chosen.means, chosen.fwhm(), chosen.amplitudes[:, None], light[which, None]]
    cells = np.concatenate([np.asarray(column, np.float64) for column in columns], axis=1)
    rows = [[str(k), *(f"{n:.4g}" for n in row)] for k, row in zip(which, cells, strict=True)]
    header = ["", "z", "y", "x", "fwhm_1", "fwhm_2", "fwhm_3", "amplitude", "integrated_intensity"]
    more = f"the brightest {len(which)} of " if len(which) < len(gaussians) else ""
    return f"<p>{more}{counted(len(gaussians))}, {gaussians.unit}s</p>" + table(rows, header=header)


def counted(count: int) -> str:
    """Say how many Gaussians there are.

    Parameters
    ----------
    count : int
        Their number, which may be 1 or 0.

    Returns
    -------
    str
        As in "1 Gaussian" and "1,234 Gaussians".
    """
    return f"{count:,} Gaussian{'s' * (count != 1)}"


def factors_of(cholesky: NDArray[Any]) -> Floats:
    """Return L of Cholesky parameters.

    Parameters
    ----------
    cholesky : ndarray, shape [K, 6]
        Numbers of the Cholesky factors in the order that `GaussianField` has them.

    Returns
    -------
    ndarray, shape [K, 3, 3]
        In float64.
    """
    lower = np.zeros((len(cholesky), 3, 3))
    lower[:, *LOWER] = cholesky
    diagonal = np.arange(3)
    lower[:, diagonal, diagonal] = np.exp(lower[:, diagonal, diagonal])
    return lower


def _factors_of_covariances(covariances: Floats) -> Floats:
    """Return L [K, 3, 3] of covariances [K, 3, 3]; refuse those that have none."""
    # Beyond the squares of what is allowed, eigenvalues need not converge.
    bad = ~(np.abs(covariances) <= _limits.WIDEST**2).all(axis=(1, 2))
    if bad.any():
        k = int(np.argmax(bad))
        message = (
            f"covariances[{k}] has an entry that is NaN, infinite or beyond {_limits.WIDEST**2:g}"
        )
        raise SettingsError(message)
    smallest = np.linalg.eigvalsh(covariances)[:, 0] if len(covariances) else np.zeros(0)
    if (smallest <= 0).any():
        k = int(np.argmin(smallest))
        message = (
            f"covariances[{k}] is not positive definite: its smallest eigenvalue is "
            f"{smallest[k]:.3g}; expected more than 0"
        )
        raise SettingsError(message)
    try:
        return np.asarray(np.linalg.cholesky(covariances), np.float64)
    except np.linalg.LinAlgError as error:  # by rounding, where eigenvalues hardly are above 0
        message = f"covariances: one is positive definite by less than rounding ({error})"
        raise SettingsError(message) from error


def refuse_other_shapes(means: Any, cholesky: Any, amplitudes: Any) -> None:
    """Refuse arrays or tensors that are not [K, 3], [K, 6] and [K].

    Parameters
    ----------
    means, cholesky, amplitudes : ndarray or Tensor
        Parameters of a field, whose shapes must agree.

    Raises
    ------
    SettingsError
        With the shape found and the one expected.
    """
    count = len(means)
    for name, values, shape in (
        ("means", means, (count, 3)),
        ("cholesky", cholesky, (count, 6)),
        ("amplitudes", amplitudes, (count,)),
    ):
        if tuple(values.shape) != shape:
            message = f"{name} has shape {tuple(values.shape)}, expected {shape}"
            raise SettingsError(message)
