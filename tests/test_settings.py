"""FitSettings: what it takes from quality, and that nobody changes it."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import ITERATIONS, SETTINGS, FitSettings


@pytest.mark.parametrize("quality", ITERATIONS)
def test_quality_sets_the_steps(quality: str) -> None:
    assert FitSettings(quality=quality).steps == ITERATIONS[quality]


def test_more_quality_takes_more_steps() -> None:
    preview, balanced, fine = (ITERATIONS[q] for q in ("preview", "balanced", "fine"))
    assert preview < balanced < fine


def test_iterations_stand_in_for_those_of_the_quality() -> None:
    assert FitSettings(quality="fine", iterations=7).steps == 7


def test_steps_of_each_quality_are_documented() -> None:
    assert FitSettings.__doc__ is not None
    for steps in ITERATIONS.values():
        assert f"{steps:,}" in FitSettings.__doc__, f"{steps:,} steps are not in the docstring"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FitSettings().seed = 3


def test_settings_survive_json() -> None:
    wanted = FitSettings(gaussians=7, quality="fine", max_seconds=2.5, background=-3.0)
    assert FitSettings.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted


@pytest.mark.parametrize("name", ["gaussians", "iterations", "views", "held_out", "seed"])
def test_a_truth_value_is_no_number(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}=True: expected a whole number"):
        FitSettings(**{name: True})


def test_what_is_wrong_in_a_dictionary_is_refused_like_an_argument() -> None:
    with pytest.raises(SettingsError, match="loss='l1': expected one of 'squared', 'poisson'"):
        FitSettings.from_dict({"loss": "l1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gaussians", 10**400),
        ("views", 10**6),
        ("iterations", 10**400),
        ("seed", 10**400),
        ("max_seconds", math.inf),
        ("max_seconds", 10**400),
        ("background", math.nan),
        ("background", 3e38),
        ("ssim_weight", math.nan),
        ("gain", -1.0),
        ("offset", 100.0),
        ("read_noise", 1.5),
    ],
)
def test_numbers_that_nobody_means_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"^{name}="):
        FitSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gaussians", np.int64(7)),
        ("seed", np.uint8(3)),
        ("ssim_weight", np.float32(0.5)),
        ("background", np.int16(-3)),
        ("quality", np.str_("fine")),
    ],
)
def test_what_numpy_counts_is_taken_as_pythons_own(name: str, value: Any) -> None:
    settings = FitSettings(**{name: value})
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is SETTINGS[name].kind
    assert FitSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_are_values() -> None:
    settings = FitSettings(gaussians=7)
    for same in (replace(FitSettings(), gaussians=7), copy.deepcopy(settings)):
        assert same == settings
        assert hash(same) == hash(settings)
    with pytest.raises(SettingsError, match="views=1: expected a whole number of at least 2"):
        replace(settings, views=1)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_described_and_its_default_is_one_that_it_takes(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.label
    assert setting.help
    assert setting.taken(getattr(FitSettings(), name)) == getattr(FitSettings, name)
    for bound in (setting.least, setting.most):
        if math.isfinite(bound):
            assert setting.taken(setting.kind(bound)) == bound
    for choice in setting.choices:
        assert setting.taken(choice) == choice
