"""What a first-time user meets, README and the pages of five minutes, works as it is written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_gaussfit.cli import main
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads, moving_spots, neurite, nuclei

CHECKOUT = Path(__file__).resolve().parents[1]

PAGES = ("README.md", "docs/start.md")

WAYS = tuple(f"docs/{name}.md" for name in ("spots", "cells", "neurites", "tracks", "psf"))
"""Five minutes each: by the panel, by commands, in a notebook."""

USE = tuple(f"docs/{name}.md" for name in ("install", "howto", "measuring", "noise", "formats"))

SAMPLES = {"docs/cells.md": "nuclei.tif", "docs/neurites.md": "dendrite.tif"}
"""What a page's ``stack.tif`` shows; beads, if nothing is said."""

FITTED = ("docs/howto.md", "docs/formats.md")
"""Pages whose reader has a fit of ``stack.tif`` in ``out`` already."""

COMMANDS = (
    "fit",
    "batch",
    "render",
    "export",
    "info",
    "demo",
    "measure",
    "psf",
    "spots",
    "cells",
    "trace",
)

NOT_RUN = {
    "conda create -n gaussfit python=3.12": "changes the machine",
    "conda activate gaussfit": "changes the machine",
    "make demo": "makes an environment anew; CI runs it as it is",
    "make test": "is what runs this test",
    'pip install ".[pyqt6]"': "changes the environment; make installs with the same extra",
    "f(x) = background + sum over k of a_k exp(-1/2 (x - mu_k)^T Sigma_k^-1 (x - mu_k))": "formula",
}
"""Lines that are no commands for a shell of this machine, and why."""

WRITTEN = {
    "README.md": [
        *("out", "found/objects.csv", "traced", "counted", "tracked/objects.csv"),
        *("results/summary.csv", "psf/psf.json", "view.png", "measured.csv"),
        *("gaussians.ply", "residual.ome.tif", "fit.safetensors"),
    ],
    "docs/start.md": [
        *("out/gaussians.csv", "fits/stack/gaussians.csv", "fits/summary.csv"),
        "again/settings.toml",
    ],
    "docs/install.md": ["demo/report.json"],
    "docs/spots.md": ["out/objects.csv", "out/spots.png"],
    "docs/cells.md": ["out/labels.ome.tif", "out/objects.csv"],
    "docs/neurites.md": ["out/trace.swc", "out/branches.csv"],
    "docs/tracks.md": ["out/objects.csv", "out/tracks.csv", "fitted/gaussians.csv"],
    "docs/psf.md": ["psf/psf.json", "psf/psf.png", "out/deconvolved.ome.tif", "sharp.tif"],
    "docs/measuring.md": ["measured.csv"],
    "docs/howto.md": ["fits/summary.csv", "measured.csv", "trackmate.xml", "volume.ome.tif"],
    "docs/formats.md": ["gaussians.ply", "fit.safetensors", "both/channels.csv"],
    "docs/noise.md": ["out/report.json"],
}
"""What a page's commands leave in the folder in which they are run."""


@dataclass(frozen=True)
class Page:
    """The code on a page.

    Parameters
    ----------
    commands : list of str
        The lines of its shell blocks, and the commands in its tables.
    programs : list of str
        Its Python blocks.
    """

    commands: list[str]
    programs: list[str]


def read_page(name: str) -> Page:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    fenced = [(found[1], found[2]) for found in fence.finditer(text)]
    rest = fence.sub("", text)
    shell = [code for kind, code in fenced if kind in {"", "shell"}]
    if not text.startswith("---"):  # MyST, in which indented lines are those of a list
        shell += re.findall(r"(?<=\n\n)((?:    \S.*\n)+)", rest)
    shell += re.findall(r"`(napari-gaussfit [a-z]+ [^`]*-o [^`]+)`", rest)
    shell += re.findall(r"`(napari-gaussfit info [^`]+)`", rest)
    lines = [line.strip() for block in shell for line in block.splitlines()]
    return Page([*filter(None, lines)], [code for kind, code in fenced if kind == "python"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name: stacks, and a checkpoint of the notebook."""
    for name, phantom in (
        ("stack", beads(count=3, shape=(8, 24, 20))),
        ("dendrite", neurite(shape=(12, 40, 40))),
        ("nuclei", nuclei(count=2, shape=(16, 40, 40))),
        ("spots", beads(count=3, shape=(8, 24, 20))),
        ("beads", beads(count=5, shape=(24, 80, 80), seed=1)),
        ("plate/1", beads(count=3, shape=(8, 24, 20))),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        made = phantom.stack
        write_ome_tiff(
            tmp_path / f"{name}.tif", made.voxels, spacing=made.spacing, unit=made.unit, name=name
        )
    recorded = moving_spots(count=4, times=3, crossings=0, shape=(16, 40, 40))
    (tmp_path / "movies").mkdir()
    tifffile.imwrite(
        tmp_path / "movies" / "vesicles.tif", np.stack([stack.voxels for stack in recorded.stacks]),
        imagej=True, metadata={"axes": "TZYX"},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tril = rng.normal(0, 0.02, (5, 6))
    tril[:, [0, 2, 5]] = -3.0
    state = {
        "means": rng.uniform(0.2, 0.8, (5, 3)),
        "cov_tril": tril,
        "weights": rng.normal(size=5),
    }
    torch.save(
        {name: torch.as_tensor(array, dtype=torch.float32) for name, array in state.items()},
        tmp_path / "checkpoint.pt",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prepared(folder: Path, request: pytest.FixtureRequest) -> str:
    """The name of a page of docs, whose reader's files are in the working folder."""
    name: str = request.param
    if name in SAMPLES:
        shutil.copyfile(SAMPLES[name], "stack.tif")
    stack, spots = tifffile.imread("stack.tif"), tifffile.imread("spots.tif")
    for path in folder.glob("*.tif"):
        if path.name not in {"stack.tif", "spots.tif", "beads.tif"}:
            path.unlink()  # patterns would have them fitted too
    if name == "docs/tracks.md":
        shutil.move("movies/vesicles.tif", "recording.tif")
    if name == "docs/formats.md":
        two = np.stack([stack, spots], axis=1)
        tifffile.imwrite("channels.tif", two, imagej=True, metadata={"axes": "ZCYX"})
    if name in FITTED:
        assert main(["fit", "stack.tif", "-o", "out", "--quality", "preview"]) == 0
    return name


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_commands_and_programs(name: str) -> None:
    page = read_page(name)
    assert page.programs
    assert len([line for line in page.commands if line not in NOT_RUN]) >= 2


def test_what_is_not_run_is_still_there() -> None:
    there = {line for name in (*PAGES, *WAYS, *USE) for line in read_page(name).commands}
    assert not set(NOT_RUN) - there


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("name", PAGES)
def test_commands_work_as_written(folder: Path, name: str) -> None:
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    commands = [line for line in read_page(name).commands if line not in NOT_RUN]
    for line in commands:
        # A shell that is typed into may take what follows # for arguments, as zsh does.
        assert " #" not in line, f"{line!r}: a comment that not every shell takes for one"
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": here},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line!r}: {done.stderr}"
        assert "Traceback" not in done.stderr, line
        assert "error" not in done.stderr, line
    for path in WRITTEN[name]:
        assert (folder / path).exists(), f"{path} was to be written"


@pytest.mark.slow
@pytest.mark.parametrize("prepared", [*WAYS, *USE], indirect=True)
def test_commands_of_a_page_work_in_their_order(
    prepared: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line for line in read_page(prepared).commands if line not in NOT_RUN]
    assert commands
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "napari-gaussfit", f"{line!r} is not run; NOT_RUN says why one is not"
        assert main(arguments) == 0, f"{line!r}: {capsys.readouterr().err}"
    for path in WRITTEN[prepared]:
        assert (folder / path).exists(), f"{path} was to be written"


@pytest.mark.slow
@pytest.mark.parametrize("prepared", WAYS, indirect=True)
def test_the_notebook_of_a_page_works_as_written(prepared: str) -> None:
    [program] = read_page(prepared).programs
    exec(compile(program, prepared, "exec"), {})


def test_the_folder_of_a_fit_holds_what_the_readme_says(folder: Path) -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    table = text.partition("`out` holds")[2].partition("\n\nThe sum over")[0]
    promised = re.findall(r"`([\w.]+\.(?:csv|json|png|safetensors|toml))`", table)
    out = folder / "out"
    assert (
        main(
            ["fit", "stack.tif", "-o", "out", "--gaussians", "5", "--exactly", "--iterations", "5"]
        )
        == 0
    )
    assert sorted(promised) == sorted(path.name for path in out.iterdir())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", PAGES)
def test_programs_work_as_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for program in read_page(name).programs:
        exec(compile(program, name, "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) > 20, "the first thing printed is a PSNR"


@pytest.mark.parametrize("name", [*PAGES, "docs/formats.md", "docs/troubleshooting.md"])
def test_options_that_pages_name_are_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    known: set[str] = set()
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (CHECKOUT / name).read_text("utf-8")))
    assert not named - known


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_lead_somewhere(name: str) -> None:
    page = CHECKOUT / name
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (page.parent / link).exists()]
