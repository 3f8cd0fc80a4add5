"""Many files at the prompt, settings that are repeated, and how much is said."""

from __future__ import annotations

import csv
import gc
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_gaussfit._threads import thread_count
from napari_gaussfit.cli.commands import main, parser
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    Capture = pytest.CaptureFixture[str]

QUICK = ["--gaussians", "3", "--exactly", "--iterations", "5"]
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def plate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three stacks, one of which is none."""
    folder = tmp_path / "plate"
    folder.mkdir()
    made = beads(count=3, shape=(8, 20, 20)).stack
    for name in ("A", "C"):
        write_ome_tiff(
            folder / f"{name}.tif", made.voxels, spacing=made.spacing, unit=made.unit, name=name
        )
    (folder / "B.tif").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return Path("plate")


def summary(out: str) -> list[dict[str, str]]:
    with Path(out, "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def commands() -> dict[str, argparse.ArgumentParser]:
    import argparse

    [action] = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.usefixtures("plate")
def test_fit_of_a_pattern_has_a_folder_a_file_and_one_table(capsys: Capture) -> None:
    assert main(["fit", "plate/*.tif", "-o", "fits", *QUICK]) == 3
    rows = summary("fits")
    assert [(row["folder"], row["state"]) for row in rows] == [
        ("A", "done"),
        ("B", "failed"),
        ("C", "done"),
    ]
    assert "plate/B.tif: is not a TIFF" in rows[1]["error"].replace("\\", "/")
    assert [row["number"] for row in rows] == ["3", "", "3"]
    assert Path("fits/C/gaussians.csv").is_file()
    said = capsys.readouterr()
    assert "[3/3] " in said.err
    assert "B.tif: is not a TIFF" in said.err
    assert said.out.strip().endswith("3 files, 2 done, 1 failed")


@pytest.mark.usefixtures("plate")
def test_resume_keeps_what_is_done_and_does_what_is_missing(capsys: Capture) -> None:
    command = ["batch", "plate", "-o", "fits", *QUICK]
    assert main(command) == 3
    before = Path("fits/A/fit.safetensors").stat().st_mtime_ns
    shutil.copy("plate/A.tif", "plate/B.tif")
    shutil.rmtree("fits/C")
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert [row["state"] for row in summary("fits")] == ["done before", "done", "done"]
    assert Path("fits/A/fit.safetensors").stat().st_mtime_ns == before
    assert main([*command, "--resume", "--seed", "1"]) == 3
    assert "seed=0, not 1; --force replaces it" in summary("fits")[0]["error"]
    assert main(command) == 2, "the table is there"


@pytest.mark.usefixtures("plate")
def test_spots_cells_and_trace_take_several_files(capsys: Capture) -> None:
    files = ["plate/A.tif", "plate/C.tif"]
    assert main(["spots", *files, "-o", "spots"]) == 0
    assert main(["cells", *files, "-o", "cells", *QUICK]) == 0
    assert main(["trace", "cells/A", "cells/C", "-o", "traces"]) == 0
    for out, of in (("spots", "spots"), ("cells", "cells"), ("traces", "branches")):
        assert [(row["of"], row["state"]) for row in summary(out)] == [(of, "done")] * 2
    assert [row["number"] for row in summary("spots")] == ["3", "3"]
    capsys.readouterr()
    assert main(["cells", *files, "-o", "cells", *QUICK, "--resume"]) == 0
    assert [row["state"] for row in summary("cells")] == ["done before"] * 2


@pytest.mark.usefixtures("plate")
def test_the_settings_beside_a_fit_repeat_it_bit_for_bit() -> None:
    asked = [*QUICK, "--seed", "7", "--spacing", "0.4", "0.1", "0.1", "--channel", "0"]
    assert main(["fit", "plate/A.tif", "-o", "out", *asked]) == 0
    settings = tomllib.loads(Path("out/settings.toml").read_text())
    known = {name: settings[name] for name in ("seed", "spacing", "channel", "quality")}
    assert known == {"seed": 7, "spacing": [0.4, 0.1, 0.1], "channel": [0], "quality": "balanced"}
    assert main(["fit", "plate/A.tif", "-o", "again", "--settings", "out/settings.toml"]) == 0
    assert Path("again/gaussians.csv").read_bytes() == Path("out/gaussians.csv").read_bytes()
    changed = ["--settings", "out/settings.toml", "--gaussians", "2"]
    assert main(["fit", "plate/A.tif", "-o", "other", *changed]) == 0
    assert len(Path("other/gaussians.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gausians = 3", "gausians: no such setting of napari-gaussfit fit; there are gaussians"),
        ("quality = 'good'", "quality = 'good': expected one of 'preview', 'balanced', 'fine'"),
        ("gaussians = 'many'", "gaussians = 'many': is not what --gaussians takes"),
        ("gaussians = true", "gaussians = True: is not what --gaussians takes"),
        ("spacing = [1.0, 2.0]", "spacing = [1.0, 2.0]: expected 3"),
        ("exactly = 'yes'", "exactly = 'yes': expected true or false"),
        ("force = true", "force: no such setting"),
    ],
)
@pytest.mark.usefixtures("plate")
def test_a_settings_file_with_something_wrong_is_said(
    capsys: Capture, text: str, said: str
) -> None:
    Path("given.toml").write_text(text)
    assert main(["fit", "plate/A.tif", "-o", "out", "--settings", "given.toml"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert "given.toml" in line
    assert not Path("out").exists()


@pytest.mark.usefixtures("plate")
def test_quiet_says_nothing_and_json_one_object(capsys: Capture) -> None:
    assert main(["fit", "plate/A.tif", "-o", "quiet", *QUICK, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["fit", "plate/B.tif", "-o", "none", *QUICK, "-q"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "is not a TIFF" in said.err
    assert main(["fit", "plate/A.tif", "-o", "out", *QUICK, "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    report = json.loads(Path("out/report.json").read_text())
    assert told == {"out": "out"} | {name: report[name] for name in report if name != "history"}
    assert "held-out projections" in said.err
    assert main(["batch", "plate", "-o", "fits", *QUICK, "--json", "-q"]) == 3
    assert [row["state"] for row in json.loads(capsys.readouterr().out)["files"]] == [
        "done",
        "failed",
        "done",
    ]


@pytest.mark.parametrize("path", [[], ["plate/A.tif"], ["out"]])
@pytest.mark.usefixtures("plate")
def test_info_is_json_where_asked_for(capsys: Capture, path: list[str]) -> None:
    assert main(["fit", "plate/A.tif", "-o", "out", *QUICK, "-q"]) == 0
    capsys.readouterr()
    assert main(["info", *path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["info", *path, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    names = [re.split(r"  +", line)[0].replace(" ", "_") for line in lines]
    assert list(told) == list(dict.fromkeys("notes" if n == "note" else n for n in names))
    if path == ["out"]:  # whose numbers are numbers
        report = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
        words = {"stack", "shape", "spacing"}
        for name in set(told) - words:
            assert told[name] == report[name], name
        assert {"gaussians", "heldout_mip_psnr", "converged", "notes"} <= set(told)


@pytest.mark.usefixtures("plate")
def test_what_is_done_is_logged_where_asked_for(capsys: Capture) -> None:
    assert main(["fit", "plate/A.tif", "-o", "out", *QUICK, "-v"]) == 0
    said = capsys.readouterr()
    assert re.search(r"INFO napari_gaussfit\.\S+: read plate.A\.tif", said.err)
    assert re.search(r"INFO napari_gaussfit\.\S+: wrote out.gaussians\.csv in \d", said.err)
    assert not logging.getLogger("napari_gaussfit").handlers
    assert main(["info", "out"]) == 0
    assert "INFO" not in capsys.readouterr().err


def test_info_of_several_channels_tells_spacing_and_names(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "two.ome.tif"
    tifffile.imwrite(
        path, np.zeros((4, 2, 6, 5), np.uint16), ome=True, photometric="minisblack",
        metadata={
            "axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeZ": 0.5,
            "PhysicalSizeY": 0.1, "PhysicalSizeX": 0.1,
        },
    )  # fmt: skip
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert told["channels"] == "0 DAPI, 1 GFP"
    assert told["spacing"] == "0.5 x 0.1 x 0.1 micrometer"
    assert told["shape"] == "4 x 6 x 5 voxels (z, y, x)"
    assert "channel" in told["to choose"]


@pytest.mark.parametrize("command", ["spots", "info"])
def test_a_channel_is_called_by_its_name_as_well(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    path, voxels = tmp_path / "two.ome.tif", beads(count=3, shape=(8, 24, 20)).stack.voxels
    tifffile.imwrite(
        path, np.stack([0 * voxels, voxels], axis=1), ome=True, photometric="minisblack",
        metadata={"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}},
    )  # fmt: skip
    out = ["-o", str(tmp_path / "out")] if command == "spots" else []
    assert (
        main([command, str(path), "--channel", "gfp", "--spacing", "0.3", "0.1", "0.1", *out]) == 0
    )
    said = capsys.readouterr()
    if command == "info":
        assert re.search(r"^shape +8 x 24 x 20", said.out, re.MULTILINE)
    else:  # in the other channel there is no light
        with (tmp_path / "out" / "objects.csv").open(newline="") as file:
            assert len([*csv.DictReader(file)]) == 3
    elsewhere = ["-o", str(tmp_path / "none")] if command == "spots" else []
    assert main([command, str(path), "--channel", "Cy5", *elsewhere]) == 2
    assert "0 DAPI, 1 GFP" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGPIPE, and no head")
def test_who_reads_no_further_makes_no_error() -> None:
    line = f"{shlex.quote(sys.executable)} -m napari_gaussfit info | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_a_process_of_its_own_ends_without_looking_through_what_it_imported() -> None:
    code = (
        "import atexit, gc, sys; from napari_gaussfit.cli import main; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000)); "
        "sys.argv = ['napari-gaussfit', 'info']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "True"


def test_a_process_of_its_own_ends_at_once_and_does_what_is_to_be_done_at_the_end() -> None:
    code = (
        "import atexit, sys; from napari_gaussfit.cli import commands\n"
        "class Kept:\n    def __del__(self): print('taken apart')\n"
        "kept = Kept()\n"
        "commands.main = lambda: (atexit.register(print, 'at the end'), 3)[1]\n"
        "sys.exit(commands.program())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "at the end\n", "")


@pytest.mark.parametrize("module", ["napari_gaussfit", "napari_gaussfit.cli"])
def test_a_process_of_its_own_says_all_and_ends_by_its_exit_code(
    module: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", module]
    for arguments, code, words in (
        (["info", str(tmp_path / "none.tif")], 2, "none.tif"),
        (["info"], 0, ""),
        (["inform"], 2, "inform"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert words in done.stderr
        assert bool(done.stdout) == (code == 0)


@pytest.mark.skipif(thread_count() == 1, reason="pictures are drawn by the process itself")
@pytest.mark.usefixtures("plate")
def test_a_fit_at_the_prompt_loads_nothing_heavy_for_a_table_or_a_picture() -> None:
    code = (
        "import sys; from napari_gaussfit.cli import main\n"
        "from napari_gaussfit.cli.drawing import drawing_apart\n"
        f"with drawing_apart(): main({['fit', 'plate/A.tif', '-o', 'out', *QUICK, '-q']!r})\n"
        "print(sorted({'pandas', 'matplotlib', 'napari'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert Path("out", "gaussians.csv").is_file()
    assert Path("out", "projections.png").is_file()


def test_commands_that_a_program_calls_leave_its_garbage_to_python() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    assert main(["info", "-q"]) == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_no_option_is_taken_for_another(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "a.tif", "-o", "out", "--qual", "fine"])
    assert ended.value.code == 2
    assert "--qual" in capsys.readouterr().err


@pytest.mark.parametrize("name", commands())
def test_help_tells_every_default_and_has_examples(name: str) -> None:
    command = commands()[name]
    assert command.epilog is not None
    assert command.epilog.startswith("examples:\n")
    for action in command._actions:
        assert action.help, action.dest
        if action.nargs == 0 and not hasattr(action, "const"):
            continue
        if action.default not in (None, False, 0) and action.nargs != 0 and action.default != ():
            shown = action.default
            assert f"({shown})" in action.help, action.dest
        if action.option_strings and action.nargs != 0 and not action.required:
            assert action.help.endswith(")"), f"{action.dest}: what is so where it is left out?"


def test_help_of_objects_tells_their_own_number_of_gaussians() -> None:
    told = {
        name: next(one.help for one in commands()[name]._actions if one.dest == "gaussians")
        for name in ("fit", "trace", "cells")
    }
    assert told["fit"].endswith("(20,000)")
    assert told["trace"].endswith("(exactly as many as the size of the signal suggests)")
    assert told["cells"].endswith("(exactly a tenth of those that the size of the signal suggests)")


def lines_of_pages() -> Iterator[str]:
    """Yield the command lines of README, docs and helps."""
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages if page.name != "changelog.md"]
    texts += [command.epilog or "" for command in (parser(), *commands().values())]
    for text in texts:
        yield from re.findall(r"^\s*(napari-gaussfit [^`\n]+)$", text, re.MULTILINE)


def test_every_command_line_of_the_pages_is_understood() -> None:
    lines = [line for line in lines_of_pages() if "COMMAND" not in line]
    assert len(lines) > 30
    for line in lines:
        words = shlex.split(re.split(r" (?:>|\|) ", line)[0])
        try:
            parser().parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"not understood: {line}")


def test_what_a_command_does_not_know_points_at_its_own_help(capsys: Capture) -> None:
    for words, help_of in (
        (["fit", "A.tif", "-o", "out", "--qualty", "fine"], "napari-gaussfit fit --help"),
        (["info", "A.tif", "B.tif"], "napari-gaussfit info --help"),
        (["--nonsense", "demo"], "napari-gaussfit --help"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "unrecognized arguments: " in said
        assert said.endswith(f"({help_of})\n")


@pytest.mark.usefixtures("plate")
def test_a_batch_says_a_note_of_every_fit_once(capsys: Capture) -> None:
    assert (
        main(["fit", "plate/A.tif", "plate/C.tif", "-o", "fits", *QUICK, "--objective", "mip"]) == 0
    )
    said = capsys.readouterr().out
    assert said.count("note: objective mip fits the maxima") == 1
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(set(notes))
    # What is said of one is said of one, wherever it stands.
    assert main(["fit", "plate/A.tif", "-o", "alone", *QUICK, "--objective", "mip"]) == 0
    assert "note: objective mip" in capsys.readouterr().out
    for folder in ("fits/A", "fits/C"):
        report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
        assert any(note.startswith("objective mip") for note in report["notes"])
