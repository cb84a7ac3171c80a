"""`python -m aiopool advise`, run as users run it; and its verdicts for all possible measurements."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from children import CHILD_LIMIT

from aiopool.__main__ import main
from aiopool._advise.results import Case, Measured, Results, bytes_text, seconds_text, verdict
from aiopool._advise.user_code import UserCode, UserCodeError

ZSTD = ["zstandard.ZstdCompressor()", "--import", "zstandard", "--use", "obj.compress(bytes(1000))"]
ARRAY = ["np.empty(64 << 20, np.uint8)", "--import", "numpy as np"]


@pytest.fixture
def env() -> dict[str, str]:
    """The environment for tests of what is the same in both implementations."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def advise(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command for a short time, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "aiopool", "advise", *arguments, "--seconds", "0.4"],
        env={**env, "COLUMNS": "100", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=CHILD_LIMIT,
    )


def verdict_of(done: "subprocess.CompletedProcess[str]") -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [ZSTD, ARRAY], ids=["zstd compressor", "64 MiB array"])
def test_objects_that_are_worth_pooling(child_env: dict[str, str], arguments: list[str]) -> None:
    pytest.importorskip("zstandard")
    assert verdict_of(advise(child_env, *arguments)).startswith("Pool it")


def test_a_buffer_is_worth_pooling_with_the_c_extension(aiopool: ModuleType, child_env: dict[str, str]) -> None:
    if aiopool.implementation == "python":
        pytest.skip("in Python it depends on the machine")
    assert verdict_of(advise(child_env, "bytearray(65536)")).startswith("Pool it")


@pytest.mark.parametrize("reset", ["", "obj.clear()"])
def test_a_dict_is_not_worth_pooling(child_env: dict[str, str], reset: str) -> None:
    assert verdict_of(advise(child_env, "dict()", "--reset", reset)).startswith("Do not pool it")


def test_output_shows_progress_and_fits_a_log(env: dict[str, str]) -> None:
    done = advise(env, "bytearray(65536)", "--reset", "obj.clear(); obj.extend(bytes(65536))")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("measuring with ")
    assert "bytearray(65536)" in lines
    assert "The reset takes " in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, lines[:-1])) <= 100


def test_few_slow_and_large_objects_are_in_flight(env: dict[str, str]) -> None:
    done = advise(env, "time.sleep(0.02) or object()", "--import", "time")
    assert verdict_of(done).startswith("Pool it")
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ") and "ms" in line]
    assert rows[:2] == ["1", "2"]


def test_output_of_the_users_code_is_kept_out_of_the_answers(env: dict[str, str]) -> None:
    done = advise(env, "print('{}') or bytearray(10)")
    assert done.returncode == 0
    assert "{}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reset_is_measured_with_its_call(env: dict[str, str]) -> None:
    done = advise(env, "dict()", "--reset", "obj.clear()")
    assert "Without --use, objects are only created and dropped" in done.stdout
    (nanoseconds,) = re.findall(r"The reset takes (\d+) ns of that", done.stdout)
    assert int(nanoseconds) > 0


def test_a_use_may_change_the_object_in_place(env: dict[str, str]) -> None:
    done = advise(env, "bytearray()", "--use", "obj += b'12'", "--reset", "del obj[:]")
    assert (done.returncode, done.stderr) == (0, "")


def test_plot(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "times.svg"
    done = advise(env, "bytearray(1 << 16)", "--plot", str(file))
    root = ElementTree.parse(file).getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "bytearray(1 << 16)"
    pairs = sum("fresh ÷ pooled" in (text or "") for text in texts)
    assert pairs == (4 if "tuned" in done.stdout else 2)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 2 * pairs + 1


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["zstandrd.Compressor()"], ["zstandrd.Compressor()", "NameError: name 'zstandrd' is not defined"]),
        (["1 +"], ["1 +", "SyntaxError: invalid syntax"]),
        (["dict()", "--import", "no_such_module"], ["import no_such_module", "ModuleNotFoundError: No module named"]),
        (["dict()", "--use", "return 1"], ["return 1", "SyntaxError: 'return' outside function"]),
        (["await connect()"], ["await connect()", "SyntaxError: 'await' outside function"]),
        (["   "], ["the expression is empty: say what creates an object"]),
        (["dict()", "--use", "del obj"], ["--use assigns or deletes `obj`, which goes back to the pool"]),
        (["dict()", "--reset", "for obj in (): pass"], ["--reset assigns or deletes `obj`"]),
        (["logging.getLogger()", "--import", "logging"], ["the expression returns the same object each time"]),
        (["bytes(100)"], ["the expression returns bytes, which cannot be changed"]),
        (["dict()", "--use", "obj.no()"], ["obj.no()", "AttributeError: 'dict' object has no attribute 'no'"]),
        (["dict()", "--reset", "obj.no()"], ["obj.no()", "AttributeError: 'dict' object has no attribute 'no'"]),
        (["sys.exit(3)", "--import", "sys"], ["sys.exit(3)", "SystemExit: 3"]),
        (["dict()", "--reset", "False"], ["--reset returns False"]),
        (["None"], ["the expression returns None"]),
        (["asyncio.sleep(1)", "--import", "asyncio"], ["the expression returns an awaitable"]),
    ],
    ids=lambda value: None,
)
def test_errors_show_the_users_line_and_not_our_traceback(
    env: dict[str, str], arguments: list[str], shown: list[str]
) -> None:
    done = advise(env, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("aiopool advise:")
    for each in shown:
        assert each in done.stderr
    assert "_advise" not in done.stderr


def test_code_that_ends_the_process_is_reported(env: dict[str, str]) -> None:
    done = advise(env, "os._exit(7)", "--import", "os")
    assert (done.returncode, done.stderr) == (
        1,
        "aiopool advise: the measuring process ended with exit code 7\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
def test_ctrl_c_does_not_end_the_measuring_process(env: dict[str, str], listening_to_ctrl_c: None) -> None:
    """A terminal sends it to both processes, and the command ends the other one."""
    to_itself = "os.kill(os.getpid(), signal.SIGINT) or [1]"
    verdict_of(advise(env, to_itself, "--import", "os", "--import", "signal"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seconds", "0"), ("--seconds", "soon"), ("--plot", "no/such/directory/times.svg")],
)
def test_wrong_argument(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["advise", "dict()", option, value])
    assert ended.value.code == 2
    assert f"argument {option}: {value!r} is " in capsys.readouterr().err


@pytest.mark.parametrize("module", ["rich", "psutil"])
def test_missing_extra(env: dict[str, str], module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    path = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    done = advise({**env, "PYTHONPATH": path}, "dict()")
    if module == "rich":
        assert done.stderr == "aiopool advise: rich is not installed; in a checkout, run: pip install '.[advise]'\n"
    assert done.returncode == 1


def test_syntax_is_checked_before_anything_starts() -> None:
    with pytest.raises(UserCodeError, match="SyntaxError"):
        UserCode("dict()", ["os"], "", "obj.").check()


# --- the verdict ---


def case(fresh: float, pooled: float, in_flight: int = 1) -> Case:
    return Case(in_flight, fresh, pooled)


def results(one: Case, many: Case, tuned: tuple[Case, Case] | None = None, reset: float = 0) -> Results:
    measured = Measured(one, many, reset, 0, touched=False)
    other = None if tuned is None else Measured(*tuned, reset, 0, touched=False)
    return Results("thing()", "glibc 2.36", measured, other, {"MALLOC_TRIM_THRESHOLD_": "1"} if tuned else {})


CHEAP, EXPENSIVE = case(1e-6, 1e-6), case(10e-6, 1e-6)


@pytest.mark.parametrize(
    ("measured", "start"),
    [
        (
            results(EXPENSIVE, EXPENSIVE),
            "Pool it: a fresh object costs 10 µs, 10 times as much as a pooled one (1 µs).",
        ),
        (results(EXPENSIVE, EXPENSIVE, (EXPENSIVE, CHEAP)), "Pool it: "),
        (results(EXPENSIVE, EXPENSIVE, (CHEAP, CHEAP)), "Tune the allocator instead of pooling it: with MALLOC_TRIM"),
        (results(CHEAP, EXPENSIVE, (CHEAP, CHEAP)), "Tune the allocator instead of pooling it: with MALLOC_TRIM"),
        # Pooling only just pays off, and the allocator does not matter.
        (results(case(130e-9, 29e-9), CHEAP, (case(125e-9, 29e-9), CHEAP)), "Do not pool it: "),
        (results(CHEAP, EXPENSIVE), "Pool it where many are in flight at once"),
        (results(EXPENSIVE, CHEAP), "Pool it where few are in flight at once"),
        (results(CHEAP, CHEAP), "Do not pool it: "),
        (results(CHEAP, CHEAP, (EXPENSIVE, EXPENSIVE)), "Do not pool it: "),
        (results(CHEAP, CHEAP, reset=0.9e-6), "Do not pool it: a fresh object costs 1 µs, a pooled one 1 µs, of which"),
        (
            results(case(90e-9, 30e-9), case(90e-9, 30e-9)),
            "Do not pool it: a fresh object costs 90 ns, a pooled one 30 ns: a pool saves too little to matter.",
        ),
        (results(case(1.1e-3, 1e-3), case(1.1e-3, 1e-3)), "Do not pool it: "),
    ],
)
def test_verdict(measured: Results, start: str) -> None:
    assert verdict(measured).startswith(start)
    assert verdict(measured).count(". ") == 0
    assert verdict(measured).endswith(".")


def test_results_can_be_sent_between_processes() -> None:
    measured = Measured(CHEAP, EXPENSIVE, 1e-6, 100, touched=True)
    assert Measured.from_plain(measured.as_plain()) == measured


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ns"), (3.14e-8, "31 ns"), (1.5e-6, "1.5 µs"), (0.0123, "12.3 ms"), (0.99996, "1000 ms"), (2, "2 s")],
)
def test_seconds_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1536, "1.5 KiB"), (2**26, "64 MiB"), (2**31, "2 GiB"), (2**20 - 1, "1024 KiB")]
)
def test_bytes_text(count: int, text: str) -> None:
    assert bytes_text(count) == text
