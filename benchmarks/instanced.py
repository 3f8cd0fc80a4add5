"""Gaussians drawn as themselves by OpenGL, a quad each: how fast, and how near to `render`.

    xvfb-run -a -s "-screen 0 1280x1024x24" python -m benchmarks.instanced \
        [--markdown docs/performance.md]

An experiment, which the plugin does not use: each Gaussian is an instance of one quad, 28 bytes on
the card (centre, six Cholesky parameters in half precision, amplitude), as napari-storm draws
localisations. The vertex shader projects its covariance; the fragment shader gives what it adds to
a ray (the line integral), which is blended by adding, or its peak on the ray, by the largest.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.machine import describe
from benchmarks.page import write_tables
from benchmarks.tables import Cell, Table
from napari_gaussfit import GaussianField
from napari_gaussfit.model.camera import orbit_view
from napari_gaussfit.model.projection import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.camera import Box, Camera

    Floats = NDArray[np.float32]

SIDE = 512
"""Pixels of the picture's sides."""

REACH = 3.5
"""Sigmas from a Gaussian's centre to the sides of its quad."""

COUNTS = (2_000, 10_000, 100_000)
GL_FUNC_ADD, GL_MAX = 0x8006, 0x8008
"""Of OpenGL: vispy has no name for the second."""

TURN = 3.0
"""Degrees from one frame to the next."""

VERTEX = """
attribute vec2 corner;
attribute vec3 centre;
attribute vec3 first;
attribute vec3 last;
attribute float amplitude;
uniform mat3 rotation;
uniform vec2 middle;
uniform vec2 half_size;
uniform float reach;
uniform float summed;
uniform float scale;
varying vec2 offset;
varying vec3 form;
varying float height;

void main() {
    // L of the covariance, in axes z, y, x: columns.
    mat3 factor = mat3(
        exp(first.x), first.y, last.x,
        0.0, exp(first.z), last.y,
        0.0, 0.0, exp(last.z));
    mat3 seen = rotation * factor;
    mat3 covariance = seen * transpose(seen);
    vec3 place = rotation * centre;
    float a = covariance[0][0], b = covariance[0][1], c = covariance[1][1];
    float det = a * c - b * b;
    form = vec3(c, -b, a) / det;
    // The variance along the ray, of what lies on it: det Sigma / det of its shadow.
    float whole = exp(first.x + first.z + last.z);
    height = scale * amplitude * mix(1.0, sqrt(6.283185307) * whole / sqrt(det), summed);
    offset = corner * reach * sqrt(vec2(a, c));
    vec2 at = (place.xy - middle + offset) / half_size;
    gl_Position = vec4(at.y, -at.x, 0.0, 1.0);
}
"""

FRAGMENT = """
varying vec2 offset;
varying vec3 form;
varying float height;

void main() {
    float q = form.x * offset.x * offset.x + 2.0 * form.y * offset.x * offset.y
        + form.z * offset.y * offset.y;
    gl_FragColor = vec4(vec3(height * exp(-0.5 * q)), 1.0);
}
"""


def field_of(count: int) -> GaussianField:
    """Gaussians of a dendrite's sizes in a box whose sides are as the square root of their number.

    So that each pixel is reached by as many Gaussians whatever their number, as in fits.
    """
    rng = np.random.default_rng(3)
    side = np.sqrt(count) / 2
    means = rng.random((count, 3)) * (side / 4, side, side)
    factors = rng.normal(0, 0.25, (count, 3, 3)) + np.eye(3) * 0.6
    covariances = factors @ factors.swapaxes(1, 2)
    amplitudes = rng.exponential(1.0, count)
    return GaussianField.from_covariances(means, covariances, amplitudes, unit="pixel")


def camera_of(box: Box, azimuth: float) -> Camera:
    """A view of all of it."""
    size = float(np.linalg.norm(np.subtract(box[1], box[0])))
    return orbit_view(box, azimuth, 10.0, size / SIDE, largest_side=SIDE)


class Drawing:
    """A canvas that draws a field.

    Parameters
    ----------
    field : GaussianField
        What is drawn.
    """

    def __init__(self, field: GaussianField) -> None:
        from vispy import app, gloo, use

        use(gl="gl+")
        self.canvas = app.Canvas(size=(SIDE, SIDE), show=True)
        self.program = gloo.Program(VERTEX, FRAGMENT)
        corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
        self.program["corner"] = gloo.VertexBuffer(corners)
        numbers = field.numpy()
        half = numbers.cholesky.astype(np.float16)
        for name, values in (
            ("centre", numbers.means),
            ("first", half[:, :3]),
            ("last", half[:, 3:]),
            ("amplitude", numbers.amplitudes[:, None]),
        ):
            # vispy has no attributes of half precision: the numbers are those, the bytes are not.
            kept = np.ascontiguousarray(values, np.float32)
            self.program[name] = gloo.VertexBuffer(kept, divisor=1)
        self.program["reach"] = REACH
        self.texture = gloo.Texture2D((SIDE, SIDE, 4), internalformat="rgba32f", format="rgba")
        self.floats = gloo.FrameBuffer(self.texture)

    def draw(self, camera: Camera, *, summed: bool, brightest: float) -> None:
        """Draw what a camera sees, its brightest as 1; Gaussians are added, or the largest seen."""
        from vispy import gloo

        rows, columns = camera.shape
        gloo.set_viewport(0, 0, columns, rows)
        gloo.set_state(blend=True, depth_test=False, cull_face=False)
        gloo.set_blend_func("one", "one")
        equation = GL_FUNC_ADD if summed else GL_MAX
        gloo.context.get_current_canvas().context.glir.command(
            "FUNC", "glBlendEquationSeparate", equation, equation
        )
        gloo.clear(color=(0, 0, 0, 1))
        self.program["rotation"] = camera.rotation.T.astype(np.float32)
        self.program["middle"] = (camera.rotation @ camera.centre)[:2].astype(np.float32)
        self.program["half_size"] = np.multiply(camera.shape, camera.pixel).astype(np.float32) / 2
        self.program["scale"] = 1 / brightest
        self.program["summed"] = float(summed)
        self.program.draw("triangle_strip")

    def picture(self, camera: Camera, *, summed: bool, brightest: float, of_floats: bool) -> Floats:
        """Return a picture [H, W], from a texture of floats or the canvas's bytes."""
        from vispy import gloo

        with self.floats if of_floats else nullcontext():
            self.draw(camera, summed=summed, brightest=brightest)
            rows, columns = camera.shape
            seen = gloo.read_pixels((0, 0, columns, rows), out_type="float")[..., 0]
        own: Floats = seen * brightest
        return own

    def frames(self, cameras: list[Camera], *, summed: bool) -> float:
        """Return frames a second, each from another side and painted to its end."""
        from vispy import gloo

        began = time.perf_counter()
        for camera in cameras:
            self.draw(camera, summed=summed, brightest=1.0)
            gloo.finish()
        return len(cameras) / (time.perf_counter() - began)


def grey_levels(drawing: Drawing, field: GaussianField, box: Box) -> list[tuple[Cell, ...]]:
    """A row a way of blending: how many grey levels of 255 what is drawn is off from `render`."""
    rows: list[tuple[Cell, ...]] = []
    camera = camera_of(box, 30.0)
    for name, summed in (("added", True), ("the largest", False)):
        right = render(field, camera, box, mode="sum" if summed else "mip").numpy()
        brightest = float(right.max())
        for kind, of_floats in (("a texture of floats", True), ("the canvas", False)):
            drawn = drawing.picture(camera, summed=summed, brightest=brightest, of_floats=of_floats)
            off = 255 * np.abs(np.clip(drawn, 0, brightest) - right) / brightest
            shares = float(np.percentile(off, 99)), float(off.max()), float((off <= 1).mean())
            rows.append((f"{len(field):,}", name, kind, *shares))
    return rows


def measure(counts: Sequence[int], frames: int) -> list[Table]:
    """How near and how fast."""
    from vispy.gloo import gl

    near: list[tuple[Cell, ...]] = []
    fast: list[tuple[Cell, ...]] = []
    for count in counts:
        field = field_of(count)
        means = field.numpy().means
        box = means.min(0) - 3, means.max(0) + 3
        drawing = Drawing(field)
        renderer = str(gl.glGetParameter(gl.GL_RENDERER))
        near += grey_levels(drawing, field, box)
        cameras = [camera_of(box, TURN * n) for n in range(frames)]
        both = (drawing.frames(cameras, summed=summed) for summed in (True, False))
        fast.append((f"{count:,}", *both))
        drawing.canvas.close()
    note = (
        f"{SIDE} x {SIDE} pixels, OpenGL of {renderer}; quads of {REACH:g} sigmas to each side. "
        "A plugin draws on napari's canvas, which has bytes."
    )
    return [
        Table(
            "Gaussians drawn as themselves, against `render`",
            ("Gaussians", "blended", "into", "99 % within, levels", "worst", "share within 1"),
            tuple(near),
            (note,),
        ),
        Table("Frames a second", ("Gaussians", "added", "the largest"), tuple(fast)),
    ]


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.instanced", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--small", action="store_true", help="few Gaussians and frames: no figures")
    parser.add_argument("--markdown", type=Path, help="page whose marked part gets the tables")
    options = parser.parse_args()
    counts, frames = (COUNTS[:1], 2) if options.small else (COUNTS, 20)
    tables = [describe(), *measure(counts, frames)]
    print("\n".join(table.text() for table in tables))
    if options.markdown:
        command = " ".join(["python -m benchmarks.instanced", *sys.argv[1:]])
        write_tables(options.markdown, tables, command, part="instanced")


if __name__ == "__main__":
    main()
