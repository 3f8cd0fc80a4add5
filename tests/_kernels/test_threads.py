"""Results do not depend on how the work is shared out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from scenes import CUTOFF, SIZE, Field, Operation, make_grid
from torch import Tensor

from napari_gaussfit import _kernels
from napari_gaussfit import _threads as threads
from napari_gaussfit._kernels import Rays

OnThreads = Callable[[int], list[Tensor]]


def every_operation(field: Field, rays: Rays) -> list[Tensor]:
    """Run every operation, forward and backward, and return all that comes out."""
    points = torch.rand(60_000, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor(SIZE)
    grid = make_grid((24, 20, 28))
    operations: list[Operation] = [
        lambda *p: _kernels.evaluate(*p, points, cutoff=CUTOFF),
        lambda *p: _kernels.voxelise(*p, grid, cutoff=CUTOFF),
        lambda *p: _kernels.mip(*p, rays, cutoff=CUTOFF, bin_step=0.5),
        lambda *p: _kernels.soft_mip(*p, rays, cutoff=CUTOFF, temperature=0.1),
        lambda *p: _kernels.line_integral(*p, rays, cutoff=CUTOFF),
    ]
    results: list[Tensor] = []
    for operation in operations:
        leaves = field.leaves(torch.float32)
        value = operation(*leaves)
        weights = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
        results += [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]
    return results


@pytest.fixture
def on_threads(
    monkeypatch: pytest.MonkeyPatch, overlapping: Field, many_rays: Rays
) -> Iterator[OnThreads]:
    """Run every operation with its work shared out over so many threads."""

    def run(count: int) -> list[Tensor]:
        monkeypatch.setattr(threads, "thread_count", lambda: count)
        threads._pool.cache_clear()
        return every_operation(overlapping, many_rays)

    yield run
    threads._pool.cache_clear()


@pytest.mark.parametrize("count", [2, 3, 16])
def test_results_are_bitwise_those_of_one_thread(on_threads: OnThreads, count: int) -> None:
    for one, several in zip(on_threads(1), on_threads(count), strict=True):
        assert torch.equal(one, several)


def test_results_are_bitwise_the_same_when_repeated(on_threads: OnThreads) -> None:
    for once, again in zip(on_threads(2), on_threads(2), strict=True):
        assert torch.equal(once, again)


@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("total", [0, 1, 7, 100, 5_003])
@pytest.mark.parametrize(("least", "most"), [(1, 10_000), (64, 10_000), (1, 9)])
def test_pieces_cover_all_once_and_become_smaller(
    monkeypatch: pytest.MonkeyPatch, count: int, total: int, least: int, most: int
) -> None:
    monkeypatch.setattr(threads, "thread_count", lambda: count)
    pieces = list(threads._pieces(total, least, most))
    assert [n for first, end in pieces for n in range(first, end)] == list(range(total))
    sizes = [end - first for first, end in pieces]
    assert all(min(least, total) <= size <= most for size in sizes)
    assert all(after < before + least for before, after in pairwise(sizes))
    if total >= 100 * count * least:
        assert len(sizes) >= (4 * count if count > 1 else 1)
