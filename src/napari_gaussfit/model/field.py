"""GaussianField: a sum of anisotropic 3D Gaussians over a background.

Knows no camera, no stack and no optimiser. Loads torch once a tensor is asked for: a field that is
read from a file or a message can be counted, written and measured without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.gaussians import (
    DIAGONAL,
    FWHM_PER_SIGMA,
    Gaussians,
    brightest_as_html,
    counted,
    refuse_other_shapes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["DEFAULT_TOLERANCE", "FWHM_PER_SIGMA", "GaussianField"]

DEFAULT_TOLERANCE = 1e-6
"""A Gaussian is left out where it contributes less than this part of the largest amplitude."""

_TENSORS = ("means", "cholesky", "amplitudes")
_NUMBERS = "_numbers"
"""Where a field keeps the arrays that it was made of, until a tensor is asked for."""


@dataclass(frozen=True, eq=False, repr=False)
class GaussianField:
    """f(x) = background + sum_k a_k exp(-1/2 (x - mu_k)^T Sigma_k^-1 (x - mu_k)).

    Parameters
    ----------
    means : Tensor, shape [K, 3]
        mu, in `unit`, axis order z, y, x.
    cholesky : Tensor, shape [K, 6]
        (a, b, c, d, e, f) with Sigma = L L^T and
        L = [[exp a, 0, 0], [b, exp c, 0], [d, e, exp f]]; in `unit`.
    amplitudes : Tensor, shape [K]
        a, in the stack's raw intensity units.
    background : float
        In raw intensity units.
    unit : str
        Of lengths: "micrometer" or "pixel".
    full_covariance : bool
        False keeps the Gaussians' axes along z, y and x: the entries b, d and e of `cholesky`
        are 0, whatever is given for them, and get no gradient.
    """

    means: Tensor
    cholesky: Tensor
    amplitudes: Tensor
    background: float = 0.0
    unit: str = "micrometer"
    full_covariance: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        refuse_other_shapes(self.means, self.cholesky, self.amplitudes)
        if not self.full_covariance:
            kept = self.cholesky.new_tensor(DIAGONAL)
            object.__setattr__(self, "cholesky", self.cholesky * kept)

    @classmethod
    def from_numpy(cls, gaussians: Gaussians) -> GaussianField:
        """Make a field of arrays, on the CPU.

        Its tensors are copies, made when one is first asked for; torch is not loaded before.

        Parameters
        ----------
        gaussians : Gaussians
            Gaussians as arrays; the field holds them in float32.
        """
        field = object.__new__(cls)
        for name in ("background", "unit", "full_covariance"):
            object.__setattr__(field, name, getattr(gaussians, name))
        object.__setattr__(field, _NUMBERS, gaussians)
        return field

    def __getattr__(self, name: str) -> Any:
        """Make the tensors of a field that was made of arrays, which they replace."""
        own = vars(self)
        numbers = own.get(_NUMBERS)
        if name in _TENSORS and numbers is not None:
            import torch

            for tensor in _TENSORS:
                # Kernels take no other: in float64 all is computed in plain torch.
                array = getattr(numbers, tensor)
                own.setdefault(tensor, torch.tensor(array, dtype=torch.float32))
            # From now on the tensors count, which may be learnt in place.
            own.pop(_NUMBERS, None)
        if name not in own:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)
        return own[name]

    def numpy(self) -> Gaussians:
        """Return the field's numbers as arrays, which may share its memory; without a graph."""
        numbers: Gaussians | None = vars(self).get(_NUMBERS)
        if numbers is not None:
            return numbers
        means, cholesky, amplitudes = (tensor.detach().cpu().numpy() for tensor in self.tensors)
        return Gaussians(
            means, cholesky, amplitudes, self.background, self.unit, self.full_covariance
        )

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
    ) -> GaussianField:
        """Make a field of means [K, 3], covariances [K, 3, 3] and amplitudes [K].

        Without `full_covariance`, only the covariances' diagonals count.

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
            If a covariance is not positive definite; the message gives its index.
        """
        return cls.from_numpy(
            Gaussians.from_covariances(
                means,
                covariances,
                amplitudes,
                background=background,
                unit=unit,
                full_covariance=full_covariance,
            )
        )

    @classmethod
    def from_gaussians(
        cls,
        gaussians: Iterable[tuple[ArrayLike, ArrayLike, float]],
        *,
        background: float = 0.0,
        unit: str = "micrometer",
    ) -> GaussianField:
        """Make a field of a list of Gaussians, each (mean [3], covariance [3, 3], amplitude).

        Parameters
        ----------
        gaussians : iterable of tuple
            Mean [3] in `unit` (z, y, x), covariance [3, 3] in `unit` squared, amplitude in raw
            intensity.
        background : float
            Constant that is added to the Gaussians, in raw intensity.
        unit : str
            Of lengths: "micrometer" or "pixel".

        Raises
        ------
        SettingsError
            If a covariance is not positive definite; the message gives its index.

        Examples
        --------
        >>> import torch
        >>> one = ((0.0, 0.0, 0.0), torch.eye(3), 2.0)
        >>> other = ((0.0, 0.0, 4.0), 4 * torch.eye(3), 1.0)
        >>> field = GaussianField.from_gaussians([one, other])
        >>> field.evaluate(torch.tensor([0.0, 0.0, 0.0]))
        tensor(2.1353)
        """
        parts = list(gaussians)
        means, covariances, amplitudes = zip(*parts, strict=True) if parts else ((), (), ())
        return cls.from_covariances(
            [np.asarray(mean) for mean in means],
            [np.asarray(covariance) for covariance in covariances],
            amplitudes,
            background=background,
            unit=unit,
        )

    def __repr__(self) -> str:
        """Say how many Gaussians there are, without making their tensors."""
        background, unit = f"{self.background:g}", self.unit
        return f"GaussianField({counted(len(self))}, background={background}, unit={unit!r})"

    def __len__(self) -> int:
        """Return the number of Gaussians."""
        numbers: Gaussians | None = vars(self).get(_NUMBERS)
        return len(self.means if numbers is None else numbers)

    def __getitem__(self, which: Any) -> GaussianField:
        """Return some of the Gaussians: a mask [K], indices, a slice or a number chooses."""
        import torch

        if isinstance(which, (int, np.integer)):
            which = [range(len(self))[which]]
        chosen = which if isinstance(which, (slice, torch.Tensor)) else np.asarray(which)
        if isinstance(chosen, np.ndarray):
            # An empty list has numbers that are not whole.
            chosen = torch.as_tensor(chosen if chosen.size else chosen.astype(np.int64))
        if isinstance(chosen, torch.Tensor):
            if chosen.dtype == torch.bool and len(chosen) != len(self):
                message = f"the mask has {len(chosen):,} entries, the field {len(self):,} Gaussians"
                raise SettingsError(message)
            chosen = chosen.to(self.device)
        return self.select(chosen)

    def __add__(self, other: GaussianField) -> GaussianField:
        """Return the sum of two fields: the Gaussians of both, over the sum of the backgrounds."""
        if not isinstance(other, GaussianField):
            return NotImplemented
        if other.unit != self.unit:
            message = f"a field in {self.unit}s and one in {other.unit}s have no sum; give one unit"
            raise SettingsError(message)
        import torch

        parts = zip(self.tensors, other.tensors, strict=True)
        means, cholesky, amplitudes = (torch.cat(pair) for pair in parts)
        background = self.background + other.background
        full = self.full_covariance or other.full_covariance
        return GaussianField(means, cholesky, amplitudes, background, self.unit, full)

    def _repr_html_(self) -> str:
        """Show it in a notebook: how many Gaussians, and the brightest of them in a table."""
        return brightest_as_html(self.numpy())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.means.device

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means [K, 3], Cholesky parameters [K, 6] and amplitudes [K]: what can be learnt."""
        return self.means, self.cholesky, self.amplitudes

    def to(self, target: torch.device | torch.dtype | str) -> GaussianField:
        """Return the field with its tensors on a device, or in another type of number.

        Those that are so already are shared.

        Parameters
        ----------
        target : torch.device, torch.dtype or str
            Such as "cpu", "cuda" or ``torch.float64``, in which all is computed in plain torch:
            slowly, for every Gaussian at every point.

        Returns
        -------
        GaussianField
            With the same values.
        """
        return replace(
            self,
            means=self.means.to(target),
            cholesky=self.cholesky.to(target),
            amplitudes=self.amplitudes.to(target),
        )

    @property
    def factors(self) -> Tensor:
        """L, shape [K, 3, 3], in `unit`."""
        from napari_gaussfit._kernels.reference import factors

        return factors(self.cholesky)

    @property
    def covariances(self) -> Tensor:
        """Sigma = L L^T, shape [K, 3, 3], in `unit` squared, axis order z, y, x."""
        lower = self.factors
        return lower @ lower.transpose(-1, -2)

    def principal(self) -> tuple[Tensor, Tensor]:
        """Return principal sigmas and axes.

        Returns
        -------
        sigmas : Tensor, shape [K, 3]
            Standard deviations along the principal axes, descending, in `unit`.
        axes : Tensor, shape [K, 3, 3]
            ``axes[k, n]`` is the unit vector (z, y, x) of ``sigmas[k, n]``.
        """
        sigmas, axes = self.numpy().principal()
        return self.means.new_tensor(sigmas), self.means.new_tensor(axes)

    def fwhm(self) -> Tensor:
        """Return full widths at half maximum along the principal axes [K, 3], descending."""
        return self.means.new_tensor(self.numpy().fwhm())

    def integrated_intensities(self) -> Tensor:
        """Return a (2 pi)^(3/2) sqrt(det Sigma) [K], raw intensity times `unit` cubed."""
        return self.means.new_tensor(self.numpy().integrated_intensities())

    def evaluate(
        self, points: Tensor | ArrayLike, *, tolerance: float = DEFAULT_TOLERANCE
    ) -> Tensor:
        """Return f at a point [3], a number, or at points [B, 3], [B]; points in `unit`.

        Differentiable by the field's tensors and by the points, also twice and under `torch.func`.
        Contributions below `tolerance` times the largest amplitude may be left out.

        Parameters
        ----------
        points : Tensor or array-like, shape [3] or [B, 3]
            Where, in `unit`, axis order z, y, x; taken in the field's own type of number.
        tolerance : float
            In parts of the largest amplitude.

        Returns
        -------
        Tensor, shape [] or [B]
            In raw intensity.

        Raises
        ------
        SettingsError
            If the points have another shape, or are not finite.
        """
        import torch

        from napari_gaussfit import _kernels

        where = points if isinstance(points, torch.Tensor) else torch.as_tensor(np.asarray(points))
        if where.ndim not in (1, 2) or where.shape[-1] != 3:
            message = f"points has shape {tuple(where.shape)}, expected (3,) or (B, 3)"
            raise SettingsError(message)
        where = where.to(self.means)
        if not _kernels.transformed() and not torch.isfinite(where).all():
            message = "points has a coordinate that is NaN or infinite; leave such points out"
            raise SettingsError(message)
        values = self.background + _kernels.evaluate(
            *self.tensors, where.reshape(-1, 3), cutoff=self.cutoff(tolerance)
        )
        return values.reshape(where.shape[:-1])

    def voxelise(
        self,
        shape: Sequence[int],
        spacing: Sequence[float],
        *,
        origin: Sequence[float] = (0.0, 0.0, 0.0),
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> Tensor:
        """Return f [Z, Y, X] at voxel centres ``origin + (i, j, k) * spacing``, in `unit`.

        Differentiable by the field's tensors.

        Parameters
        ----------
        shape : sequence of int
            Voxels along z, y and x.
        spacing : sequence of float
            (dz, dy, dx) in `unit`.
        origin : sequence of float
            The first voxel's centre (z, y, x) in `unit`.
        tolerance : float
            Contributions below this part of the largest amplitude may be left out.

        Returns
        -------
        Tensor, shape [Z, Y, X]
            In raw intensity.
        """
        import torch

        from napari_gaussfit import _kernels
        from napari_gaussfit._kernels.geometry import Grid

        nz, ny, nx = shape
        # Kernels take float32 alone; of a field in float64, places are not rounded either.
        numbers = np.float64 if self.means.dtype == torch.float64 else np.float32
        grid = Grid(np.asarray(origin, numbers), np.asarray(spacing, numbers), (nz, ny, nx))
        return self.background + _kernels.voxelise(
            *self.tensors, grid, cutoff=self.cutoff(tolerance)
        )

    def voxelise_planes(
        self,
        first: int,
        end: int,
        shape: Sequence[int],
        spacing: Sequence[float],
        *,
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> Tensor:
        """Return planes [first, end) of what `voxelise` returns for the whole shape.

        Parameters
        ----------
        first, end : int
            Along z; the end may lie beyond the last plane.
        shape : sequence of int
            Voxels of the whole along z, y and x.
        spacing : sequence of float
            (dz, dy, dx) in `unit`.
        tolerance : float
            Contributions below this part of the largest amplitude may be left out.

        Returns
        -------
        Tensor, shape [end - first, Y, X]
            In raw intensity.
        """
        depth, rows, columns = shape
        return self.voxelise(
            (min(end, depth) - first, rows, columns),
            spacing,
            origin=(first * spacing[0], 0.0, 0.0),
            tolerance=tolerance,
        )

    def cutoff(self, tolerance: float) -> float:
        """Return the contribution below which a Gaussian is left out, in raw intensity.

        Parameters
        ----------
        tolerance : float
            In parts of the largest amplitude.

        Returns
        -------
        float
            More than 0.
        """
        from napari_gaussfit import _kernels

        smallest = float(np.finfo(np.float32).tiny)
        if _kernels.transformed():  # nothing is left out then
            return smallest
        # NaN and infinities are those of Gaussians that the kernels leave out.
        heights = self.amplitudes.detach().abs().nan_to_num(0.0, 0.0)
        largest = float(heights.max()) if len(self) else 0.0
        return max(tolerance * largest, smallest)

    def select(self, which: Tensor | slice) -> GaussianField:
        """Return the Gaussians that a mask [K], indices or a slice choose.

        Parameters
        ----------
        which : Tensor or slice
            A mask [K], indices, or a slice.

        Returns
        -------
        GaussianField
            With the same background and unit.
        """
        return replace(
            self,
            means=self.means[which],
            cholesky=self.cholesky[which],
            amplitudes=self.amplitudes[which],
        )

    def detached(self) -> GaussianField:
        """Return a copy that shares no memory and no graph with this field."""
        return replace(
            self,
            means=self.means.detach().clone(),
            cholesky=self.cholesky.detach().clone(),
            amplitudes=self.amplitudes.detach().clone(),
        )
