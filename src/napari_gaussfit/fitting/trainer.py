"""The loop body of a fit: when steps are how large, and what must be kept to go on from one.

Knows neither threads nor files nor who watches. Inside, all is in working units, see `scaling`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.reference import cholesky_parameters
from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.errors import FitError, OutOfMemoryError, SettingsError
from napari_gaussfit.fitting.evidence import NoiseLeft
from napari_gaussfit.fitting.memory import RELOCATION_VOXELS, predict_device_memory
from napari_gaussfit.fitting.objective import CUTOFFS, Objective
from napari_gaussfit.fitting.optimisers import DEFAULT_OPTIMISER, OPTIMISERS
from napari_gaussfit.fitting.seeding import grows, seed_channels
from napari_gaussfit.fitting.state import (
    LARGEST_BACKGROUND,
    STATE_TENSORS,
    STATE_VERSION,
    OptimiserState,
    pack_words,
    read_version_2,
    read_words,
)
from napari_gaussfit.fitting.steps import CpuSteps, Slab
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.settings import MOST_UNASKED, Device, FitSettings
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.fitting.optimisers import Optimiser
    from napari_gaussfit.fitting.starting import Follows
    from napari_gaussfit.fitting.steps import StepResult, Steps
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.views import Views

RATE, RATE_AT_END = 0.05, 0.006
"""Step sizes at the beginning and end of a fit, in parts of a Gaussian's brightness and widths."""

REFINING_RATE_AT_END = 0.002
"""Step size at the end of a refinement, which begins with that at the end of a whole fit."""

REFINING_WARM_UP = 20
"""Steps over which the step size of a refinement grows: Adam's first steps know a gradient's sign
alone, and at full size undo part of a fit."""

RELOCATE_EVERY, RELOCATED_FRACTION, RELOCATE_UNTIL = 25, 0.05, 0.85
"""Steps from one relocation to the next, the part of the Gaussians that one may move, and the part
of the fit after which there are none."""

RECOUNTS, FEWEST_STEPS, MOST_STEPS = 28, 10, 25
"""How many times Gaussians are added and taken away, and the steps between two times at least,
without which new ones are judged before they have found their shape, and at most."""

GROW_UNTIL, RECOUNT_UNTIL = 0.7, 0.9
"""Parts of the fit after which none are added, and none taken away."""

WIDEN_EVERY, NARROWEST = 10, 0.4
"""Steps from one widening to the next, and the least sigma in voxels, in any direction: a narrower
Gaussian hides between samples. With means confined to the voxels' centres 0.4 is wide enough:
consistency stays 10 dB above the fit's own error, and 0.5 costs the beads 0.1 dB."""

HISTORY_EVERY = 10
"""Steps from one record of a fit to the next."""


@cache
def compile_kernels(device: Device) -> None:
    """Compile every kernel of a fit on a device, or load it, by steps on a few voxels."""
    ramp = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    enough = round(1 / RELOCATED_FRACTION)  # for one to be relocated
    settings = FitSettings(gaussians=enough, exactly=True, views=2, held_out=1, device=device)
    trainer = Trainer([Stack.from_array(ramp)], settings)
    for trainer.iteration in (0, 1, HISTORY_EVERY - 1, RELOCATE_EVERY - 1):
        trainer.step(0.0)
    trainer.held_out_psnr()
    NoiseLeft.of(ramp, ramp)  # on the CPU, whatever the device


class Trainer:
    """Takes the steps of a fit.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels of one recording, of one shape and spacing: at least one.
    settings : FitSettings
        Settings of the fit.
    start : sequence of GaussianField
        Field of each channel to go on from, of the same means and covariances; seeds are drawn
        where there is none.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stacks' unit) that seeds must begin at.
    psf : Psf, optional
        Gaussians are never narrower, in no direction.
    follows : Follows, optional
        What is known of the time before, with whose Gaussians it begins: few come and go.
    optimiser : str
        Name of an optimiser in `OPTIMISERS`.

    Attributes
    ----------
    settings : FitSettings
        Settings of the fit.
    objective : Objective
        The loss that steps minimise.
    steps : Steps
        Steps on the device that the fit runs on.
    iteration : int
        Number of steps taken.
    kept : int
        Number of Gaussians, the first ones, that are never relocated: those at given points.
    grows : bool
        Whether evidence decides how many Gaussians there are.
    most : int
        Largest number of Gaussians, where it does.
    waiting : int
        Number of places that lack a Gaussian for want of room.
    notes : tuple of str
        Why the device is the CPU, if that was not asked for.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        settings: FitSettings,
        *,
        start: Sequence[GaussianField] = (),
        points: NDArray[np.float64] | None = None,
        psf: Psf | None = None,
        follows: Follows | None = None,
        optimiser: str = DEFAULT_OPTIMISER,
    ) -> None:
        depth, rows, columns = checked_channels(stacks)[0].shape
        note = _kernels.fallback(settings.device)
        self.settings, self.notes = settings, () if note is None else (note,)
        workings = [WorkingStack.of(stack) for stack in stacks]
        self.rng = np.random.default_rng(settings.seed)
        self.kept = 0 if points is None else len(points)
        if start:
            fields = [w.scaled(field) for w, field in zip(workings, start, strict=True)]
        else:
            fields = seed_channels(workings, settings, self.rng, points=points)
        noises = () if follows is None else follows.noises
        self.objective = Objective(workings, self.settings, self.rng, noises)
        self.iteration = 0
        self.grows = grows(settings, points)
        self.most = settings.gaussians or MOST_UNASKED
        self.waiting = 0
        fewest = FEWEST_STEPS if follows is None else MOST_STEPS
        self._recount_every = min(MOST_STEPS, max(fewest, settings.steps // RECOUNTS))
        self._follows, self._quiet_until = follows is not None, 0
        planes = min(depth, max(1, RELOCATION_VOXELS // (rows * columns)))
        self._slab = Slab(planes, round(RELOCATED_FRACTION * planes / depth * len(fields[0])))
        state = OptimiserState.begin(fields, math.sqrt(math.prod(CUTOFFS)))
        self.steps = self._make_steps(state, OPTIMISERS[optimiser])
        self._floor = None if psf is None else _floor(psf, workings[0], self.settings)
        if self.settings.shape == "point" and self._floor is None:
            raise SettingsError(
                "shape='point': expected a point spread function beside it, which says how wide "
                "points are (--psf, or fit(stack, psf=...))"
            )
        if psf is not None and not (self.settings.full_covariance or psf.is_aligned):
            self.notes = (
                *self.notes,
                "axes are held along z, y and x: of the PSF, its widths along these count alone",
            )
        self._keep_above_psf()

    def _keep_above_psf(self) -> None:
        """Widen what is narrower than light allows: what a Gaussian has beyond is its own.

        Where all are points, they are as wide as light makes them, and no wider.
        """
        if self._floor is None:
            return
        if self.settings.shape == "point":
            cholesky = self.steps.state.cholesky
            cholesky[:] = cholesky_parameters(self._floor[None]).to(cholesky.device)
        else:
            self.steps.keep_above(self._floor)

    def _make_steps(self, state: OptimiserState, optimiser: Optimiser) -> Steps:
        """Return what takes steps on the device that the settings ask for.

        Where a GPU has no room, and was not asked for by name, the fit stays on the CPU.
        """
        device = _kernels.device_named(self.settings.device)
        if _kernels.backend_name(device) == "numba-cuda":
            try:
                return self._cuda_steps(state, optimiser, device)
            except OutOfMemoryError as error:
                if self.settings.device != "auto":
                    raise
                self.notes = (f"device auto is the CPU here: {error}",)
        return CpuSteps(self.objective, state, optimiser, self._slab)

    def _cuda_steps(
        self, state: OptimiserState, optimiser: Optimiser, device: torch.device
    ) -> Steps:
        from napari_gaussfit._kernels.cuda import free_memory, no_room
        from napari_gaussfit.fitting.cuda_steps import CudaSteps

        if device.type == "cuda":
            voxels, channels = self.objective.stack.voxels.size, len(self.objective.channels)
            needed = predict_device_memory(voxels, self.settings, channels)
            if needed > free_memory(device)[0]:
                raise no_room(device, needed)
        return CudaSteps(self.objective, state.to(device), optimiser, self._slab)

    @property
    def field(self) -> GaussianField:
        """A copy of the first channel's field, in raw intensity, on the CPU."""
        return self._restored(0)

    @property
    def fields(self) -> tuple[GaussianField, ...]:
        """Copies of the field of each channel, in raw intensity, on the CPU."""
        return tuple(self._restored(n) for n in range(len(self.objective.channels)))

    def _restored(self, n: int) -> GaussianField:
        field = self.objective.channels[n].working.restored(self.scaled_field(n).to("cpu"))
        return replace(field, full_covariance=self.settings.full_covariance)

    def scaled_field(self, n: int = 0) -> GaussianField:
        """Return the field of channel n in working units, which shares the steps' memory."""
        return self.steps.state.field(n)

    def origins(self) -> NDArray[np.int64]:
        """Return which of the Gaussians at the beginning each is [K]; -1 of others since."""
        state = self.steps.state
        if self.grows:
            return state.origins.numpy().copy()
        # Whoever was relocated has begun to count its steps anew.
        return np.where(state.age.cpu().numpy() >= self.iteration, state.origins.numpy(), -1)

    def channels(self) -> Iterator[tuple[WorkingStack, Views, GaussianField]]:
        """Yield each channel's stack, views and field, in working units."""
        for n, channel in enumerate(self.objective.channels):
            yield channel.working, channel.views, self.scaled_field(n)

    @in_one_torch_thread()
    def step(self, progress: float) -> StepResult:
        """Take one step.

        Parameters
        ----------
        progress : float
            How far the fit has come, from 0 to 1: sets the step size.

        Returns
        -------
        StepResult
            What the step found; on a GPU only where it is recorded, else what the last recorded
            step found.
        """
        self.steps.take(self.objective.draw(self.iteration), self._rate(progress))
        last = progress + 1 / self.settings.steps >= 1
        if self.iteration % WIDEN_EVERY == 0 or last:
            self.steps.widen(NARROWEST)
        self._keep_above_psf()
        self.iteration += 1
        found = self.steps.found(due=last or self.iteration % HISTORY_EVERY == 0)
        if self._recounts(progress):
            room = self.most if progress < GROW_UNTIL else 0
            before = self.steps.state.means
            waiting = self.steps.recount(self._draw_slab(), self.kept, room, self._floor)
            self.waiting = waiting if room else self.waiting
            if self._follows and self.steps.state.means is before:
                # None came and none went: the next look is left out.
                self._quiet_until = self.iteration + self._recount_every + 1
            self._keep_above_psf()
        elif self._relocates(progress):
            self.steps.relocate(self._draw_slab(), self.kept)
            self._keep_above_psf()
        return found

    def _rate(self, progress: float) -> float:
        """Return the optimiser's step size, which falls evenly by the logarithm."""
        if not self.settings.refine:
            return _between(RATE, RATE_AT_END, progress)
        warm = min(1.0, (self.iteration + 1) / REFINING_WARM_UP)
        return warm * _between(RATE_AT_END, REFINING_RATE_AT_END, progress)

    def _relocates(self, progress: float) -> bool:
        """Return whether Gaussians are relocated after this step."""
        return (
            self.objective.has_voxels
            and not (self.settings.refine or self.grows)
            and self.iteration % RELOCATE_EVERY == 0
            and progress < RELOCATE_UNTIL
        )

    def _recounts(self, progress: float) -> bool:
        """Return whether Gaussians are added and taken away after this step."""
        due = self.iteration % self._recount_every == 0 and progress < RECOUNT_UNTIL
        due = due and self.iteration >= self._quiet_until
        return due and self.grows and not self.settings.refine

    @property
    def count_reason(self) -> str:
        """Why the fit has as many Gaussians as it has, in words."""
        if self.grows:
            # Some may have been taken away since, when none were added any more.
            full = self.waiting and len(self.steps.state.means) + self.waiting > self.most
            return "the cap: the stack would carry more" if full else "more would describe noise"
        if self.settings.refine:
            return "as there were"
        if self.kept and self.settings.gaussians is None:
            return "one at each point"
        if self.settings.gaussians is not None:
            return "as asked for"
        return "as the size of the signal suggests"

    def _draw_slab(self) -> int:
        """Return the first of the planes that a relocation looks at: all, but of a large stack."""
        beyond = self.objective.stack.shape[0] - self._slab.planes
        return int(self.rng.integers(beyond + 1)) if beyond else 0

    @in_one_torch_thread()
    def held_out_psnr(self) -> float:
        """Return the mean PSNR of the held-out views, after looking at the next of them."""
        n = self.objective.next_held_out(self.iteration)
        return self.objective.held_out_psnr(n, self.steps.look(n))

    def view_psnr(self, fields: Sequence[GaussianField], n: int) -> float:
        """Return the PSNR of held-out view n, alike whenever it is asked for.

        Parameters
        ----------
        fields : sequence of GaussianField
            A field for each channel, in raw intensity.
        n : int
            Index of the held-out view.

        Returns
        -------
        float
            In dB; the mean over the channels.
        """
        device = self.steps.state.means.device
        return fmean(
            channel.held_out_psnr(channel.working.scaled(field).to(device), n, CUTOFFS[0])
            for channel, field in zip(self.objective.channels, fields, strict=True)
        )

    @in_one_torch_thread()
    def drift(self, steps: int, cut_short: Callable[[], bool]) -> Tensor:
        """Return by how much [K] more steps would change widths; all stays as it is.

        The steps are those of a refinement, which forgets what slowed earlier ones down.

        Parameters
        ----------
        steps : int
            Number of steps to try.
        cut_short : callable
            Asked before each step; True ends it.

        Returns
        -------
        Tensor, shape [K]
            Largest change of each Gaussian's width along any direction, by the logarithm.
        """
        before = self.field
        state = {name: tensor.clone() for name, tensor in self.state().items()}
        settings, self.settings = self.settings, replace(self.settings, refine=True)
        for moments in self.steps.state.moments:
            moments.zero_()
        self.iteration = 0
        for _ in range(steps):
            if cut_short():
                break
            self.step(0.0)
        after, self.settings = self.field, settings
        self.restore(state)
        return _width_changes(before, after)

    @in_one_torch_thread()
    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs to go on as if nothing had been.

        The Gaussians too: through the original's units and back they would not be the same bits.
        """
        state = self.steps.state
        words = {
            "version": STATE_VERSION,
            "iteration": self.iteration,
            "kept": self.kept,
            "grows": self.grows,
            "waiting": self.waiting,
            "rng": self.rng.bit_generator.state,
            "background": state.background.tolist(),
            "cutoff": state.cutoff.tolist(),
            **self.objective.state(),
        }
        tensors = {name: getattr(state, name).cpu() for name in STATE_TENSORS}
        return tensors | self._packed_depths() | {"words": pack_words(words)}

    def _packed_depths(self) -> dict[str, Tensor]:
        """Return depths as two tensors: the views' numbers, and those of rays in the box."""
        seen = sorted(self.objective.seen)
        if not self.objective.has_voxels or not seen:
            return {}
        depths = [self.steps.depths(n).cpu()[:, self._hit(n)] for n in seen]
        return {"depth_views": torch.tensor(seen), "depths": torch.cat(depths, 1).reshape(-1)}

    def _hit(self, n: int) -> Tensor:
        """Return which rays of training view n cross the box."""
        views = self.objective.views
        return views.view(views.training[n]).hit

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of an earlier trainer of the same stacks and settings.

        Parameters
        ----------
        state : dict of Tensor
            What `Trainer.state` gave, of this version or of version 2.

        Raises
        ------
        FitError
            If it holds anything else: it may come from a file.
        """
        try:
            self._take_up(read_version_2(state, len(self.objective.channels)))
        except (NameError, ImportError):
            raise
        except Exception as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            message = (
                f"the state of the saved fit cannot be gone on from ({type(error).__name__}: "
                f"{reason}); fit anew, without resuming"
            )
            raise FitError(message) from error

    def _take_up(self, saved: dict[str, Tensor]) -> None:
        words, state = read_words(saved), self.steps.state
        if words.get("version") != STATE_VERSION:
            message = f"it has number {words.get('version', 1)}, not {STATE_VERSION}"
            raise ValueError(f"it was begun by another version: {message}")
        state.copy_from(saved)
        iteration, kept, count = words["iteration"], words["kept"], len(state.means)
        if not isinstance(iteration, int) or iteration < 0:
            raise ValueError("iteration is no whole number from 0")
        if not isinstance(kept, int) or not 0 <= kept <= count:
            raise ValueError(f"kept is no number of {count} Gaussians")
        waiting = words.get("waiting", 0)
        if not isinstance(waiting, int) or waiting < 0:
            raise ValueError("waiting is no whole number from 0")
        self.iteration, self.kept, self.waiting = iteration, kept, waiting
        # What was begun before evidence decided has the number that it was begun with.
        self.grows = words.get("grows") is True
        self.rng.bit_generator.state = words["rng"]
        self.objective.restore(words)
        self._take_up_levels(words["background"], words["cutoff"])
        self._take_up_depths(saved)

    def _take_up_levels(self, backgrounds: list[float], cutoffs: list[float]) -> None:
        state = self.steps.state
        for n, (background, cutoff) in enumerate(
            zip(map(float, backgrounds), map(float, cutoffs), strict=True)
        ):
            sound = abs(background) <= LARGEST_BACKGROUND
            # A device keeps it in float32: a ten-millionth beyond the largest is that.
            if not (sound and 0.999 * CUTOFFS[0] <= cutoff <= 1.001 * CUTOFFS[1]):
                raise ValueError(f"background is {background:g} and cutoff {cutoff:g}")
            state.background[n], state.cutoff[n] = background, cutoff

    def _take_up_depths(self, saved: dict[str, Tensor]) -> None:
        self.objective.seen = set()
        if "depth_views" not in saved:
            return
        known = saved["depths"].reshape(len(self.objective.channels), -1)
        if not bool(known.isfinite().all()):
            raise ValueError("depths are not all finite")
        first = 0
        for n in map(operator.index, saved["depth_views"].tolist()):
            hit = self._hit(n)
            depths, end = torch.zeros(len(known), *hit.shape), first + int(hit.sum())
            depths[:, hit], first = known[:, first:end], end
            self.steps.set_depths(n, depths)
            self.objective.seen.add(n)


def checked_channels(stacks: Sequence[Stack]) -> tuple[Stack, ...]:
    """Return the channels of one recording.

    Raises
    ------
    SettingsError
        If there is none, or they differ in shape, spacing or unit.
    """
    if not stacks:
        raise SettingsError("there is no stack to fit; give one, or several channels of one")
    first = stacks[0]
    for n, other in enumerate(stacks):
        found, expected = (
            f"{stack.shape} voxels of {stack.spacing} {stack.unit}" for stack in (other, first)
        )
        if found != expected:
            raise SettingsError(
                f"channel {n} has {found}, channel 0 has {expected}; give channels of one recording"
            )
    return tuple(stacks)


def _floor(psf: Psf, working: WorkingStack, settings: FitSettings) -> Tensor:
    """Return the lower Cholesky factor [3, 3] of a point spread function in working units.

    Of Gaussians whose axes are held, only its widths along these.
    """
    covariance = psf.in_unit(working.original.unit)
    if not settings.full_covariance:
        covariance = np.diag(np.diagonal(covariance))
    factor = np.linalg.cholesky(covariance) / working.length
    return torch.from_numpy(factor.astype(np.float32))


def _between(first: float, last: float, progress: float) -> float:
    """Return a value on the way from the first to the last, even by the logarithm."""
    value: float = first * (last / first) ** progress
    return value


def _width_changes(before: GaussianField, after: GaussianField) -> Tensor:
    """Return the largest change [K] of a width along any direction, by the logarithm."""
    old, new = before.factors.double(), after.factors.double()
    # Of L0^-1 S1 L0^-T the eigenvalues are by what squared widths along its axes have changed.
    ratio = torch.linalg.solve_triangular(old, new, upper=False)
    squares = torch.linalg.eigvalsh(ratio @ ratio.transpose(-1, -2))
    changes: Tensor = 0.5 * squares.clamp(min=1e-12).log().abs().amax(dim=-1)
    return changes
