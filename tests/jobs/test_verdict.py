"""What is said of a fit in words, by the numbers of its report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from napari_gaussfit import FitSettings, fit, phantoms
from napari_gaussfit.jobs.verdict import details_of, figures_of, held_out_words, verdict_of

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult


@pytest.fixture(scope="module")
def neurite() -> Any:
    """A noisy neurite, whose noise carries about 53 Gaussians."""
    return phantoms.neurite(photons=150, shape=(20, 64, 64), spacing=(0.5, 0.2, 0.2)).stack


@pytest.fixture(scope="module")
def counted(neurite: Any) -> FitResult:
    """A fit that has counted by itself."""
    return fit(neurite)


def with_report(result: FitResult, **values: Any) -> FitResult:
    """Return a fit whose report says something else."""
    return replace(result, reports=(replace(result.report, **values),))


def test_a_fit_that_counts_by_itself_is_limited_by_noise(counted: FitResult) -> None:
    verdict = verdict_of(counted)
    assert verdict.words == "limited by noise"
    assert verdict.converged
    assert not verdict.doubt


@pytest.mark.parametrize("cap", [10, 20, 40])
def test_of_too_few_it_is_said_how_many_would_do(
    neurite: Any, counted: FitResult, cap: int
) -> None:
    verdict = verdict_of(fit(neurite, FitSettings(gaussians=cap)))
    words, number = verdict.words.removesuffix(" would do").split(", about ")
    assert words == "too few Gaussians"
    assert verdict.doubt
    right = len(counted.field)
    assert right / 2 < int(number) < 2 * right
    assert f"about {number}" in verdict.advice


def test_a_fixed_number_is_judged_by_what_the_noise_leaves(counted: FitResult) -> None:
    leaves = 35.0

    def words(voxels: float) -> str:
        changed = {"count_reason": "as asked for", "noise_psnr": leaves, "voxel_psnr": voxels}
        return verdict_of(with_report(counted, **changed)).words

    assert words(leaves - 0.6).startswith("too few Gaussians, about ")
    assert words(leaves - 0.4) == words(leaves + 0.9) == "limited by noise"
    assert words(leaves + 1.1) == "too many Gaussians, some describe noise"


def test_where_noise_is_not_known_nothing_is_said_of_it(counted: FitResult) -> None:
    unknown = with_report(counted, noise_psnr=None, heldout_noise_psnr=None, noise="smoothed")
    assert verdict_of(unknown).words == "noise not known"
    assert "smoothed" in verdict_of(unknown).advice
    capped = replace(unknown.report, count_reason="the cap: the stack would carry more")
    assert verdict_of(replace(unknown, reports=(capped,))).words == "too few Gaussians"


def test_not_converged_comes_before_all_else(counted: FitResult) -> None:
    far = with_report(
        counted, converged=False, convergence="more steps would move it", voxel_psnr=9
    )
    assert verdict_of(far).words == "not converged"
    assert verdict_of(far).doubt
    # A file of an earlier version, which did not look.
    assert verdict_of(with_report(counted, converged=False, convergence="")).converged


def test_of_several_channels_the_worst_is_told(counted: FitResult) -> None:
    poor = replace(counted.report, count_reason="the cap: the stack would carry more")
    both = replace(counted, fields=(counted.field, counted.field), reports=(counted.report, poor))
    assert verdict_of(both).words.startswith("too few")
    assert verdict_of(both).advice.startswith("In channel 1: ")


def test_the_held_out_figure_is_the_reports_everywhere(counted: FitResult) -> None:
    figure = f"{counted.report.heldout_mip_psnr:.1f} dB"
    assert held_out_words(counted) == figure
    assert f"Held-out projections {figure} (noise leaves " in figures_of(counted)
    assert figures_of(counted) in details_of(counted)
    assert details_of(counted).splitlines()[1].startswith("Limited by noise. ")


def test_without_a_report_nothing_is_judged(counted: FitResult) -> None:
    edited = replace(counted, reports=())
    assert verdict_of(edited).words == "not judged"
    assert held_out_words(edited) == figures_of(edited) == ""
    assert "No report" in details_of(edited)
