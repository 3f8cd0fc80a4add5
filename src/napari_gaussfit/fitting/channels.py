"""Several channels fitted as one: Gaussians that share means and covariances, an amplitude each.

Each channel has a trainer of its own, with its own targets, background and amplitudes. The first
one's means and covariances are everybody's, and move by the gradients of all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.objective import Found
from napari_gaussfit.fitting.relocation import relocate
from napari_gaussfit.fitting.seeding import DIMMEST, lit_by, seed_count, seed_field
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.stacks.statistics import estimate_background, smoothed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.fitting.objective import Tensors
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.views import Views
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["ChannelsTrainer", "checked_channels", "seed_channels"]

RELOCATED_SHARE = 0.5
"""Part of a channel's residual at its new place that a relocated Gaussian begins with."""


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
            f"{one.shape} voxels of {one.spacing} {one.unit}" for one in (other, first)
        )
        if found != expected:
            raise SettingsError(
                f"channel {n} has {found}, channel 0 has {expected}; give channels of one recording"
            )
    return tuple(stacks)


def seed_channels(
    stacks: Sequence[Stack],
    settings: FitSettings,
    *,
    points: NDArray[np.float64] | None = None,
) -> tuple[GaussianField, ...]:
    """Return seeds drawn from all channels together, lit by each.

    Each channel counts in parts of its own range above its background.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels.
    settings : FitSettings
        Its number of Gaussians, background and seed.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stacks' unit) that seeds must begin at.

    Returns
    -------
    tuple of GaussianField
        One for each channel, in its raw intensity, with its background.
    """
    all_working = [WorkingStack.of(stack) for stack in stacks]
    signals, backgrounds, variance = [], [], 0.0
    for working in all_working:
        background, noise = estimate_background(working.stack.voxels)
        if settings.background is not None:
            background = working.given_background(settings.background)
        signals.append(working.stack.voxels - np.float32(background))
        backgrounds.append(background)
        variance += noise**2
    together = np.asarray(sum(signals), np.float32)
    spacing = all_working[0].stack.spacing
    seeds = seed_field(
        smoothed(together),
        spacing,
        seed_count(settings.gaussians, points, together),
        np.random.default_rng(settings.seed),
        noise=float(np.sqrt(variance)),
        points=None if points is None else points / all_working[0].length,
        unit=all_working[0].stack.unit,
    )
    fields = []
    for working, signal, background in zip(all_working, signals, backgrounds, strict=True):
        lit = lit_by(seeds, smoothed(signal), spacing)
        fields.append(working.restored(replace(lit, background=background)))
    return tuple(fields)


class ChannelsTrainer(Trainer):
    """Fits one set of Gaussians to several channels.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels, of one shape and spacing.
    settings : FitSettings
        How.
    start : sequence of GaussianField, optional
        A field a channel to go on from, of the same means and covariances.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stacks' unit) that seeds must begin at.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        settings: FitSettings,
        *,
        start: Sequence[GaussianField] = (),
        points: NDArray[np.float64] | None = None,
    ) -> None:
        if settings.device == "cuda":
            message = "device='cuda': several channels are fitted on the CPU; use device='cpu'"
            raise SettingsError(message)
        automatic, settings = settings.device == "auto", replace(settings, device="cpu")
        first, *others = checked_channels(stacks)
        own, *of_others = start or seed_channels(stacks, settings, points=points)
        super().__init__(first, settings, start=own)
        if automatic:
            self.notes = ("device auto is the CPU: several channels are fitted there",)
        self.kept = 0 if points is None or start else len(points)
        self.others = [
            Trainer(stack, settings, start=field)
            for stack, field in zip(others, of_others, strict=True)
        ]
        for other in self.others:
            other.share_shapes_of(self.scaled_field())
        self._of_others: list[Tensor] = []

    @property
    def other_fields(self) -> tuple[GaussianField, ...]:
        """Copies of the fields of all channels but the first."""
        return tuple(other.field for other in self.others)

    def channels(self) -> Iterator[tuple[WorkingStack, Views, GaussianField]]:
        """Yield each channel's stack, views and field."""
        yield from super().channels()
        for other in self.others:
            yield from other.channels()

    def view_psnr(self, fields: Sequence[GaussianField], n: int) -> float:
        """Return the mean over the channels of the PSNR of held-out view n."""
        pairs = zip((self, *self.others), fields, strict=True)
        return float(np.mean([Trainer.view_psnr(trainer, [field], n) for trainer, field in pairs]))

    def gradients(self) -> tuple[Tensors, Found]:
        """Return the gradients of all channels' losses; PSNRs are means over the channels."""
        (d_means, d_cholesky, d_amplitudes), found = super().gradients()
        all_found, self._of_others = [found], []
        for other in self.others:
            other.iteration = self.iteration
            (means, cholesky, amplitudes), found = other.gradients()
            d_means, d_cholesky = d_means + means, d_cholesky + cholesky
            self._of_others.append(amplitudes)
            all_found.append(found)
        losses, *psnrs = zip(*all_found, strict=True)
        train_psnr, voxel_psnr = (float(np.mean(values)) for values in psnrs)
        return (d_means, d_cholesky, d_amplitudes), Found(sum(losses), train_psnr, voxel_psnr)

    def move(self, gradients: Tensors, rate: float) -> None:
        """Move shared shapes and the first channel's amplitudes, then the others' amplitudes."""
        super().move(gradients, rate)
        still = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[1])
        for other, gradient in zip(self.others, self._of_others, strict=True):
            # By the same optimiser: without a gradient, it leaves means and covariances alone.
            other.move((*still, gradient), rate)

    def _relocate(self) -> None:
        trainers = [self, *self.others]
        first, end = self._slab()
        residuals = [trainer.residual(first, end) for trainer in trainers]
        amplitudes = torch.stack([trainer.scaled_field().amplitudes for trainer in trainers])
        together = replace(self.scaled_field(), amplitudes=amplitudes.norm(dim=0))
        total = np.asarray(sum(residuals), np.float32)
        spacing = self.working.stack.spacing
        moved = relocate(
            together,
            total,
            spacing,
            self._share(first, end),
            first_plane=first,
            kept=self.kept,
        )
        places = together.means[moved].numpy() / np.asarray(spacing, np.float64) - (first, 0, 0)
        nearest = np.clip(np.rint(places), 0, np.array(total.shape) - 1).astype(int)
        least = DIMMEST * together.amplitudes[moved]
        for trainer, residual in zip(trainers, residuals, strict=True):
            height = RELOCATED_SHARE * smoothed(residual)[tuple(nearest.T)]
            lit = torch.maximum(torch.from_numpy(height), least)
            trainer.scaled_field().amplitudes[moved] = lit
            trainer.forget(moved)

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs, of all channels."""
        state = super().state()
        for n, other in enumerate(self.others, 1):
            state |= {f"{n}.{name}": tensor for name, tensor in other.state().items()}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of an earlier trainer of the same stacks, settings and fields."""
        super().restore(state)
        for n, other in enumerate(self.others, 1):
            own = f"{n}."
            other.restore(
                {name.removeprefix(own): t for name, t in state.items() if name.startswith(own)}
            )
