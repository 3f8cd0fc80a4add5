"""Large stacks put together of small ones with jitter, as an OME-Zarr, a layer of cells at a time.

``python -m benchmarks.large_stacks OUT.ome.zarr --shape 512 1024 1024 --piece neurite``
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stacks import DENDRITE, open_stack
from napari_gaussfit.stacks.ome_zarr import written_by_boxes
from napari_gaussfit.stacks.statistics import estimate_background
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Shape = tuple[int, int, int]
    Spacing = tuple[float, float, float]

JITTER = 6
"""Voxels by which a piece may lie elsewhere in its cell, along each axis."""

PERIOD = 256
"""Voxels after which the background of a sparse stack repeats itself."""

PHOTONS = 150.0
"""Photons at the brightest voxel of a phantom."""


@dataclass(frozen=True, eq=False)
class Piece:
    """What is repeated: voxels [Z, Y, X], and the gain of the noise that is added, 0 for none."""

    voxels: NDArray[np.floating]
    spacing: Spacing
    background: float
    gain: float

    @classmethod
    def named(cls, name: str, shape: Shape = (40, 128, 128)) -> Piece:
        """A phantom without noise, which each copy gets anew, or the dendrite as it is."""
        if name == "dendrite":
            stack = open_stack(DENDRITE)
            voxels = stack.voxels.astype(np.float32)
            return cls(voxels, stack.spacing, estimate_background(voxels)[0], 0.0)
        make = phantoms.neurite if name == "neurite" else phantoms.nuclei
        phantom = make(photons=None, shape=shape)
        clean = phantom.stack.voxels
        gain = float(clean.max()) / PHOTONS
        return cls(clean, phantom.stack.spacing, phantom.truth.background, gain)

    def copy(self, rng: np.random.Generator) -> NDArray[np.uint16]:
        """A cell with the piece somewhere in it, maybe mirrored; its noise is its own."""
        shape = np.add(self.voxels.shape, JITTER)
        cell = np.full(shape, self.background)
        at = rng.integers(0, JITTER + 1, 3)
        turned = self.voxels[tuple(slice(None, None, step) for step in rng.choice((1, -1), 3))]
        cell[tuple(slice(a, a + n) for a, n in zip(at, self.voxels.shape, strict=True))] = turned
        return self.recorded(cell, rng)

    def recorded(self, cell: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint16]:
        """What a detector makes of a cell."""
        light = rng.poisson(cell / self.gain) * self.gain if self.gain else cell
        return np.clip(np.rint(light), 0, 65535).astype(np.uint16)


def assemble(path: Path, piece: Piece, shape: Shape, *, share: float = 1.0, seed: int = 0) -> None:
    """Write a stack of any size, of which a share of the cells holds a piece, the rest nothing."""
    cell = np.add(piece.voxels.shape, JITTER)
    counts = [-(-n // side) for n, side in zip(shape, cell, strict=True)]
    with written_by_boxes(
        path, shape, dtype=np.uint16, spacing=piece.spacing, unit="micrometer", name=path.stem
    ) as array:
        for z in range(counts[0]):
            first = z * int(cell[0])
            layer = np.empty((int(cell[0]), shape[1], shape[2]), np.uint16)
            for y, x in product(range(counts[1]), range(counts[2])):
                rng = np.random.default_rng([seed, z, y, x])
                empty = np.full(cell, piece.background)
                holds = rng.random() < share
                voxels = piece.copy(rng) if holds else piece.recorded(empty, rng)
                place = np.s_[:, y * cell[1] : (y + 1) * cell[1], x * cell[2] : (x + 1) * cell[2]]
                room = layer[place].shape
                layer[place] = voxels[:, : room[1], : room[2]]
            end = min(first + len(layer), shape[0])
            array[first:end] = layer[: end - first]


class Sparse:
    """A stack of any size that is nowhere stored: background, and copies of a piece in it.

    Its background repeats itself after `PERIOD` voxels along each axis, so that parts of it are as
    fast to have as to copy.
    """

    dtype = np.dtype(np.uint16)

    def __init__(self, shape: Shape, piece: Piece, copies: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.shape = shape
        self._dark = piece.recorded(np.full((PERIOD,) * 3, piece.background), rng)
        self._light = piece.recorded(np.maximum(piece.voxels - piece.background, 0), rng)
        most = np.subtract(shape, self._light.shape)
        self._places = [rng.integers(0, most + 1) for _ in range(copies)]

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[np.uint16]:
        """Return a box."""
        first = np.array([cut.start for cut in box])
        end = np.array([cut.stop for cut in box])
        at = [np.arange(a, b) % PERIOD for a, b in zip(first, end, strict=True)]
        voxels = self._dark[np.ix_(*at)]
        for place in self._places:
            low = np.maximum(place, first)
            high = np.minimum(place + self._light.shape, end)
            if (low < high).all():
                to = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
                of = tuple(slice(a, b) for a, b in zip(low - place, high - place, strict=True))
                voxels[to] += self._light[of]
        return voxels


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser("python -m benchmarks.large_stacks", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 512, 512))
    parser.add_argument("--piece", choices=("neurite", "nuclei", "dendrite"), default="neurite")
    parser.add_argument("--share", type=float, default=1.0, help="of cells that hold a piece")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    z, y, x = given.shape
    assemble(given.out, Piece.named(given.piece), (z, y, x), share=given.share, seed=given.seed)


if __name__ == "__main__":
    main()
