"""FitResult: the one record of a fit, made by `Fit` or read from a file, and `load`.

Heavy libraries are loaded by what needs them: a window without torch may hold a record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as default
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_gaussfit.errors import FitError, SettingsError
from napari_gaussfit.measure.metrics import noise_leaves
from napari_gaussfit.measure.report import Report
from napari_gaussfit.model.gaussians import counted
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.reading import refusing

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.constraints import Constraints
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.measure.shared import Told
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

    Pathlike = str | os.PathLike[str]

__all__ = ["POINTS", "FitResult", "load"]

ROUNDED = 1e-4
"""Of a spacing: files that differ by less say the same of it."""

POINTS = "points"
"""The array of a state that holds the points where the fit began, if there were any."""


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """A fit: its Gaussians, what was fitted, how, how good it is, and what it needs to go on.

    Parameters
    ----------
    fields : tuple of GaussianField
        The Gaussians of each channel, in raw intensity and the stack's unit: the same means and
        covariances, with amplitudes and a background of their own. Loaded fields are float32 on
        the CPU.
    stack : StackFacts
        Name, size and place of the stack that was fitted.
    settings : FitSettings or None
        The settings that the fit ran with; None where its file does not tell.
    history : dict of lists of float
        What was recorded while it ran, by `snapshot.HISTORY_KEYS`.
    reports : tuple of Report
        How good the fit is, a report a channel. Empty before its end, and where its Gaussians were
        edited since.
    state : dict of ndarray
        What the fit needs to go on: moments of the optimiser, random state. May be empty.
    notes : tuple of str
        What was assumed as a file was read. Not saved.
    measurement : Measurement or None
        The Gaussians refined one by one and how well each is known, where they were measured. All
        tables are of these (`measured_fields`); a fit goes on from, and is rendered of, `fields`.
    psf : Psf or None
        The point spread function that was fitted with.
    originals : tuple of Stack
        The stacks that were fitted, where `fit` has just done it. Not saved.

    Raises
    ------
    SettingsError
        If there is no channel, the Gaussians are in another unit than the stack, those of two
        channels differ in more than brightness, or others were measured.
    """

    fields: tuple[GaussianField, ...]
    stack: StackFacts
    settings: FitSettings | None = None
    history: dict[str, list[float]] = default(default_factory=dict)
    reports: tuple[Report, ...] = ()
    state: dict[str, NDArray[Any]] = default(default_factory=dict)
    notes: tuple[str, ...] = ()
    measurement: Measurement | None = None
    psf: Psf | None = None
    originals: tuple[Stack, ...] = default(default=(), repr=False)

    def __post_init__(self) -> None:
        """Refuse Gaussians of another unit than the stack's, and channels that differ in shape."""
        if not self.fields:
            raise SettingsError("fields is empty; expected the Gaussians of a channel or more")
        if self.field.unit != self.stack.unit:
            raise SettingsError(
                f"unit={self.stack.unit!r} of the stack is not the field's, {self.field.unit!r}; "
                "give both in one unit"
            )
        for n, other in enumerate(self.fields):
            if other is not self.field and not _same_shapes(self.field, other):
                raise SettingsError(
                    f"channel {n} has other Gaussians than channel 0; expected the same means and "
                    "covariances, with amplitudes of its own"
                )
        found = self.measurement
        if found is not None:
            own, others = (
                (len(of[0]), len(of), of[0].unit) for of in (self.fields, found.gaussians)
            )
            if own != others:
                raise SettingsError(
                    f"measured were {others[0]:,} Gaussians of {others[1]} channels in "
                    f"{others[2]}s, the fit has {own[0]:,} of {own[1]} in {own[2]}s; measure it "
                    "again"
                )

    def __repr__(self) -> str:
        """Say in a line what was fitted, by how much, and how well."""
        channels = f" in {len(self.fields)} channels" if len(self.fields) > 1 else ""
        quality = (
            f"held-out projections {self.report.heldout_mip_psnr:.2f} dB"
            if self.reports
            else "no report"
        )
        return (
            f"FitResult({self.stack.name!r}: {counted(len(self.field))}{channels}, "
            f"{self.stack.unit}s, {quality})"
        )

    def _repr_html_(self) -> str:
        """Show it in a notebook: the fit's MIP along z, how good it is in words, its Gaussians."""
        from napari_gaussfit.model.gaussians import brightest_as_html
        from napari_gaussfit.model.projection import voxel_mip
        from napari_gaussfit.stacks.html import picture, shown_together, table

        facts = self.stack
        mip = voxel_mip(self.field.detached(), facts.shape, facts.spacing, 0).numpy()
        pictures = [picture(mip, facts.spacing[1:], f"fit of {facts.name}, MIP along z")]
        if self.originals:
            title = f"{facts.name}, MIP along z"
            pictures.insert(0, picture(self.originals[0].voxels.max(0), facts.spacing[1:], title))
        rows = [("fit", repr(self)), *(("quality", line) for line in self._quality())]
        below = brightest_as_html(self.field.numpy())
        return f"<div>{shown_together(*pictures, table(rows))}{below}</div>"

    def _quality(self) -> list[str]:
        """Return how good the fit is, in words."""
        if not self.reports:
            return ["no report: recorded before its end, or its Gaussians were edited since"]
        report = self.report
        lines = [f"voxels {report.voxel_psnr:.1f} dB{noise_leaves(report.noise_psnr, 1)}"]
        lines += [f"noise: {report.noise}"] if report.noise else []
        state = "converged" if report.converged else "not converged"
        return [*lines, f"{state}: {report.convergence}" if report.convergence else state]

    @property
    def field(self) -> GaussianField:
        """The Gaussians of the first channel."""
        return self.fields[0]

    @property
    def measured_fields(self) -> tuple[GaussianField, ...]:
        """The Gaussians of each channel as they were measured; as fitted where they were not."""
        return self.fields if self.measurement is None else self.measurement.fields

    @property
    def report(self) -> Report:
        """How good the fit is, in the first channel.

        Raises
        ------
        FitError
            If there is no report.
        """
        if not self.reports:
            raise FitError(
                f"the fit of {self.stack.name!r} has no report: it was recorded before its end, or "
                "its Gaussians were edited since"
            )
        return self.reports[0]

    def save(self, path: Pathlike) -> None:
        """Write the fit as a file that `load` reads again, to the bit.

        Parameters
        ----------
        path : path-like
            The file to write or to replace, by convention named ``*.safetensors``.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        from napari_gaussfit.formats.native import save_fit

        save_fit(path, **self.contents())

    @classmethod
    def load(
        cls, path: Pathlike, stack: Stack | StackFacts | None = None, **options: Any
    ) -> FitResult:
        """Read a fit from any file that Gaussians can be read from; `load` is the same.

        Parameters
        ----------
        path : path-like
            The file, or the folder that the command line has left.
        stack : Stack or StackFacts, optional
            The stack that was fitted, for files that do not tell theirs.
        **options
            Of checkpoints, see `load`.

        Returns
        -------
        FitResult
            What the file tells of the fit.
        """
        from napari_gaussfit.formats.registry import read_fit

        contents = read_fit(path, stack, **options)
        with refusing(Path(path), "a fit"):
            return cls.from_contents(contents)

    def export(self, path: Pathlike, *, residual_of: Stack | Sequence[Stack] | None = None) -> None:
        """Write the fit in the format that the name's suffix asks for.

        Parameters
        ----------
        path : path-like
            The file to write or to replace: ``.safetensors`` (the fit itself), ``.csv`` (the table
            of `to_dataframe`), ``.ply`` (3D Gaussian splatting), ``.ome.tif`` or ``.ome.zarr`` (its
            voxels). Tables are of the Gaussians as they were measured, where they were; pictures
            are of the fit.
        residual_of : Stack or sequence of Stack, optional
            The stack that was fitted, or its channels: writes the stack minus the fit as voxels.

        Raises
        ------
        OutputError
            If there is no such format, or it cannot be written.
        SettingsError
            If the residual is asked of another stack than was fitted.
        """
        from napari_gaussfit.formats.registry import write_fit, write_volume

        if residual_of is None:
            write_fit(path, **self.contents())
        else:
            write_volume(path, self.residual(residual_of), self.stack)

    def to_dataframe(self) -> pd.DataFrame:
        """Return the table of the Gaussians, a row each.

        Returns
        -------
        DataFrame
            The columns of `measure.table.measurements`, of the Gaussians as they were measured,
            where they were; ``channel`` and ``time`` too where the stack's file has several.
        """
        from napari_gaussfit.measure.table import measurements

        fields, spacing = self.measured_fields, self.stack.spacing
        table = measurements(fields, spacing, self.measurement, self.psf)
        return table.assign(**self.stack.place)

    def measured(
        self,
        stack: Stack | Sequence[Stack] | None = None,
        *,
        noise: Noise | None = None,
        constraints: Constraints | None = None,
        told: Told | None = None,
    ) -> FitResult:
        """Return the fit with its Gaussians refined one by one, and error bars in its table.

        Parameters
        ----------
        stack : Stack or sequence of Stack, optional
            The stack that was fitted, or its channels; not needed where `fit` has just done it.
        noise : Noise, optional
            See `measure.measuring.measure`; if None, that of the settings' detector, or the
            stack's.
        constraints : Constraints, optional
            What is known of the Gaussians; if None, that they are blurred by the fit's point spread
            function, where it has one.
        told : callable, optional
            Where widths are shared, hears how many Gaussians are steady, of how many.

        Returns
        -------
        FitResult
            Without report and state, which are of the Gaussians as the fit left them.

        Raises
        ------
        SettingsError
            If it is another stack.
        """
        from napari_gaussfit.measure.constraints import Constraints
        from napari_gaussfit.measure.measuring import measure
        from napari_gaussfit.measure.noise import given_noise

        stacks = self._fitted(stack)
        if noise is None and self.settings is not None:
            noise = given_noise(self.settings, stacks[0].voxels)
        if constraints is None and self.psf is not None:
            shape = "any" if self.settings is None else self.settings.shape
            constraints = Constraints(psf=self.psf, shape=shape)
        found = measure(self, stacks, noise=noise, constraints=constraints, told=told)
        return self.refined_by(found)

    def refined_by(self, found: Measurement) -> FitResult:
        """Return the fit with Gaussians that were measured in place of its own.

        Parameters
        ----------
        found : Measurement
            Of this fit's Gaussians.

        Returns
        -------
        FitResult
            Without report and state, which are of the Gaussians as the fit left them.
        """
        psf = found.psf or self.psf
        return replace(self, fields=found.fields, reports=(), state={}, measurement=found, psf=psf)

    def deconvolved(self, spacing: Sequence[float] | None = None) -> FitResult:
        """Return the fit without the blur of its point spread function, to render or to save.

        Widths are objects' own, and none is narrower than its error says: that of a measured fit,
        else what the noise of the report lets be known of a Gaussian that is alone. Nor than half a
        voxel, so that voxels show it. All are as bright in all as before.

        Parameters
        ----------
        spacing : sequence of float, optional
            (dz, dy, dx) in the fit's unit of the voxels and views to be made, finer or coarser than
            the stack's; the stack's own if None. The first voxel stays where it is.

        Returns
        -------
        FitResult
            Of the same box, without a point spread function.

        Raises
        ------
        SettingsError
            If the fit has none, or the spacing is no spacing.
        """
        from napari_gaussfit.measure.deblurred import deblurred
        from napari_gaussfit.model.field import GaussianField

        if self.psf is None:
            raise SettingsError(
                f"the fit of {self.stack.name!r} knows no point spread function; fit with one "
                "(--psf, or fit(stack, psf=...))"
            )
        noise = self.reports[0].detector if self.reports else None
        facts = self.stack if spacing is None else self.stack.sampled(spacing)
        sharp = deblurred(
            [field.numpy() for field in self.measured_fields],
            self.psf,
            facts.spacing,
            measurement=self.measurement,
            noise=noise,
        )
        return FitResult(
            tuple(GaussianField.from_numpy(one) for one in sharp),
            facts,
            notes=(*self.notes, f"without the blur of {self.psf.words}"),
        )

    def voxelise(self) -> NDArray[np.float32]:
        """Return the fit's value at each voxel of the stack.

        Returns
        -------
        ndarray, shape [Z, Y, X], or of several channels [C, Z, Y, X]
            In raw intensity.
        """
        from napari_gaussfit.formats.registry import rendered

        return rendered(self.fields, self.stack)

    def residual(self, stack: Stack | Sequence[Stack] | None = None) -> NDArray[np.float32]:
        """Return the stack minus the fit.

        Parameters
        ----------
        stack : Stack or sequence of Stack, optional
            The stack that was fitted, or its channels; not needed where `fit` has just done it.

        Returns
        -------
        ndarray, shape [Z, Y, X], or of several channels [C, Z, Y, X]
            In raw intensity.

        Raises
        ------
        SettingsError
            If the stack has other channels, shape or spacing than the one that was fitted, or is
            not known.
        """
        stacks = self._fitted(stack)
        voxels = [np.asarray(channel.voxels, np.float32) for channel in stacks]
        residual: NDArray[np.float32] = np.stack(voxels) if len(stacks) > 1 else voxels[0]
        return residual - self.voxelise()

    def _fitted(self, stack: Stack | Sequence[Stack] | None) -> tuple[Stack, ...]:
        """Return the stacks that are given, or those that were fitted."""
        if stack is not None:
            from napari_gaussfit.stacks.stack import Stack

            given = tuple(stack) if isinstance(stack, (list, tuple)) else (stack,)
            if not all(isinstance(one, Stack) for one in given):
                raise SettingsError(
                    f"stack is a {type(given[0]).__name__}; expected the Stack that was fitted, as "
                    "Stack.open and Stack.from_array make it"
                )
            self._refuse_another(given)
            return cast("tuple[Stack, ...]", given)
        if not self.originals:
            raise SettingsError(
                f"the record of the fit of {self.stack.name!r} does not hold its stack; give it, "
                "as in result.residual(stack)"
            )
        return self.originals

    def _refuse_another(self, stacks: Sequence[Stack]) -> None:
        """Refuse a stack of other channels, shape, spacing or unit than the one that was fitted."""
        facts, fitted = stacks[0].facts, self.stack
        same = (len(stacks), facts.shape, facts.unit) == (
            len(self.fields),
            fitted.shape,
            fitted.unit,
        )
        # Files round what they say of spacing, each in its way.
        if not same or not np.allclose(facts.spacing, fitted.spacing, rtol=ROUNDED, atol=0):
            found, expected = (
                f"{count} channel(s) of shape {of.shape} and spacing {of.spacing} {of.unit}"
                for count, of in ((len(stacks), facts), (len(self.fields), fitted))
            )
            raise SettingsError(
                f"stack has {found}, the fit is of {expected}; give that stack (--stack, --channel)"
            )

    def render(
        self,
        camera: Camera | None = None,
        *,
        azimuth: float | None = None,
        elevation: float | None = None,
        channel: int = 0,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Return a projection of the fit.

        Parameters
        ----------
        camera : Camera, optional
            The view to render; along z, in the stack's own pixels, if there are no angles either.
        azimuth, elevation : float, optional
            Angles of an orthographic view of the whole stack in degrees, in place of a camera; see
            `camera.orbit_view`. 0 where only one is given.
        channel : int
            The channel to render, from 0.
        **options
            ``mode`` ("mip", "soft-mip" or "sum"), ``temperature``, ``tolerance``; see
            `model.projection.render`.

        Returns
        -------
        ndarray, shape [H, W]
            In raw intensity; a sum in raw intensity times the stack's unit.

        Raises
        ------
        SettingsError
            If both a camera and angles are given, or an option is none.
        """
        from napari_gaussfit.model.camera import axis_view, orbit_view
        from napari_gaussfit.model.projection import render

        angles = azimuth is not None or elevation is not None
        if camera is not None and angles:
            raise SettingsError("camera and azimuth, elevation are two ways to say it; choose one")
        if camera is None and angles:
            finest = min(self.stack.spacing)
            camera = orbit_view(self.stack.box, azimuth or 0.0, elevation or 0.0, finest)
        elif camera is None:
            camera = axis_view(self.stack.shape, self.stack.spacing, 0)
        if channel not in range(len(self.fields)):
            raise SettingsError(
                f"channel={channel!r}: the fit has {len(self.fields)}; choose a number from 0"
            )
        image = render(self.fields[channel], camera, self.stack.box, **options)
        pixels: NDArray[np.float32] = image.detach().cpu().numpy()
        return pixels

    def contents(self) -> dict[str, Any]:
        """Return what a file holds of the fit: the parameters of `native.save_fit`."""
        return {
            "fields": self.fields,
            "stack": self.stack,
            "settings": {} if self.settings is None else self.settings.to_dict(),
            "history": self.history,
            "report": self._reports_as_json(),
            "state": self.state,
            "psf": None if self.psf is None else self.psf.to_dict(),
            "measurement": self.measurement,
        }

    def _reports_as_json(self) -> dict[str, Any] | None:
        """Return the first channel's report, with those of the others beside."""
        if not self.reports:
            return None
        first, *others = (report.to_dict() for report in self.reports)
        return first | ({"other_channels": others} if others else {})

    @classmethod
    def from_contents(cls, contents: Mapping[str, Any]) -> FitResult:
        """Return the fit of which a file holds these contents.

        Parameters
        ----------
        contents : mapping
            What a reader of `formats.registry` returns.

        Returns
        -------
        FitResult
            With a note where its settings are not understood.

        Raises
        ------
        SettingsError
            If its report is none, or its parts do not belong together.
        """
        settings, notes = _settings_from(contents.get("settings") or {})
        report = contents.get("report")
        several = [] if report is None else [report, *report.get("other_channels", ())]
        return cls(
            tuple(contents["fields"]),
            contents["stack"],
            settings,
            contents.get("history", {}),
            tuple(Report.from_dict(values) for values in several),
            contents.get("state", {}),
            (*contents.get("notes", ()), *notes),
            contents.get("measurement"),
            psf=_psf_from(contents.get("psf")),
        )


def load(path: Pathlike, stack: Stack | StackFacts | None = None, **options: Any) -> FitResult:
    """Read a fit from any file that Gaussians can be read from.

    Parameters
    ----------
    path : path-like
        A fit (``.safetensors``), or the folder that the command line has left; Gaussians of 3D
        Gaussian splatting (``.ply``), a table (``.csv``), or a checkpoint of the research notebook
        (``.pt``, ``.pth``).
    stack : Stack or StackFacts, optional
        The stack that was fitted. Tables and checkpoints do not tell theirs and need it;
        `StackFacts.of_size` stands for one that is not at hand.
    **options
        Of checkpoints: ``box``, ``value_range``, ``channel``; see
        `formats.checkpoint.read_checkpoint`. Of fits by tiles: ``region``, the first voxel
        (z, y, x) of a part of the stack and the one behind its last; all of it by default.

    Returns
    -------
    FitResult
        What the file tells of the fit; ``notes`` has what was assumed.

    Raises
    ------
    FormatError
        If there is no such file, or it does not hold what its format says.
    """
    return FitResult.load(path, stack, **options)


def _same_shapes(field: GaussianField, other: GaussianField) -> bool:
    first, second = field.numpy(), other.numpy()
    return (
        first.unit == second.unit
        and np.array_equal(first.means, second.means)
        and np.array_equal(first.cholesky, second.cholesky)
    )


def _psf_from(values: dict[str, Any] | None) -> Psf | None:
    """Return the point spread function that a file holds.

    Raises
    ------
    SettingsError
        If it holds another thing in its place.
    """
    if values is None:
        return None
    from napari_gaussfit.measure.psf import Psf

    try:
        return Psf.from_dict(values)
    except ValueError as error:
        raise SettingsError(f"psf: is no point spread function ({error})") from error


def _settings_from(values: dict[str, Any]) -> tuple[FitSettings | None, tuple[str, ...]]:
    """Return the settings that a file holds, and a note where they are not settings here."""
    if not values:
        return None, ()
    try:
        # Before a number could be a cap, it was the number.
        return FitSettings.from_dict({"exactly": True} | values), ()
    except SettingsError as error:
        return None, (f"its settings are left out, since they are not those of a fit: {error}",)
