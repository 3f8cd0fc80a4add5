"""A point spread function from beads is that of an independent fit, and bad beads do not count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import curve_fit

from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.measure.beads import Beads, measure_beads
from napari_gaussfit.measure.measuring import measure
from napari_gaussfit.measure.optics import Optics
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.spots import fit_spots
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPACING = (0.2, 0.08, 0.08)
SIGMAS = np.array([0.3, 0.1, 0.11])
SHAPE = (40, 120, 120)


def recorded(means: Floats, amplitudes: Floats, widths: Floats | None = None) -> Stack:
    """Beads of the PSF `SIGMAS`, times each one's own widths."""
    factors = np.ones((len(means), 3)) if widths is None else widths
    covariances = np.einsum("ki,ij->kij", np.square(SIGMAS * factors), np.eye(3))
    field = GaussianField.from_covariances(means, covariances, amplitudes, background=20.0)
    light = field.voxelise(SHAPE, SPACING).numpy()
    photons = np.random.default_rng(0).poisson(light).astype(np.float64)
    return Stack.from_array(photons, spacing=SPACING, name="beads")


def grid() -> Floats:
    """Nine places apart from each other."""
    rng = np.random.default_rng(1)
    cells = np.stack(np.meshgrid([0], range(3), range(3), indexing="ij"), -1).reshape(-1, 3)
    return (cells + 0.5) * (8.0, 3.2, 3.2) + rng.uniform(-0.2, 0.2, (9, 3))


@pytest.fixture(scope="module")
def beads() -> Beads:
    """Six good ones, and three that are not."""
    means, widths = grid(), np.ones((9, 3))
    amplitudes = np.full(9, 400.0)
    means[0, 0] = 0.1  # seen in part
    widths[1] = (1.0, 1.7, 1.7)  # a clump
    means[3] = means[2] + (0.0, 0.0, 0.62)  # a neighbour
    return measure_beads(recorded(means, amplitudes, widths))


def test_beads_have_the_widths_of_the_psf_within_their_errors(beads: Beads) -> None:
    psf = beads.psf()
    assert psf.beads == 5, beads.refused
    fwhm = FWHM_PER_SIGMA * SIGMAS
    np.testing.assert_allclose(psf.fwhm, fwhm, rtol=0.02)
    table = beads.table()[beads.good]
    for n, axis in enumerate("zyx"):
        pulls = (table[f"fwhm_{axis}"] - fwhm[n]) / table[f"sd_fwhm_{axis}"]
        assert np.sqrt(np.mean(pulls**2)) < 2.5, axis
        # The spread over beads is that of their error bars: there is nothing else.
        assert psf.sd[n] < 4 * table[f"sd_fwhm_{axis}"].mean()


def test_bad_beads_do_not_count_and_it_is_said_why(beads: Beads) -> None:
    reasons = sorted(why for why in beads.refused if why)
    assert "at the border" in reasons
    assert any("times as wide along" in why for why in reasons)
    assert sum("another bead is 0.6" in why for why in reasons) == 2
    assert list(beads.table()["refused"]) == list(beads.refused)


def test_two_beads_that_touch_are_no_bead() -> None:
    means = grid()
    means[1] = means[0] + (0.0, 0.0, 0.3)
    found = measure_beads(recorded(means, np.full(9, 400.0)))
    assert [why for why in found.refused if why]


def gaussian(places: Floats, *given: float) -> Floats:
    """The model as `curve_fit` wants it."""
    z, y, x, a, b, c, d, e, f, amplitude, background = given
    lower = np.array([[np.exp(a), 0, 0], [b, np.exp(c), 0], [d, e, np.exp(f)]])
    units = np.linalg.solve(lower, places - np.array([[z], [y], [x]]))
    light: Floats = amplitude * np.exp(-0.5 * np.square(units).sum(0)) + background
    return light


def fwhm_by_curve_fit(stack: Stack, beads: Beads, k: int) -> Floats:
    """Least squares in a window of three and a half sigmas, by another program."""
    start, spacing = beads.measurement.gaussians[0], np.asarray(stack.spacing)
    half = 3.5 * np.sqrt(np.diag(start.covariances[k])) / spacing
    centre = np.rint(start.means[k] / spacing)
    first = np.maximum(centre - np.ceil(half), 0).astype(int)
    end = np.minimum(centre + np.ceil(half) + 1, stack.shape).astype(int)
    voxels = stack.voxels[tuple(map(slice, first, end))].astype(np.float64)
    places = (np.indices(voxels.shape).reshape(3, -1) + first[:, None]) * spacing[:, None]
    # From elsewhere: a tenth narrower, and a third of a voxel beside.
    guess = [*(start.means[k] + spacing / 3), *(start.cholesky[k] - [0.1, 0, 0.1, 0, 0, 0.1])]
    found, _ = curve_fit(gaussian, places, voxels.ravel(), [*guess, voxels.max(), voxels.min()])
    a, b, c, d, e, f = found[3:9]
    lower = np.array([[np.exp(a), 0, 0], [b, np.exp(c), 0], [d, e, np.exp(f)]])
    return FWHM_PER_SIGMA * np.sqrt(np.diag(lower @ lower.T))


def test_the_confocal_beads_have_the_widths_of_an_independent_fit(
    stack_path: Callable[[str], Path],
) -> None:
    stack = Stack.open(stack_path("spots_beads/beads_confocal_mpicbg.tif"))
    found = measure_beads(stack)
    assert found.refused == ("",) * 4
    for k in range(4):
        np.testing.assert_allclose(found.fwhm[k], fwhm_by_curve_fit(stack, found, k), rtol=0.03)


@pytest.mark.parametrize("way", ["points", "spots", "fit"])
def test_a_bead_is_as_wide_however_it_is_measured(
    way: str, stack_path: Callable[[str], Path]
) -> None:
    """Four beads that are no Gaussians, by defaults: chi^2 is 4 to 7 times the noise's.

    Weighed by their noise, the dim tails would make them 5 to 14 % wider.
    """
    stack = Stack.open(stack_path("spots_beads/beads_confocal_mpicbg.tif"))
    beads = measure_beads(stack)
    places = beads.measurement.gaussians[0].means
    if way == "points":
        found = measure(places, stack)
    elif way == "spots":
        found = fit_spots(stack).measurement
    else:
        settings = FitSettings(gaussians=4, exactly=True, quality="preview", device="cpu")
        refined = fit(stack, settings).measured().measurement
        assert refined is not None
        found = refined
    assert len(found) == 4
    assert found.reduced_chi2.min() > 3
    means = found.gaussians[0].means
    for k, place in enumerate(places):
        own = int(np.argmin(np.linalg.norm(means - place, axis=1)))
        fwhm = FWHM_PER_SIGMA * found.along_axes()[0][own]
        np.testing.assert_allclose(fwhm, fwhm_by_curve_fit(stack, beads, k), rtol=0.03)


def test_a_psf_comes_back_from_its_file(beads: Beads, tmp_path: Path) -> None:
    psf = beads.psf()
    psf.save(tmp_path / "psf.json")
    assert Psf.load(tmp_path / "psf.json") == psf
    Psf.of_optics(Optics(1.2, 520, 1.33)).save(tmp_path / "light.json")
    json.loads((tmp_path / "light.json").read_text(), parse_constant=pytest.fail)
    assert np.isnan(Psf.load(tmp_path / "light.json").sd).all()


def test_a_psf_of_optics_says_of_which() -> None:
    words = Psf.of_optics(Optics(1.2, 520, 1.33, 1.0)).words
    assert words.endswith("(NA 1.2, 520 nm, index 1.33, pinhole of 1 Airy units)")


def test_what_is_no_psf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "psf.json"
    with pytest.raises(FormatError, match="cannot be read"):
        Psf.load(path)
    for text in ("{", "[]", '{"fwhm": [1, 2]}', "null"):
        path.write_text(text)
        with pytest.raises(FormatError, match="holds no point spread function"):
            Psf.load(path)
    with pytest.raises(SettingsError, match="spacing is not known"):
        measure_beads(Stack.from_array(np.random.default_rng(0).random((9, 9, 9))))


@pytest.mark.parametrize(
    ("optics", "lateral", "axial"),
    [
        # The rules of the textbooks, in wavelengths over NA and over n - (n^2 - NA^2)^(1/2).
        (Optics(0.3, 500, 1.0), 0.51, 0.88),
        (Optics(0.3, 500, 1.0, pinhole=0.05), 0.37, 0.64),
        (Optics(0.3, 500, 1.0, pinhole=5), 0.51, 0.88),
    ],
)
def test_what_light_allows_is_what_textbooks_say(
    optics: Optics, lateral: float, axial: float
) -> None:
    depth = optics.index - (optics.index**2 - optics.na**2) ** 0.5
    z, y, x = optics.fwhm
    assert y == x == pytest.approx(lateral * 0.5 / 0.3, rel=0.03)
    assert z == pytest.approx(axial * 0.5 / depth, rel=0.03)


def test_no_microscope_is_refused() -> None:
    for options, what in (
        ({"na": 1.4, "wavelength_nm": 520, "index": 1.33}, "NA=1.4 is not below the index 1.33"),
        ({"na": 1.4, "wavelength_nm": 0.52}, "wavelength=0.52 nm: expected 100"),
        ({"na": -1.0, "wavelength_nm": 520}, "NA=-1"),
    ):
        with pytest.raises(SettingsError, match=what):
            Optics(**options)


@pytest.mark.parametrize(
    "change",
    [
        {"beads": 1e999},
        {"covariance": [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"covariance": [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]},
        {"covariance": [[1e-30, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"fwhm": "abc"},
        {"fwhm": [1, 2]},
    ],
)
def test_a_file_of_other_numbers_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    content = Psf.of_fwhm((0.9, 0.3, 0.3)).to_dict() | change
    (tmp_path / "psf.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="holds no point spread function"):
        Psf.load(tmp_path / "psf.json")
