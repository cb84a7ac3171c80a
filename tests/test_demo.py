"""`python -m aiopool demo`, run as its users run it: as a process, whose output, JSON and exit code are looked at."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from aiopool.__main__ import main
from aiopool._demo.load import Message, Tally, messages
from aiopool._demo.results import METRICS, Round, compare
from aiopool._demo.wire import HEADER, digest

KINDS = ("private", "shared", "stolen", "victim")


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """What makes the demo and its load as strict as pytest makes the tests."""
    return {
        **os.environ,
        "COLUMNS": "80",
        "PYTHONDEVMODE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "error",
    }


def run(env: dict[str, str], arguments: Sequence[str], before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m aiopool` with `arguments`, in an interpreter that does `before` first."""
    program = f"import runpy, sys\n{before}\nrunpy.run_module('aiopool', run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, encoding="utf-8", timeout=60
    )


@pytest.fixture(scope="module")
def json_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "numbers.json"


@pytest.fixture(scope="module")
def done(env: dict[str, str], json_file: Path) -> subprocess.CompletedProcess[str]:
    """One run."""
    return run(env, ["demo", "--seconds", "0.2", "--size", "64K", "--json", str(json_file)])


@pytest.fixture(scope="module")
def numbers(done: subprocess.CompletedProcess[str], json_file: Path) -> Any:
    """The JSON of the same run."""
    assert done.returncode == 0, done.stderr
    return json.loads(json_file.read_text(encoding="utf-8"))


class TestOutput:
    """One run, and what it leaves behind."""

    def test_ends_well_and_without_a_warning(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0
        assert "Warning" not in done.stderr
        assert "Traceback" not in done.stderr

    def test_fits_a_terminal_and_a_log(self, done: subprocess.CompletedProcess[str]) -> None:
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in done.stdout
        assert 3 <= sum(line.startswith("round ") for line in lines) <= 6

    def test_says_what_pooling_did_by_each_metric(
        self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]
    ) -> None:
        headings = {"won": "Pooling won", "lost": "Pooling lost", "no clear difference": "No clear difference"}
        _, *verdicts = done.stdout.partition("Where the pooled buffers came from")
        paragraphs = "".join(verdicts).split("\n\n")
        for metric in METRICS:
            heading = headings[numbers["metrics"][metric.key]["pooling"]]
            (paragraph,) = [each for each in paragraphs if each.startswith(heading)]
            assert f" - {metric.name}: " in paragraph

    def test_every_answer_was_right(self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]) -> None:
        assert numbers["mismatches"] == 0
        assert f"All {numbers['messages']:,} answers match their message." in done.stdout

    def test_pooling_made_fewer_buffers(self, numbers: dict[str, Any]) -> None:
        made = numbers["metrics"]["buffers_made_per_message"]
        assert made["fresh"] == 1
        assert made["pooled"] < 1
        assert made["pooling"] == "won"

    def test_each_loop_used_the_pool(self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]) -> None:
        assert numbers["loops"] == len(numbers["processors"]) == 2
        for processor in numbers["processors"]:
            assert sum(processor[kind] for kind in KINDS) > 0
            row = [str(processor["id"]), *(f"{processor[kind]:,}" for kind in (*KINDS, "made"))]
            assert row in [line.split() for line in done.stdout.splitlines()]


def test_json_on_stdout_is_alone_there(env: dict[str, str]) -> None:
    done = run(env, ["demo", "--seconds", "0.05", "--size", "1000", "--loops", "1", "--json", "-"])
    numbers = json.loads(done.stdout)
    assert (numbers["loops"], numbers["largest_message"], numbers["seconds"]) == (1, 1000, 0.05)
    assert "Where the pooled buffers came from" in done.stderr


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("sys.modules['uvloop'] = None", id="without uvloop"),
        pytest.param(
            "import types, aiopool._demo.server as server; server.sys = types.SimpleNamespace(platform='other')",
            id="without SO_REUSEPORT",
        ),
    ],
)
def test_runs_on_other_platforms(env: dict[str, str], before: str) -> None:
    done = run(env, ["demo", "--seconds", "0.05", "--json", "-"], before)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert json.loads(done.stdout)["mismatches"] == 0


class TestWrongAnswers:
    """A demo that cannot fail shows nothing."""

    @pytest.fixture
    def message(self) -> Message:
        return Message(HEADER.pack(5), memoryview(b"hello"), digest(b"hello"))

    def test_right_answer(self, message: Message) -> None:
        tally = Tally()
        tally.check(message, digest(bytearray(b"hello")))
        assert (tally.messages, tally.mismatches) == (1, 0)

    @pytest.mark.parametrize("received", [b"hellp", b"hell", b"hello\0", b"olleh"])
    def test_wrong_answer(self, message: Message, received: bytes) -> None:
        tally = Tally()
        tally.check(message, digest(received))
        assert (tally.messages, tally.mismatches) == (1, 1)

    def test_messages_tell_each_other_apart(self) -> None:
        mixed = messages(4096)
        assert len(mixed[0].payload) == 4096
        assert all(HEADER.unpack(each.header) == (len(each.payload),) for each in mixed)
        assert len({each.answer for each in mixed}) == len(mixed)

    def test_demo_fails(self, env: dict[str, str]) -> None:
        # Where the server takes the digest too early, over a buffer that misses the last byte.
        early = (
            "import aiopool._demo.server as server; whole = server.digest; server.digest = lambda view: whole(view[1:])"
        )
        done = run(env, ["demo", "--seconds", "0.05", "--json", "-"], early)
        numbers = json.loads(done.stdout)
        assert done.returncode == 1
        assert numbers["mismatches"] == numbers["messages"] > 0
        assert "WRONG: " in done.stderr


class TestVerdict:
    """When a difference is called one."""

    @pytest.mark.parametrize(
        ("rates", "verdict"),
        [
            ([(100, 120)] * 10, "won"),
            ([(100, 80)] * 10, "lost"),
            ([(100, 120)] * 6 + [(100, 80)] * 4, "no clear difference"),
            ([(100, 120)] * 6, "no clear difference"),
            ([(1000, 1001)] * 10, "no clear difference"),
            ([(100, 100)] * 10, "no clear difference"),
        ],
        ids=["always better", "always worse", "now better, now worse", "too few rounds", "tiny", "equal"],
    )
    def test_of_messages_a_second(self, rates: list[tuple[int, int]], verdict: str) -> None:
        rounds = [[Round(messages, 0, 1.0, 1.0, 1, 1, 1) for messages in kind] for kind in zip(*rates, strict=True)]
        assert compare(METRICS[0], *rounds).verdict == verdict

    def test_less_cpu_is_better(self) -> None:
        fresh, pooled = ([Round(100, 0, 1.0, cpu, 1, 1, 1)] * 10 for cpu in (2.0, 1.0))
        comparison = compare(METRICS[1], fresh, pooled)
        assert (comparison.verdict, comparison.ratio, comparison.better) == ("won", 0.5, 10)


class TestCommandLine:
    """What is said to who asks in the wrong way."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--seconds", "0"),
            ("--seconds", "-1"),
            ("--seconds", "nan"),
            ("--seconds", "inf"),
            ("--seconds", "soon"),
            ("--size", "0"),
            ("--size", "-5"),
            ("--size", "64KB"),
            ("--size", "1.5M"),
            ("--size", "1000M"),
            ("--loops", "0"),
            ("--loops", "two"),
            ("--loops", "10000"),
            ("--json", "no/such/directory/numbers.json"),
        ],
    )
    def test_wrong_argument(self, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["demo", option, value])
        assert ended.value.code == 2
        assert f"argument {option}: {value!r} is " in capsys.readouterr().err

    def test_help_without_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: python -m aiopool ")
        assert "demo" in out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["--version"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("aiopool ")

    @pytest.mark.parametrize("module", ["rich", "psutil"])
    def test_missing_extra(self, env: dict[str, str], module: str) -> None:
        done = run(env, ["demo"], f"sys.modules[{module!r}] = None")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"aiopool demo: {module} is missing; in the checkout, run: pip install '.[demo]'\n"


class TestInterrupted:
    """Whatever ends the demo, nothing of it stays."""

    @staticmethod
    @contextlib.contextmanager
    def running(env: dict[str, str], **options: Any) -> "Iterator[subprocess.Popen[str]]":
        """The demo, when it is under way."""
        with subprocess.Popen(
            [sys.executable, "-m", "aiopool", "demo", "--seconds", "60", "--size", "64K"],
            env={**env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            **options,
        ) as demo:
            try:
                assert demo.stdout is not None
                assert demo.stdout.readline().startswith("A TCP server ")
                yield demo
            finally:
                demo.kill()

    @staticmethod
    def load_of(demo: "subprocess.Popen[str]") -> psutil.Process:
        """The load process, which may have yet to start."""
        while not (children := psutil.Process(demo.pid).children()):
            assert demo.poll() is None
        return children[0]

    @pytest.fixture
    def listening_to_ctrl_c(self) -> Iterator[None]:
        """A shell starts what runs in the background deaf to it, and children inherit that."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
    def test_by_ctrl_c(self, env: dict[str, str], listening_to_ctrl_c: None) -> None:
        assert sys.platform != "win32"
        with self.running(env, process_group=0) as demo:
            load = self.load_of(demo)
            # As a terminal does it: to the whole process group.
            os.killpg(demo.pid, signal.SIGINT)
            _, error = demo.communicate(timeout=30)
        assert (demo.returncode, error) == (130, "aiopool demo: interrupted\n")
        assert not load.is_running()

    def test_by_the_end_of_the_load(self, env: dict[str, str]) -> None:
        with self.running(env) as demo:
            self.load_of(demo).kill()
            _, error = demo.communicate(timeout=30)
        assert demo.returncode == 1
        assert error.startswith("aiopool demo: the load ended with exit code ")

    def test_by_its_own_sudden_end(self, env: dict[str, str]) -> None:
        with self.running(env) as demo:
            self.load_of(demo)
            demo.kill()
            # The end of the output comes when the load, which shares it, has ended too.
            _, error = demo.communicate(timeout=30)
        assert "Traceback" not in error
