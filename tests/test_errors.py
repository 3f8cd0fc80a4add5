"""A message is one line that can be read, whatever it quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_gaussfit import errors
from napari_gaussfit.errors import GaussfitError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GaussfitError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_quotes_a_file_stays_short_and_keeps_both_ends(
    kind: type[GaussfitError],
) -> None:
    error = kind(f"fit.ply: has {'x' * 100_000}; expected a number")
    assert len(str(error)) < 470
    assert str(error).startswith("fit.ply: has xxx")
    assert str(error).endswith("; expected a number")


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_one_line_without_what_a_terminal_obeys(kind: type[GaussfitError]) -> None:
    assert str(kind("a\nb\x1b[2Jc\u2028d \ud800")) == "a b [2Jc d  "


def test_a_short_message_is_as_it_was_given() -> None:
    message = f"{Path('été') / 'µ.tif'}: has 3 x 4 voxels; expected more"
    assert str(GaussfitError(message)) == message
