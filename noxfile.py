"""The one way to run things: `nox` lists and runs the sessions, and the CI runs the same ones.

Each session creates a virtual environment of its own. `nox -s tests -- tests/core -x` passes arguments on.
"""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "types", "tests", "docs"]

SITE = Path("build/site")

FRAMEWORKS = "test,test-distributed,test-uvicorn"
"""The extras that the tests of integrations need: whole frameworks."""

BENCHMARKS = [
    *("get_put", "scaling", "streams", "connections", "buffers", "cleanup", "resident", "hit_rate", "fixtures"),
    *("fresh_blocks", "debug"),
]

MUTATION = """
[cosmic-ray]
module-path = "{module}"
timeout = 1800.0 # seconds; a mutant that times out counts as killed, so this is more than all tests take
excluded-modules = []
test-command = "python -m pytest -xq -p no:cacheprovider --timeout 120 {tests}"
distributor.name = "local"
filters.operators-filter.exclude-operators = [
  "core/Remove.*", # decorators choose the implementation
  "core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul).*", # annotations too are binary operators
  "core/ReplaceUnaryOperator_(?!USub_UAdd|Delete_Not).*",
]
"""
"""The settings of cosmic-ray: the module to change, the tests that should notice, and the changes to leave out."""

C_LINES = 86
"""Percent of the lines in C that tests must reach. Half of the tests, as in the CI, reach 88. The rest are error paths,
mostly of failing allocations. The floor for Python is in pyproject.toml."""


def install(session: nox.Session, extra: str, **env: str) -> None:
    """Install the project with an extra, from its sources; the C extension must build."""
    session.install("-e", f".[{extra}]", env={"AIOPOOL_REQUIRE_NATIVE": "1", **env})


def enter_copy(session: nox.Session) -> None:
    """Work in a copy of the checkout, without a C extension."""
    copy = Path(session.create_tmp(), "checkout")
    session.env.pop("TMPDIR", None)  # `create_tmp` sets it, and the paths of Unix sockets there may be too long
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(".", copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so"))
    session.chdir(copy)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, over both implementations."""
    install(session, "test", CFLAGS="-O3 -Wall -Wextra -Werror")
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def integrations(session: nox.Session) -> None:
    """The tests with uvicorn, Dask and other frameworks, and of the examples and documentation, which use them too."""
    install(session, FRAMEWORKS)
    paths = ["tests/integrations", "tests/test_examples.py", "tests/test_docs.py"]
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto", *paths]))


@nox.session
def parallel(session: nox.Session) -> None:
    """The tests of pools, buffers and streams, each in eight threads at once: for a free-threaded Python."""
    install(session, "test", CFLAGS="-O3 -Wall -Wextra -Werror")
    session.install("pytest-run-parallel>=0.10")
    options = ["--parallel-threads=8", "--skip-thread-unsafe=True", "-rfE"]
    session.run("python", "-m", "pytest", *options, *(session.posargs or ["@tests/parallel.txt"]))


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines of the Python code and of the C code no test reaches; fails below the floors. Takes twice as long."""
    enter_copy(session)  # because the extension that counts lines must not stay beside the sources
    session.install("-e", f".[{FRAMEWORKS}]", "coverage>=7.10", "gcovr", env={"AIOPOOL_NO_EXTENSIONS": "1"})
    session.run(
        *("python", "setup.py", "-q", "build_ext", "--inplace"),
        env={"CFLAGS": "-O0 -g --coverage", "LDFLAGS": "--coverage", "AIOPOOL_REQUIRE_NATIVE": "1"},
    )
    # Counting allocates, so the tests that let each allocation fail are left out, and lines that only they reach count
    # as not reached. In a second interpreter coverage warns, because its module in C does not support that.
    left_out = "not allocation and not interpreter"
    session.run("coverage", "run", "-m", "pytest", "-k", left_out, *(session.posargs or ["-n", "auto"]))
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")
    session.run("gcovr", "--root", ".", "--filter", "aiopool/_native/", f"--fail-under-line={C_LINES}")


@nox.session
def mutation(session: nox.Session) -> None:
    """Which small changes of modules no test notices: `nox -s mutation -- aiopool/_core/store.py`. Takes hours."""
    modules = session.posargs or sorted(map(str, Path("aiopool/_core").glob("[!_]*.py")))
    enter_copy(session)
    session.install("-e", ".[test]", "cosmic-ray>=8.7", env={"AIOPOOL_NO_EXTENSIONS": "1"})
    for module in modules:
        name = Path(module).stem
        first = [str(path) for path in Path("tests").rglob(f"test_{name}*.py")]  # because most mutants fail there
        tests = " ".join([*first, *(["tests/core", "@tests/parallel.txt"] if "_core" in module else ["tests/streams"])])
        Path("mutation.toml").write_text(MUTATION.format(module=module, tests=tests))
        session.run("cosmic-ray", "init", "mutation.toml", "mutation.sqlite")
        session.run("cr-filter-operators", "mutation.sqlite", "mutation.toml")
        session.run("cosmic-ray", "exec", "mutation.toml", "mutation.sqlite")
        session.run("cr-report", "--surviving-only", "--show-diff", "mutation.sqlite")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes; `nox -s lint -- --fix` corrects what it can."""
    session.install("ruff==0.17.*")
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if session.posargs else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, by two checkers."""
    install(session, "dev")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in build/site: warnings are errors, and no link or anchor may be dead."""
    install(session, "docs")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "-b", "html", "docs", str(SITE))
    session.run("python", "tools/check_site.py", str(SITE))


@nox.session
def benchmarks(session: nox.Session) -> None:
    """All benchmarks, or those named, with their figures in benchmarks/results; then the charts drawn from them."""
    install(session, "bench,docs,test")
    results = Path("benchmarks/results")
    results.mkdir(exist_ok=True)
    for name in session.posargs or BENCHMARKS:
        session.run("python", f"benchmarks/{name}.py", "--json", str(results / f"{name}.json"))
    session.run("python", "docs/charts.py")


@nox.session(python=False)
def sanitizers(session: nox.Session) -> None:
    """The C extension, as last committed, under a sanitizer; `-- thread` for ThreadSanitizer."""
    session.run("tools/sanitize", *(session.posargs or ["address"]), external=True)


@nox.session
def package(session: nox.Session) -> None:
    """The sdist and a wheel in dist/, checked as the index would check them."""
    session.install("build", "check-wheel-contents", "twine>=6")
    session.run("python", "-m", "build", env={"AIOPOOL_REQUIRE_NATIVE": "1"})
    built = sorted(str(path) for path in Path("dist").glob("aiosyncpool-*") if path.suffix in (".gz", ".whl"))
    session.run("twine", "check", "--strict", *built)
    session.run("check-wheel-contents", *[name for name in built if name.endswith(".whl")])
