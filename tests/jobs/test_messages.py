"""Messages between napari and the process that fits."""

from __future__ import annotations

import io

import numpy as np
import pytest

from napari_gaussfit.jobs.messages import Message, receive, send


def test_a_message_arrives_as_it_was_sent() -> None:
    stream = io.BytesIO()
    arrays = {
        "voxels": np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
        "none": np.zeros((0, 3), np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }
    send(stream, Message("fit", {"spacing": [0.3, 0.1, 0.1], "left": float("nan")}, arrays))
    send(stream, Message("end"))
    stream.seek(0)

    first, second = receive(stream), receive(stream)

    assert first.kind == "fit"
    assert first.words["spacing"] == [0.3, 0.1, 0.1]
    assert np.isnan(first.words["left"])
    for name, array in arrays.items():
        assert first.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(first.arrays[name], array)
    assert (second.kind, second.words, second.arrays) == ("end", {}, {})


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_a_message_cut_short_is_an_end(kept: int) -> None:
    stream = io.BytesIO()
    send(stream, Message("fit", {"name": "dendrite"}, {"voxels": np.zeros(100)}))
    with pytest.raises(EOFError):
        receive(io.BytesIO(stream.getvalue()[:kept]))
