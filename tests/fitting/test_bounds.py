"""The bounds that a fit keeps its Gaussians in."""

from __future__ import annotations

import torch

from napari_gaussfit.fitting.bounds import confine


def test_means_beyond_the_outermost_voxels_come_back_to_them_and_no_others_move() -> None:
    means = torch.tensor([[-0.2, 1.0, 0.5], [0.6, 2.0, 9.0], [0.9, 0.0, 0.7]])
    confine(means, (4, 21, 11), (0.3, 0.1, 0.1))
    wanted = torch.tensor([[0.0, 1.0, 0.5], [0.6, 2.0, 1.0], [0.9, 0.0, 0.7]])
    torch.testing.assert_close(means, wanted)
