"""Commands whose every line is looked at."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled() -> None:
    """Whichever test comes first: the command that compiles says so."""
    from napari_gaussfit import FitSettings, fit
    from napari_gaussfit.synthetic.phantoms import beads

    fit(
        beads(count=3, shape=(8, 20, 20)).stack,
        FitSettings(exactly=True, gaussians=3, iterations=20),
    )
