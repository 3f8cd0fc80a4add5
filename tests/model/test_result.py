"""The record of a fit knows where its stack is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.result import SavedFit
from napari_gaussfit.stacks.stack import Stack

STACK = Stack(
    np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
    spacing=(0.5, 0.2, 0.1),
    unit="micrometer",
    name="cells",
    channel=2,
    time=7,
    origin=(3.0, 4.0, 5.0),
)
FIELD = GaussianField(torch.zeros(2, 3), torch.zeros(2, 6), torch.ones(2), 9.0)


def test_a_fit_of_a_stack_is_where_the_stack_is() -> None:
    saved = SavedFit.of(FIELD, STACK, settings={"gaussians": 2})
    assert (saved.stack, saved.shape, saved.spacing) == ("cells", (3, 4, 5), (0.5, 0.2, 0.1))
    assert (saved.unit, saved.origin) == ("micrometer", (3.0, 4.0, 5.0))
    assert saved.place == {"channel": 2, "time": 7}
    assert saved.settings == {"gaussians": 2}
    assert saved.field is FIELD


def test_a_fit_of_several_channels_is_of_none_of_them() -> None:
    other = replace(FIELD, amplitudes=torch.full((2,), 3.0), background=1.0)
    saved = SavedFit.of(FIELD, STACK, others=(other,))
    assert saved.place == {"time": 7}
    assert saved.channels == (FIELD, other)


def test_gaussians_in_another_unit_than_the_stacks_are_refused() -> None:
    with pytest.raises(SettingsError, match="unit='micrometer' of the stack is not the field's"):
        SavedFit.of(replace(FIELD, unit="pixel"), STACK)
