"""The examples of the documentation run: those in docstrings, and each Python program on the pages."""

import asyncio
import doctest
import inspect
import pkgutil
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from children import CHILD_LIMIT, errors_in
from feeding import feed

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [
    pytest.param(program, id=f"{page.name}-{number}")
    for page in PAGES
    for number, program in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    )
]


UNPOOLED = "ignore:Buffers are not reused on Python 3.11:RuntimeWarning"


@pytest.fixture
def findable(aiopool, monkeypatch):
    """The package in `sys.modules`, where doctest looks; another test may have loaded another copy."""
    for module in imported_modules(aiopool):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return aiopool


def test_the_examples_in_docstrings_run(findable):
    aiopool = findable
    assert aiopool.testing.FedReader  # which is imported when it is first used
    found = {}
    for module in imported_modules(aiopool):
        for test in doctest.DocTestFinder().find(module):
            test.globs.update(
                asyncio=asyncio,
                threading=threading,
                aiopool=aiopool,
                AsyncPool=aiopool.AsyncPool,
                Pool=aiopool.Pool,
                pool=aiopool.Pool(bytearray),
                BufferPool=aiopool.BufferPool,
                buffers=aiopool.BufferPool(),
                streams=aiopool.streams,
                testing=aiopool.testing,
                received=partial(received, aiopool.streams, aiopool.BufferPool()),
            )
            result = doctest.DocTestRunner().run(test)
            assert result.failed == 0
            found[test.name.partition(".")[2]] = result.attempted
    assert sum(found.values()) >= 30
    for name in ("_pool.Pool.get", "_pool.Pool.put", "_pool.Pool.borrow", "_buffer_pool.BufferPool.acquire"):
        assert found[name], "in C too"


def imported_modules(package):
    """The modules of `package` and its subpackages that are imported."""
    for info in pkgutil.iter_modules(package.__path__):
        module = getattr(package, info.name, None)
        if inspect.ismodule(module):
            yield module
            if info.ispkg:
                yield from imported_modules(module)


def test_the_examples_of_subpackages_are_found(findable):
    names = {test.name for module in imported_modules(findable) for test in doctest.DocTestFinder().find(module)}
    assert f"{findable.testing.isolated.__module__}.isolated" in names


def received(streams, buffers, data):
    """The reader for the examples, which has its data and the end of the stream, so that it never waits."""
    reader = streams.StreamReader(buffers, loop=object())
    feed(reader, data)
    reader.feed_eof()
    return reader


def test_every_public_name_has_a_docstring(aiopool):
    for name in aiopool.__all__:
        public = getattr(aiopool, name)
        if inspect.isclass(public):
            undocumented = [
                f"{name}.{member}"
                for member, value in vars(public).items()
                if not member.startswith("_") and inspect.isfunction(value) and not value.__doc__
            ]
            assert undocumented == []
        assert public.__doc__


def test_the_reference_has_every_public_name(aiopool):
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)", pages, re.M))
    for module in (aiopool, aiopool.streams, aiopool.testing):
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        public = {name for name in getattr(module, "__all__", own) if not name.startswith("_")}
        theirs = {name for name in public if getattr(module, name) is getattr(asyncio, name, None)}
        assert public - theirs - documented == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_on_the_pages_run(aiopool, child_env, program):
    if "# from Python 3.12 on" in program and sys.version_info < (3, 12):
        pytest.skip("the program needs Python 3.12")
    if "# not on Windows" in program and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    for package in re.findall(r"# (?:needs|pip install) (\w+)", program):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", UNPOOLED, "-c", program],
        env=child_env,
        capture_output=True,
        text=True,
        timeout=CHILD_LIMIT,
        check=False,
    )
    assert (done.returncode, errors_in(done.stderr)) == (0, "")
    expected = re.findall(r"# prints: (.*)", program)
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
