"""A kernel compiled with older shared code is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_gaussfit._kernels import compiled, cpu


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in compiled.SHARED:
        (folder / name).write_text(f"# {name}\n")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Numba's folder with a kernel's index and data, and what is none of ours."""
    folder = tmp_path / "kept"
    folder.mkdir()
    for name in ("cpu_rays.climb-1.nbi", "cpu_rays.climb-1.1.nbc", "other.pyc"):
        (folder / name).touch()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_kernels_of_unknown_code_are_forgotten(kept: Path, sources: Path) -> None:
    assert compiled.forget_stale(kept, sources)
    assert names(kept) == {"other.pyc", compiled.STAMP}


def test_kernels_of_the_same_code_are_kept(kept: Path, sources: Path) -> None:
    compiled.forget_stale(kept, sources)
    (kept / "cpu_rays.climb-1.nbi").touch()
    assert not compiled.forget_stale(kept, sources)
    assert "cpu_rays.climb-1.nbi" in names(kept)


@pytest.mark.parametrize("name", compiled.SHARED)
def test_a_change_of_shared_code_forgets_them(kept: Path, sources: Path, name: str) -> None:
    compiled.forget_stale(kept, sources)
    (kept / "cpu_rays.climb-1.nbi").touch()
    (sources / name).write_text("# changed\n")
    assert compiled.forget_stale(kept, sources)
    assert "cpu_rays.climb-1.nbi" not in names(kept)


def test_a_folder_yet_to_be_made_is_no_error(tmp_path: Path, sources: Path) -> None:
    assert compiled.forget_stale(tmp_path / "none" / "yet", sources)


def test_it_was_asked_when_the_kernels_were_imported() -> None:
    folder = Path(str(cpu.cpu_voxels.add_slab.stats.cache_path))
    assert (folder / compiled.STAMP).is_file()
    assert not compiled.forget_stale(folder)
