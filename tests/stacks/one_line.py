"""What an error says, which is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from napari_gaussfit.errors import GaussfitError


def message_of(error: pytest.ExceptionInfo[GaussfitError]) -> str:
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    return text
