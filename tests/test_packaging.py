"""Builds that users install: a wheel with the extension, wheels without it, and the sdist.

Each is built as pip builds it, by the build backend in a process of its own, but from a copy of the project and with
the installed setuptools, so that no network is needed.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from children import CHILD_LIMIT

ROOT = Path(__file__).parent.parent
FOLDERS = ["aiopool", "benchmarks", "docs", "examples", "tests", "tools"]
BUILT = ["__pycache__", "*.py[cod]", "*.so", ".*"]
FAILED = 'building extension "aiopool._native._extension" failed'


def setuptools_is_new_enough() -> bool:
    """Whether the setuptools that pyproject.toml requires is installed; the output of older ones proves nothing."""
    try:
        return int(metadata.version("setuptools").partition(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        return False


needs_setuptools = pytest.mark.skipif(not setuptools_is_new_enough(), reason="needs setuptools 77 or later")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without build products."""
    copy = tmp_path / "project"
    copy.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*BUILT))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    return copy


def environment(**variables: str) -> dict[str, str]:
    """The environment, without the variables that affect the build or the choice of the implementation."""
    left_out = ("AIOPOOL_NO_EXTENSIONS", "AIOPOOL_REQUIRE_NATIVE", "CC", "CFLAGS")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, **variables}


def try_to_build(project: Path, kind: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Build a "wheel" or "sdist", and return the finished process, with all output in `stdout`."""
    program = f"from setuptools import build_meta; build_meta.build_{kind}('dist')"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=CHILD_LIMIT,
        check=False,
    )


def build(project: Path, kind: str, **variables: str) -> tuple[Path, str]:
    """Build a "wheel" or "sdist", and return its path and the output."""
    done = try_to_build(project, kind, **variables)
    assert done.returncode == 0, done.stdout
    (path,) = (project / "dist").iterdir()
    return path, done.stdout


def content(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def entry_points_in(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = fnmatch.filter(archive.namelist(), "*.dist-info/entry_points.txt")
        return archive.read(name).decode().strip()


def extensions(wheel: Path) -> list[str]:
    return [name for name in content(wheel) if name.endswith((".so", ".pyd"))]


def unpack(wheel: Path) -> Path:
    """The folder in which the package in `wheel` can be imported."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def implementation(wheel: Path, **variables: str) -> str:
    """Which implementation the package in `wheel` uses, if a warning at its import is an error."""
    site = unpack(wheel)
    program = "import aiopool; print(aiopool.implementation, aiopool.__file__)"
    done = subprocess.run(
        # Without site; otherwise an editable install would give this copy the extension of the checkout.
        [sys.executable, "-S", "-W", "error", "-c", program],
        cwd=site,
        env=environment(PYTHONPATH=str(site), **variables),
        capture_output=True,
        encoding="utf-8",
        timeout=CHILD_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    chosen, _, file = done.stdout.strip().partition(" ")
    assert Path(file).samefile(site / "aiopool" / "__init__.py")
    return chosen


@needs_setuptools
def test_a_wheel_has_the_extension_and_not_its_source(project):
    wheel, said = build(project, "wheel", CFLAGS="-O0")
    names = content(wheel)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "aiopool",
        "aiosyncpool",
        "pytest_aiopool.py",
    }  # and no tests or examples
    assert entry_points_in(wheel) == "[pytest11]\npytest_aiopool = pytest_aiopool"
    assert "aiopool/py.typed" in names
    assert not fnmatch.filter(names, "*.[ch]")
    if FAILED in said:
        pytest.skip("no C compiler")
    assert len(extensions(wheel)) == 1
    assert implementation(wheel) == "native"
    assert implementation(wheel, AIOPOOL_NO_EXTENSIONS="1") == "python"


@needs_setuptools
@pytest.mark.skipif(sys.platform == "win32", reason="CC does not choose the compiler")
def test_without_a_compiler_there_is_a_warning_and_a_wheel_without_the_extension(project):
    wheel, said = build(project, "wheel", CC="there-is-no-such-compiler")
    assert FAILED in said
    assert extensions(wheel) == []
    assert implementation(wheel) == "python"


@needs_setuptools
@pytest.mark.skipif(sys.platform == "win32", reason="CC does not choose the compiler")
def test_without_a_compiler_a_build_that_requires_the_extension_fails(project):
    done = try_to_build(project, "wheel", CC="there-is-no-such-compiler", AIOPOOL_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert "there-is-no-such-compiler" in done.stdout
    assert not list((project / "dist").glob("*.whl"))


@needs_setuptools
def test_where_the_extension_is_required_and_was_not_built_the_import_fails(project):
    wheel, _ = build(project, "wheel", AIOPOOL_NO_EXTENSIONS="1")
    last = last_line_of_a_failed_import(unpack(wheel))
    assert last.startswith("ImportError: AIOPOOL_REQUIRE_NATIVE is set, but the C extension of aiopool cannot be used:")
    assert "it was not built" in last


def last_line_of_a_failed_import(site: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", "import aiopool"],
        cwd=site,
        env=environment(PYTHONPATH=str(site), AIOPOOL_REQUIRE_NATIVE="1"),
        capture_output=True,
        encoding="utf-8",
        timeout=CHILD_LIMIT,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@needs_setuptools
def test_without_extensions_there_is_a_wheel_for_every_platform(project):
    wheel, said = build(project, "wheel", AIOPOOL_NO_EXTENSIONS="1", CC="there-is-no-such-compiler")
    assert FAILED not in said  # it was not even tried
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []
    assert implementation(wheel) == "python"


@needs_setuptools
def test_an_sdist_has_all_that_is_needed_to_build_and_nothing_else(project):
    (project / "aiopool" / "stale.pyc").touch()
    (project / "aiopool" / "_native.stale.so").touch()
    sdist, _ = build(project, "sdist", AIOPOOL_NO_EXTENSIONS="1")  # this hides the C source from setuptools
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    expected = {
        path.relative_to(project).as_posix()
        for path in (project / "aiopool").rglob("*")
        if path.suffix in {".c", ".h", ".py", ".typed"}  # and not what an editor or patch left behind
    }
    expected |= {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "pyproject.toml", "setup.py"}
    assert expected <= names
    assert not [name for name in names if "stale" in name]
    assert {name.partition("/")[0] for name in names if "/" in name} == {"aiopool", "aiosyncpool.egg-info"}


STALE = {
    "an older one lacks names that are used now": "",
    "one from another source": "source = 1",
    "one that does not load": "raise ImportError('undefined symbol')",
}


@pytest.mark.parametrize("stand_in", STALE.values(), ids=STALE)
def test_a_stale_extension_causes_a_warning_and_is_not_used(project, stand_in):
    (project / "aiopool" / "_native" / "_extension.py").write_text(stand_in, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-S", "-W", "always", "-c", "import aiopool; print(aiopool.implementation)"],
        cwd=project,
        env=environment(PYTHONPATH=str(project)),
        capture_output=True,
        encoding="utf-8",
        timeout=CHILD_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "python\n"
    assert "RuntimeWarning: The C extension of aiopool cannot be used" in done.stderr
    assert "pip install -e ." in done.stderr
    last = last_line_of_a_failed_import(project)
    assert last.startswith("ImportError: AIOPOOL_REQUIRE_NATIVE is set")
    assert ("other C sources" in last) != ("undefined symbol" in last)
