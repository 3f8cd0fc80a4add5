"""Sample data open from napari's menu, with scale, units and the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit._napari.layers.edited import fit_of_points
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.gui


@pytest.mark.parametrize("name", ["neurite", "beads", "nuclei", "spots"])
def test_a_sample_is_a_phantom_with_its_scale_and_hidden_truth(
    make_napari_viewer_proxy: Callable[..., Any], name: str
) -> None:
    viewer = make_napari_viewer_proxy()
    viewer.open_sample("napari-gaussfit", name)
    phantom = getattr(phantoms, name)()
    image, truth = viewer.layers
    assert (image.name, truth.name) == (name, f"{name} truth")
    assert (image.visible, truth.visible) == (True, False)
    np.testing.assert_array_equal(image.data, phantom.stack.voxels)
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, phantom.stack.spacing)
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert tuple(layer.axis_labels) == ("z", "y", "x")
    data, keywords, _ = truth.as_layer_data_tuple()
    field = fit_of_points(data, keywords).field
    np.testing.assert_array_equal(field.means, phantom.truth.means)
    assert field.background == phantom.truth.background
