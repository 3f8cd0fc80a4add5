"""What the steps of a fit change, and how it is saved so that a fit can go on from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Tensors = tuple[Tensor, Tensor, Tensor]

STATE_VERSION = 3
"""Version of what `Trainer.state` gives; version 2 is read as well, see `read_version_2`."""

STATE_TENSORS = ("means", "cholesky", "amplitudes", "first", "second", "age")
"""Tensors of `OptimiserState` that are saved as they are; background and cutoff are words."""

LARGEST_MOMENT = 1e15
"""Largest number in a saved state: amplitudes and gradients in working units are far below, also
where a given background is a million ranges away, and their squares are in float32 still."""

LARGEST_BACKGROUND = 1e15
"""Largest background in a saved state: that of a stack with a large offset is far below."""


@dataclass(eq=False)
class OptimiserState:
    """The tensors that steps change, in place, in working units: K Gaussians in C channels.

    Parameters
    ----------
    means, cholesky, amplitudes : Tensor, shape [K, 3], [K, 6], [C, K]
        The Gaussians: places and shapes that all channels share, an amplitude in each.
    first, second, age : Tensor, shape [K, 9 + C], [K, 9 + C], [K]
        The optimiser's moments, and the steps that each Gaussian has taken.
    background, cutoff : Tensor, shape [C]
        Background of each channel, and the contribution below which its Gaussians are left out.
        In float64 on the CPU, in float32 on a CUDA device, as all else.
    origins : Tensor of int, shape [K]
        Which of the Gaussians at the beginning each is, -1 of those added since; on the CPU.
    """

    means: Tensor
    cholesky: Tensor
    amplitudes: Tensor
    first: Tensor
    second: Tensor
    age: Tensor
    background: Tensor
    cutoff: Tensor
    origins: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @classmethod
    def begin(cls, channels: Sequence[GaussianField], cutoff: float) -> OptimiserState:
        """Return the state before the first step.

        Parameters
        ----------
        channels : sequence of GaussianField
            The Gaussians in each channel, in working units; the first gives means and widths.
        cutoff : float
            Contribution below which a Gaussian is left out.
        """
        count, coordinates = len(channels[0]), 9 + len(channels)
        return cls(
            channels[0].means.contiguous(),
            channels[0].cholesky.contiguous(),
            torch.stack([field.amplitudes for field in channels]),
            torch.zeros(count, coordinates),
            torch.zeros(count, coordinates),
            torch.zeros(count),
            torch.tensor([field.background for field in channels], dtype=torch.float64),
            torch.full((len(channels),), cutoff, dtype=torch.float64),
            torch.arange(count),
        )

    @property
    def gaussians(self) -> Tensors:
        """Means [K, 3], Cholesky parameters [K, 6] and amplitudes [C, K]."""
        return self.means, self.cholesky, self.amplitudes

    @property
    def moments(self) -> Tensors:
        """The optimiser's first and second moments [K, 9 + C], and ages [K]."""
        return self.first, self.second, self.age

    def field(self, channel: int) -> GaussianField:
        """Return the Gaussians of a channel, which share this state's memory."""
        background = float(self.background[channel])
        amplitudes = self.amplitudes[channel]
        return GaussianField(self.means, self.cholesky, amplitudes, background, unit="pixel")

    def forget(self, moved: Tensor) -> None:
        """Set the moments of Gaussians to 0, which are chosen by their indices [M]."""
        for moments in self.moments:
            moments[moved] = 0.0

    def recount(self, stay: Tensor, added: Tensors) -> None:
        """Keep some Gaussians and add others, in memory of their own.

        Parameters
        ----------
        stay : Tensor, shape [S]
            Indices of those kept.
        added : tuple of Tensor
            Means [N, 3], Cholesky parameters [N, 6] and amplitudes [C, N] of new ones.
        """
        means, cholesky, amplitudes = added
        coordinates = self.first.shape[1]
        new = torch.zeros(len(means), coordinates, device=self.first.device)
        self.means = torch.cat([self.means[stay], means])
        self.cholesky = torch.cat([self.cholesky[stay], cholesky])
        self.amplitudes = torch.cat([self.amplitudes[:, stay], amplitudes], 1)
        self.first = torch.cat([self.first[stay], new])
        self.second = torch.cat([self.second[stay], new])
        self.age = torch.cat([self.age[stay], new[:, 0]])
        nowhere = torch.full((len(means),), -1)
        self.origins = torch.cat([self.origins[stay.cpu()], nowhere])

    def to(self, device: torch.device) -> OptimiserState:
        """Return the state on a CUDA device, all of it in float32."""
        moved = {
            part.name: getattr(self, part.name).to(device, torch.float32)
            for part in fields(self)
            if part.name != "origins"
        }
        return replace(self, **moved)

    def copy_from(self, saved: dict[str, Tensor]) -> None:
        """Set `STATE_TENSORS` to saved ones, in place: captured steps know this memory.

        Raises
        ------
        ValueError
            If one has another shape, or numbers that no fit comes to.
        """
        for name in STATE_TENSORS:
            own, tensor = getattr(self, name), saved[name]
            most = LARGEST_MOMENT**2 if name == "second" else LARGEST_MOMENT
            if tensor.shape != own.shape or not bool((tensor.abs() <= most).all()):
                message = f"{name} has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}"
                raise ValueError(f"{message}, of numbers up to {most:g}")
            own.copy_(tensor)


def pack_words(words: dict[str, Any]) -> Tensor:
    """Return JSON types as the bytes of a tensor."""
    return torch.from_numpy(np.frombuffer(json.dumps(words).encode(), np.uint8).copy())


def read_words(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the words of a saved state."""
    words: dict[str, Any] = json.loads(state["words"].numpy().tobytes().decode())
    return words


def read_version_2(state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return a state of version 2 as one of version 3; others are returned as they are.

    Version 2 held a whole state for each channel, those after the first under names such as
    ``1.means``, with means and widths that were the first one's.

    Parameters
    ----------
    state : dict of Tensor
        Tensors of a saved state, by name.
    count : int
        Number of channels that the file's fit has.
    """
    if read_words(state).get("version") != 2:
        return state
    prefixes = ["", *(f"{n}." for n in range(1, count))]
    words = [read_words({"words": state[f"{prefix}words"]}) for prefix in prefixes]
    by_channel = {name: [w[name] for w in words] for name in ("background", "cutoff")}

    def every(name: str) -> list[Tensor]:
        return [state[prefix + name] for prefix in prefixes]

    # Of a further channel only log a was moved, the first of ten coordinates.
    moments = {
        name: torch.cat([state[name], *(more[:, :1] for more in every(name)[1:])], 1)
        for name in ("first", "second")
    }
    depths = {"depths": torch.cat(every("depths"))} if "depths" in state else {}
    return (
        state
        | moments
        | depths
        | {"amplitudes": torch.stack(every("amplitudes"))}
        | {"words": pack_words(words[0] | by_channel | {"version": STATE_VERSION})}
    )
