"""The C extension and the Python implementation have the same interface, and one place chooses between them."""

import inspect
import os
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from children import CHILD_LIMIT

POOLS = ("Pool", "BufferPool", "AsyncPool")


def public_callables(package):
    """The functions and methods that users of `package` call, by their qualified names."""
    found = {}
    for name in package.__all__:
        public = getattr(package, name)
        if callable(public):
            found[name] = public
        if name in POOLS:
            for member in dir(public):
                if not member.startswith("_") and callable(getattr(public, member)):
                    found[f"{name}.{member}"] = getattr(public, member)
    return found


def bare_signature(public):
    """Names, kinds and defaults of the parameters; C methods have no annotations."""
    parameters = inspect.signature(public).parameters.values()
    return [each.replace(annotation=inspect.Parameter.empty) for each in parameters]


def test_both_have_the_same_signatures_and_docstrings(aiopool, reference):
    ours, theirs = public_callables(aiopool), public_callables(reference)
    assert list(ours) == list(theirs)
    assert {"Pool.get", "Pool.put", "Pool.borrow", "BufferPool.acquire", "AsyncPool.get"} <= set(ours)
    for name, public in ours.items():
        assert public.__doc__ == theirs[name].__doc__, name
        assert public.__doc__, name
        if name not in ("Borrow", "AsyncBorrow"):  # which are created by `borrow` alone
            assert bare_signature(public) == bare_signature(theirs[name]), name
    for name in ("get", "put", "borrow"):
        bound, unbound = getattr(aiopool.Pool(), name), getattr(aiopool.Pool, name)
        assert bare_signature(bound) == bare_signature(unbound)[1:]


def test_help_shows_the_whole_docstring(aiopool):
    import pydoc

    text = pydoc.render_doc(aiopool.Pool.put, renderer=pydoc.plaintext)
    assert "put(self, obj" in text
    assert "Return `obj` to the pool, for a later get." in text
    assert ":raises ValueError:" in text


@pytest.mark.parametrize(
    "call",
    [
        lambda package: package.Pool().put(obj=5),
        lambda package: package.Pool(list).fill(n=5),
        lambda package: package.Pool().get(1),
        lambda package: package.Pool().get(default=1),
        lambda package: package.Pool().put(),
        lambda package: package.Pool().put(1, 2),
        lambda package: package.Pool().borrow(1),
        lambda package: package.BufferPool().acquire(n=5),
        lambda package: package.BufferPool().acquire(),
        lambda package: package.BufferPool().acquire(5, 5),
    ],
)
def test_arguments_are_positional_in_both(aiopool, call):
    with pytest.raises(TypeError):
        call(aiopool)


# --- which one is used ---


def run(program, env, **variables):
    """Run `program` in a separate interpreter, and return how it ended."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**env, **variables},
        capture_output=True,
        text=True,
        timeout=CHILD_LIMIT,
        check=False,
    )


def test_the_c_extension_can_be_required(aiopool, child_env):
    done = run("import aiopool; print(aiopool.implementation)", child_env, AIOPOOL_REQUIRE_NATIVE="1")
    if aiopool.implementation == "native":
        assert (done.returncode, done.stdout, done.stderr) == (0, "native\n", "")
    else:
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ImportError: AIOPOOL_REQUIRE_NATIVE is set, but the C extension of aiopool cannot be")
        assert "AIOPOOL_NO_EXTENSIONS is set" in last


def test_tools_that_freeze_programs_find_the_c_extension(aiopool, tmp_path):
    """PyInstaller and similar tools follow import statements, but do not run the code."""
    if aiopool.implementation == "python":
        pytest.skip("there is no extension to find")
    script = tmp_path / "program.py"
    script.write_text("import aiopool\n", encoding="utf-8")
    finder = ModuleFinder([str(Path(aiopool.__file__).parents[1])])  # other imports of ours need not be found
    finder.run_script(str(script))
    assert "aiopool._native._extension" in finder.modules
    assert finder.modules["aiopool._native._extension"].__file__ == aiopool._native.native.__file__
    assert os.path.samefile(finder.modules["aiopool"].__file__, aiopool.__file__)
