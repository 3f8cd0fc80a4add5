"""The benchmarks run, at tiny sizes; what they compare computes the same; the page is theirs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], Any]

SECTIONS = {"kernels", "scaling", "points", "volumes", "threads", "imports", "quality", "fits"} | {
    "measurement",
    "psf",
    "spots",
    "floors",
    "memory",
    "neurites",
    "cells",
    "tiles",
    "tile_workers",
}
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


@pytest.fixture
def load(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a module of the benchmarks, which are no part of the installed package."""
    monkeypatch.syspath_prepend(str(checkout))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def benchmark(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_section_runs_and_is_in_the_json(checkout: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    words = ["--small", "--plain-seconds", "0.1", "--json", str(tmp_path / "figures.json")]
    done = benchmark(checkout, *words, "--markdown", str(page))
    assert done.returncode == 0, done.stderr

    results = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert set(results) >= SECTIONS | {"machine", "when", "options"}
    for name in SECTIONS:
        for table in results[name]:
            assert table["rows"], f"{name} has an empty table: {table['title']}"
            assert table["title"] in done.stdout
            assert table["title"] in page.read_text(encoding="utf-8")


def test_a_section_that_does_not_exist_is_refused(checkout: Path) -> None:
    done = benchmark(checkout, "speed")
    assert done.returncode == 2
    assert "no section speed" in done.stderr


def test_missing_stacks_are_said(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAUSSFIT_DATA", str(tmp_path))
    done = benchmark(checkout, "threads", "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 2
    assert "GAUSSFIT_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_what_lies_between_the_markers_is_replaced(load: Load, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    table = load("tables").Table("Times", ("what", "ms"), (("step", 12.345), ("never", None)))
    for _ in range(2):
        load("page").write_tables(page, [table], "command --json figures.json --small")
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"above\n{BEGIN}")
    assert text.endswith(f"{END}\nbelow\n")
    assert "old" not in text
    assert text.count("| step | 12.3 |") == 1
    assert "| never | - |" in text
    assert "`command --small`" in text


@pytest.mark.parametrize("text", ["nothing", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_page_without_its_markers_is_left_alone(load: Load, tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(load("page").PageError, match="expected"):
        load("page").write_tables(page, [], "command")
    assert page.read_text(encoding="utf-8") == text


def test_the_page_has_a_place_for_figures(checkout: Path) -> None:
    text = (checkout / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


@pytest.mark.notebook("benchmarks", api="benchmarks.points")
def test_every_way_of_evaluating_at_points_gives_the_kernels_gradients(load: Load) -> None:
    points, fields = load("points"), load("fields")
    parameters = fields.random_field(20, (1.0, 1.0, 1.0), 0.3)
    places = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    ours = points.forward_and_backward(points.kernel, parameters, places)
    for name, way in points.TORCH_WAYS.items():
        off = fields.difference(ours, points.forward_and_backward(way, parameters, places))
        assert off < 1e-4, f"{name} is off by {off:.1e}"


def test_keops_gives_the_kernels_gradients(load: Load) -> None:
    pytest.importorskip("pykeops", reason="KeOps is optional: pip install pykeops")
    points, fields = load("points"), load("fields")
    parameters = fields.random_field(20, (1.0, 1.0, 1.0), 0.3)
    places = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    ours = points.forward_and_backward(points.kernel, parameters, places)
    off = fields.difference(ours, points.forward_and_backward(points.keops, parameters, places))
    assert off < 1e-4, f"KeOps is off by {off:.1e}"


def test_pairs_of_a_view_are_those_that_the_footprints_hold(load: Load) -> None:
    from napari_gaussfit._kernels.cpu import backend
    from napari_gaussfit.model.camera import orbit_view

    parameters = load("fields").random_field(5, (8.0, 8.0, 8.0), 1.0)
    box = np.zeros(3), np.full(3, 8.0)
    rays = orbit_view(box, 40.0, 20.0, 0.25).rays(box)
    pairs, bins = load("floors").ray_pairs(backend.pack(*parameters, 1e-3), rays, 0.5)
    sigmas = parameters[1][:, [0, 2, 5]].exp().mean()
    reach = float(sigmas) * np.sqrt(2 * np.log(float(parameters[2].mean()) / 1e-3))
    disc = 5 * np.pi * (reach / 0.25) ** 2
    assert 0.3 * disc < pairs < 1.5 * disc, f"{pairs:.0f} pairs where about {disc:.0f} are"
    assert pairs < bins < 2 * reach / 0.5 * pairs


@pytest.mark.parametrize("searched", [True, False], ids=["searched", "from a start"])
def test_the_view_that_is_timed_is_that_of_a_fits_step(load: Load, *, searched: bool) -> None:
    from napari_gaussfit.fitting.objective import Drawn
    from napari_gaussfit.synthetic.phantoms import neurite

    trainer = load("fields").trainer_after(neurite(shape=(10, 24, 24)).stack, 30, 4)
    step, objective = load("kernels").next_step(trainer), trainer.objective
    ours = step.view(None if searched else step.depth)

    trainer.steps.state.background.zero_()  # what is timed lies above none
    trainer.steps.set_depths(0, step.depth[None])
    theirs, _ = trainer.steps.gradients(Drawn([], [0], searched))
    weight = objective.pixel_weight(objective.views.view(objective.views.training[0]))
    means, cholesky, [amplitudes] = theirs
    theirs = [gradient / weight for gradient in (means, cholesky, amplitudes)]
    off = load("fields").difference(ours, theirs)
    assert off < 1e-6, f"off by {off:.1e}"


def test_a_timed_step_keeps_its_gaussians_while_the_fit_goes_on(load: Load) -> None:
    from napari_gaussfit.synthetic.phantoms import neurite

    trainer = load("fields").trainer_after(neurite(shape=(10, 24, 24)).stack, 30, 2)
    step = load("kernels").next_step(trainer)
    before = [tensor.clone() for tensor in step.parameters]
    trainer.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))


def test_the_scatter_voxelises_as_the_kernels_do(load: Load) -> None:
    volumes, fields = load("volumes"), load("fields")
    parameters = fields.random_field(10, (16.0, 16.0, 16.0), 1.5)
    weights = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(1))
    cutoff = volumes.STRICT_CUTOFF
    off = fields.difference(
        volumes.by_scatter(parameters, weights, cutoff),
        volumes.by_kernels(parameters, weights, cutoff),
    )
    assert off < 1e-4, f"off by {off:.1e}"


def test_the_plain_soft_mip_is_the_references(load: Load) -> None:
    from napari_gaussfit._kernels import reference
    from napari_gaussfit.model.camera import orbit_view

    plain, fields = load("plain"), load("fields")
    parameters = fields.random_field(12, (4.0, 5.0, 6.0), 0.5)
    rays = orbit_view((np.zeros(3), np.array([4.0, 5.0, 6.0])), 40.0, 20.0, 0.5).rays(
        (np.zeros(3), np.array([4.0, 5.0, 6.0]))
    )
    near, far = reference.clip(rays, torch.float64)
    hit = near < far
    means, cholesky, amplitudes = (p.double() for p in parameters)
    wanted = reference.soft_mip(means, cholesky, amplitudes, rays, 0.05)[hit]
    found = plain.soft_mip(*parameters, plain.ray_starts(rays)[hit], rays, 0.05)
    assert float((found - wanted).abs().max()) < 1e-4


def test_the_plain_way_learns(load: Load) -> None:
    from napari_gaussfit.model.views import Views
    from napari_gaussfit.synthetic.phantoms import neurite

    plain = load("plain")
    stack = neurite(shape=(10, 24, 24)).stack
    views = Views(stack, 6, 2)
    fit = plain.PlainFit(stack.box, stack.value_range, plain.PlainSettings(gaussians=40))
    view = views.view(views.training[0])
    losses = [fit.step(view) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0], f"loss {losses[0]:.4f} -> {losses[-1]:.4f}"


def test_the_first_time_at_a_psnr_is_the_first(load: Load) -> None:
    quality = load("quality")
    moments = [quality.Moment(float(n), n, value) for n, value in enumerate([10.0, 30.0, 29.0])]
    assert quality.first_at(moments, 29.5) == 1.0
    assert quality.first_at(moments, 31.0) is None


def test_an_exponent_is_that_of_the_power_law(load: Load) -> None:
    sizes = [1.0, 10.0, 100.0]
    assert load("timing").exponent(sizes, [2 * s**1.5 for s in sizes]) == pytest.approx(1.5)


def test_ways_are_taken_in_turns_after_one_call_each(load: Load) -> None:
    timing = load("timing")
    calls: list[str] = []
    threads = torch.get_num_threads()

    def way(name: str) -> Any:
        def call() -> None:
            calls.append(name)
            time.sleep(timing.LEAST_SECONDS)

        return timing.with_kernels(name, call)

    found = timing.medians([way("a"), way("b")], turns=3)
    assert calls == ["a", "b"] * 4
    assert min(found.values()) >= timing.LEAST_SECONDS
    assert torch.get_num_threads() == threads


def run_simulated(checkout: Path, *words: str) -> None:
    """Run a module with kernels in numba's simulator, whose threads take turns."""
    simulator = checkout / "tests" / "_kernels" / "simulator.py"
    done = subprocess.run(
        [sys.executable, str(simulator), *words],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_in_the_simulator(checkout: Path, tmp_path: Path) -> None:
    """Checks and timings, on a few voxels: all that a GPU would run.

    From one seed: in another's noise a ray may hold two peaks, nearly as high, of which either is
    found.
    """
    out = tmp_path / "gpu.json"
    run_simulated(checkout, "benchmarks.gpu", "--small", "--seed", "1", "--json", str(out))
    found = json.loads(out.read_text())
    assert found["passed"]
    assert found["device"].startswith("numba's simulator")
    tables = {table["title"]: table["rows"] for table in found["tables"]}
    assert len(tables["Checks"]) >= 17
    assert "targets at the maxima" in {row["what"] for row in tables["Checks"]}
    assert {
        "cuda.mode_kernels.find_modes",
        "cuda.refinement_kernels.refine",
        "cuda.ray_kernels.sample_rays",
        "cuda.grid_kernels.voxelise",
        "cuda.grid_kernels.gather_dense",
    } <= {row["kernel"] for row in tables["Kernels and their floors"]}
    assert list(tables)[-1] == "What a GPU is promised for", "the last table is the answer"


@pytest.mark.slow
def test_a_fit_on_a_gpu_is_looked_at_from_outside(checkout: Path, tmp_path: Path) -> None:
    """All parts, in the simulator; a part that fails keeps none of the others back."""
    out = tmp_path / "contact.json"
    run_simulated(checkout, "benchmarks.gpu_contact", "--json", str(out))
    found = json.loads(out.read_text())
    assert list(found) == ["info", "twice", "fit", "profile", "to_target"]
    assert found["twice"] == {"image": True, "depth": True, "gradient": True}
    assert found["fit"][0]["voxels"] == found["fit"][1]["voxels"]


def test_views_have_as_many_rays_on_the_box_as_they_say(load: Load) -> None:
    from napari_gaussfit._kernels import reference

    for rays in load("gpu_checks").views_on_box(7, 200, (24.0, 20.0, 28.0)):
        near, far = reference.clip(rays, torch.float64)
        assert int((near < far).sum()) == pytest.approx(200**2, rel=0.01)


def test_a_run_that_breaks_off_leaves_what_it_found(load: Load, tmp_path: Path) -> None:
    gpu, tables = load("gpu"), load("tables")
    results = gpu.Results(tmp_path / "new" / "gpu.json", {"device": "thing"})
    results.add(tables.Table("Checks", ("what",), (("f on a grid",),)), passed=True)

    def fail(*_: object) -> None:
        message = "out of memory"
        raise MemoryError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "time_grid", lambda *_: ("grid", "8^3", 1.0, 3.0, "yes"))
        patch.setattr(gpu, "time_views", fail)
        with pytest.raises(MemoryError):
            gpu.timings(None, None, results, [])
    found = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert found["passed"]
    assert found["device"] == "thing"
    titles = [(table["title"], len(table["rows"])) for table in found["tables"]]
    assert titles == [("Checks", 1), ("What a GPU is promised for", 1)]


def test_a_checkout_that_is_not_installed_is_measured_too(load: Load) -> None:
    assert load("machine").version_of("torch") == version("torch")
    assert load("machine").version_of("no-such-package") == "not installed"


def test_without_a_gpu_its_script_says_why(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = load("gpu")
    if gpu.why_not() is None:
        pytest.skip("there is a GPU")
    assert gpu.main(["--small"]) == 2
    assert "no GPU to measure on: " in capsys.readouterr().err


def test_floors_are_the_longest_of_bytes_and_operations(load: Load) -> None:
    floors = load("gpu_floors")
    device = floors.Device("thing", 2, 1e9, 1e9)
    assert floors.Work(256e9, 0.0, 1e9).seconds(device) == (1.0, "arithmetic")
    assert floors.Work(256e9, 64e9, 1e9).seconds(device) == (2.0, "exponentials")
    assert floors.Work(256e9, 0.0, 3e9).seconds(device) == (3.0, "bytes")


@pytest.mark.slow
def test_what_cards_should_take_is_counted_without_one(checkout: Path) -> None:
    """Each kernel beside what an H200 took, where it is known; of a few voxels: no figures."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--cost", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    for name in ("mode_kernels.find_modes", "mip_kernels.gather_moments", "grid_kernels.voxelise"):
        row = rows[f"cuda.{name}"]
        assert float(row[1]) > 0
        assert float(row[-1].replace(",", "")) > 0, "it was measured"
    assert {"T4", "A100", "H100", "RTX", "H200"} <= set(rows)


def test_a_card_takes_as_long_as_its_busiest_unit_or_its_bytes(load: Load) -> None:
    cost = load("gpu_cost")
    card = cost.Card("thing", 2, 1e9, 1e9, {"any": 4.0, "single": 2.0, "special": 0.5})
    counts = Counter(single=4e9, special=0.5e9)
    assert card.seconds(counts, 0.0) == (1.0, "single")
    assert card.seconds(counts | Counter(special=2e9), 0.0) == (2.0, "special")
    assert card.seconds(counts + Counter(control=1e11), 0.0)[1] == "all instructions"
    assert card.seconds(counts, 3e9) == (3.0, "bytes")


DIVERGING = """
.visible .entry diverging(
	.param .u64 diverging_param_0
)
{
	.reg .pred %p<3>;
	ld.param.u64 %rd1, [diverging_param_0];
	mov.u32 %r1, %tid.x;
	setp.gt.u32 %p1, %r1, 3;
	mov.u32 %r2, 0;
	@%p1 bra $L__BB0_2;
	bra.uni $L__BB0_1;
$L__BB0_1:
	add.s32 %r2, %r2, 5;
	setp.lt.u32 %p2, %r2, 20;
	@%p2 bra $L__BB0_1;
	bra.uni $L__BB0_3;
$L__BB0_2:
	{
	.reg .pred %p1;
	setp.eq.u32 %p1, %r1, 4;
	selp.b32 %r2, 7, 8, %p1;
	}
	@!%p1 bra $L__BB0_3;
	add.s32 %r2, %r2, 100;
$L__BB0_3:
	mul.wide.u32 %rd2, %r1, 4;
	add.s64 %rd3, %rd1, %rd2;
	st.global.u32 [%rd3], %r2;
	ret;
}
"""


def test_each_way_of_a_branch_is_run_and_counted_once_a_warp(load: Load) -> None:
    code = load("gpu_code")
    given = torch.zeros(64, dtype=torch.int32)
    # The address alone, as hand-written code takes it: third after what numba hands over.
    program = code.Program(
        DIVERGING.replace("param_0]", "param_4]")
        .replace("(\n", "(\n" + "".join(f"\t.param .u64 n{n}\n" for n in range(4)))
        .replace(".u64 diverging_param_0", ".u64 diverging_param_4")
    )
    counts = code.Launch(program, (1,), (64,), [given]).run()
    assert given.tolist() == [20] * 4 + [107] + [108] * 59
    assert counts["global"] == 2
    # The loop's four turns are the first warp's alone, what comes after the branch both warps'.
    assert counts["control"] == 2 + 1 + 4 + 1 + 2 + 2
    assert counts["special"] == 0
    half = code.Launch(program, (4,), (64,), [given]).run(2)
    assert half == Counter({unit: 4 * number for unit, number in counts.items()})


def test_a_run_that_was_kept_can_be_put_into_a_page(load: Load, tmp_path: Path) -> None:
    gpu, tables = load("gpu"), load("tables")
    table = tables.Table("Times", ("what", "ms"), (("a step", 1.5), ("a fit", None)), ("On it.",))
    results = gpu.Results(tmp_path / "gpu.json", {"device": "thing", "passed": True})
    results.add(table)
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- measured: begin -->\n<!-- measured: end -->\nAfter.\n")
    assert gpu.main(["--kept", str(tmp_path / "gpu.json"), "--markdown", str(page)]) == 0
    written = page.read_text()
    assert written.startswith("Before.\n")
    assert written.endswith("After.\n")
    assert table.markdown().strip() in written


PROGRAMS = ("curve_fit", "napari-psf-analysis' fitter", "big-fish", "trackpy", "blob_log")


@pytest.mark.parametrize("name", PROGRAMS)
def test_another_program_finds_and_fits_spots_where_they_are(load: Load, name: str) -> None:
    """Also through its own border: axes z, y, x, sigmas, voxels of light at their centres."""
    from napari_gaussfit.model.gaussians import Gaussians

    peer = next(one for one in load("peers").PEERS if one.name == name)
    if not peer.installed:
        pytest.skip(f"{name} is not installed")
    sigmas, rng = np.array([2.0, 1.5, 1.5]), np.random.default_rng(0)
    means = (np.indices((1, 4, 4)).reshape(3, -1).T + 0.5) * 26 + rng.uniform(-2, 2, (16, 3))
    covariances = np.tile(np.diag(sigmas**2), (16, 1, 1))
    light = load("measurement").light_of(
        Gaussians.from_covariances(means, covariances, np.full(16, 1000.0), background=10.0),
        (1, 4, 4),
    )
    voxels = rng.poisson(light).astype(np.float64)
    if peer.find is not None:
        found = peer.find(voxels, sigmas).positions
        near = np.linalg.norm(found[:, None] - means, axis=2).min(axis=0)
        assert near.max() < 1.0
    if peer.fit_at is not None:
        spots = peer.fit_at(voxels, np.rint(means), sigmas)
        np.testing.assert_allclose(spots.positions, means, atol=0.05)
        np.testing.assert_allclose(spots.sigmas, np.tile(sigmas, (16, 1)), rtol=0.05)
        np.testing.assert_allclose(spots.amplitudes, 1000.0, rtol=0.05)


def test_a_program_that_is_not_installed_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = load("peers")
    assert all("extra `peers`" in note for note in peers.missing())
    absent = peers.Peer("spotter", "no_such_module")
    monkeypatch.setattr(peers, "PEERS", (absent,))
    assert peers.missing() == ("Not installed, and left out: spotter (the extra `peers`).",)


@pytest.mark.slow
def test_two_spots_that_are_two_sigmas_apart_are_found_as_two(load: Load) -> None:
    _, _, found, oracle = load("doubts").pairs(2.0, 48)
    assert found >= 0.9, f"an oracle finds {oracle:.2f}"


def test_gaussians_that_opengl_adds_are_the_line_integral(checkout: Path) -> None:
    """What is said of drawing them on napari's canvas rests on a drawing that is right."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instanced", "--small"],
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("2,000 ")]
    worst = {" ".join(words[1:-3]): float(words[-3]) for words in lines[:4]}
    assert worst["added a texture of floats"] < 1
    assert worst["the largest a texture of floats"] > 10 > worst["added the canvas"] > 1
