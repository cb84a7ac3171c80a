"""`python -m aiopool demo`, run as users run it: as a process whose output, JSON and exit code are checked."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from children import CHILD_LIMIT

from aiopool import BufferPool
from aiopool.__main__ import main
from aiopool._demo import report
from aiopool._demo.load import Counts, Message, messages
from aiopool._demo.results import METRICS, Round, compare
from aiopool._demo.server import Server
from aiopool._demo.wire import DIGEST, HEADER, KINDS, Kind, digest

HITS = ("private", "shared", "stolen", "victim")


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """The environment that makes warnings errors in the demo and its load, as pytest does in the tests."""
    return {
        **os.environ,
        "COLUMNS": "80",
        "PYTHONDEVMODE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "error",
    }


def run(env: dict[str, str], arguments: Sequence[str], before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m aiopool` with `arguments`, in an interpreter that runs `before` first."""
    program = f"import runpy, sys\n{before}\nrunpy.run_module('aiopool', run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, encoding="utf-8", timeout=CHILD_LIMIT
    )


@pytest.fixture(scope="module")
def json_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "numbers.json"


@pytest.fixture(scope="module")
def done(env: dict[str, str], aiopool: ModuleType, json_file: Path) -> subprocess.CompletedProcess[str]:
    """One run, with each implementation."""
    env = {**env, "AIOPOOL_NO_EXTENSIONS": "1" if aiopool.implementation == "python" else ""}
    return run(env, ["demo", "--seconds", "0.2", "--size", "64K", "--json", str(json_file)])


@pytest.fixture(scope="module")
def numbers(done: subprocess.CompletedProcess[str], json_file: Path) -> Any:
    """The JSON of the same run."""
    assert done.returncode == 0, done.stderr
    return json.loads(json_file.read_text(encoding="utf-8"))


class TestOutput:
    """The output of one run."""

    def test_ends_well_and_without_a_warning(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0
        assert "Warning" not in done.stderr
        assert "Traceback" not in done.stderr

    def test_fits_a_terminal_and_a_log(self, done: subprocess.CompletedProcess[str]) -> None:
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in done.stdout
        assert 3 <= sum(line.startswith("round ") for line in lines) <= 6

    def test_says_how_aiopool_did_by_each_metric(
        self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]
    ) -> None:
        headings = {"won": "aiopool won", "lost": "aiopool lost", "no clear difference": "No clear difference"}
        _, *verdicts = done.stdout.partition("What the buffer pool did")
        paragraphs = "".join(verdicts).split("\n\n")
        for metric in METRICS:
            heading = headings[numbers["metrics"][metric.key]["aiopool_verdict"]]
            (paragraph,) = [each for each in paragraphs if each.startswith(heading)]
            assert f" - {metric.name}: " in paragraph

    def test_every_answer_was_right(self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]) -> None:
        assert numbers["mismatches"] == 0
        assert f"All {numbers['messages']:,} answers match their message." in done.stdout

    def test_buffers_were_reused(self, aiopool: ModuleType, numbers: dict[str, Any]) -> None:
        buffers = numbers["buffers"]
        assert numbers["implementation"] == aiopool.implementation
        assert buffers["served"] == sum(each["served"] for each in buffers["classes"]) > 0
        assert buffers["created"] == sum(each["created"] for each in buffers["classes"])
        if used_again(aiopool):
            assert buffers["hit_rate"] == 1 - buffers["created"] / buffers["served"] > 0
        else:
            assert (buffers["hit_rate"], buffers["created"]) == (0, buffers["served"])

    def test_says_if_buffers_were_not_reused(self, aiopool: ModuleType, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stdout.count("Buffers are not reused") == (not used_again(aiopool))

    def test_shows_each_size_class(self, done: subprocess.CompletedProcess[str], numbers: dict[str, Any]) -> None:
        rows = [line.split() for line in done.stdout.splitlines()]
        for each in numbers["buffers"]["classes"]:
            row = [f"{each['size'] // 1024}", "KiB", f"{each['served']:,}", f"{each['created']:,}"]
            assert [*row, f"{each['hit_rate']:.1%}", f"{each['waste']:.0%}"] in rows

    def test_each_loop_used_the_pool(self, numbers: dict[str, Any]) -> None:
        processors = numbers["buffers"]["processors"]
        assert numbers["loops"] == len(processors) == 2
        for processor in processors:
            assert sum(processor[kind] for kind in (*HITS, "created")) > 0


def used_again(aiopool: ModuleType) -> bool:
    """Whether this implementation reuses buffers."""
    return aiopool.implementation == "native" or sys.version_info >= (3, 12)


def test_json_on_stdout_is_alone_there(env: dict[str, str]) -> None:
    done = run(env, ["demo", "--seconds", "0.05", "--size", "1000", "--loops", "1", "--json", "-"])
    numbers = json.loads(done.stdout)
    assert (numbers["loops"], numbers["largest_message"], numbers["seconds"]) == (1, 1000, 0.05)
    assert "What the buffer pool did" in done.stderr


def test_runs_without_uvloop(env: dict[str, str]) -> None:
    done = run(env, ["demo", "--seconds", "0.05", "--json", "-"], "sys.modules['uvloop'] = None")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    numbers = json.loads(done.stdout)
    assert (numbers["loop"], numbers["mismatches"]) == ("asyncio", 0)


class TestServer:
    """The two servers that are compared, which differ only in their streams."""

    @pytest.fixture
    def buffers(self) -> BufferPool:
        buffers = BufferPool()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that 3.11 needs the compiled part is said at the first use, and only there
            buffers.acquire(1)
        return buffers

    @pytest.fixture
    def server(self, buffers: BufferPool) -> Iterator[Server]:
        with Server(2, 1000, buffers) as server:
            yield server

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_one_kind_uses_the_pool(self, server: Server, buffers: BufferPool, kind: Kind) -> None:
        for port in server.ports(kind):
            served = buffers.stats().served
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(HEADER.pack(5) + b"hello")
                assert client.recv(100) == digest(b"hello")
            assert (buffers.stats().served > served) == (kind == "aiopool")

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [0, 1001, 2**32 - 1])
    def test_a_size_beyond_the_agreed_one_is_rejected(self, server: Server, kind: Kind, size: int) -> None:
        with socket.create_connection(("127.0.0.1", server.ports(kind)[0]), timeout=30) as client:
            client.sendall(HEADER.pack(1000) + bytes(1000))
            assert client.recv(100) == digest(bytes(1000))
            client.sendall(HEADER.pack(size))
            assert client.recv(DIGEST.size) == b""

    @pytest.mark.parametrize("kind", KINDS)
    def test_ends_in_the_middle_of_a_message(self, buffers: BufferPool, kind: Kind) -> None:
        with Server(1, 1000, buffers) as server:
            client = socket.create_connection(("127.0.0.1", server.ports(kind)[0]), timeout=30)
            client.sendall(HEADER.pack(5) + b"hello" + HEADER.pack(5) + b"hel")
            assert client.recv(100) == digest(b"hello")
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


class TestWrongAnswers:
    """The demo fails if an answer is wrong."""

    @pytest.fixture
    def message(self) -> Message:
        return Message(HEADER.pack(5), memoryview(b"hello"), digest(b"hello"))

    def test_right_answer(self, message: Message) -> None:
        counts = Counts()
        counts.check(message, digest(bytearray(b"hello")))
        assert (counts.messages, counts.mismatches) == (1, 0)

    @pytest.mark.parametrize("received", [b"hellp", b"hell", b"hello\0", b"olleh"])
    def test_wrong_answer(self, message: Message, received: bytes) -> None:
        counts = Counts()
        counts.check(message, digest(received))
        assert (counts.messages, counts.mismatches) == (1, 1)

    def test_messages_tell_each_other_apart(self) -> None:
        mixed = messages(4096)
        assert len(mixed[0].payload) == 4096
        assert all(HEADER.unpack(each.header) == (len(each.payload),) for each in mixed)
        assert len({each.answer for each in mixed}) == len(mixed)

    def test_demo_fails(self, env: dict[str, str]) -> None:
        # If the server computes the digest too early, the last byte is missing in its buffer.
        early = (
            "import aiopool._demo.server as server; whole = server.digest; server.digest = lambda view: whole(view[1:])"
        )
        done = run(env, ["demo", "--seconds", "0.05", "--json", "-"], early)
        numbers = json.loads(done.stdout)
        assert done.returncode == 1
        assert numbers["mismatches"] == numbers["messages"] > 0
        assert "WRONG: " in done.stderr


class TestVerdict:
    """When a difference is clear."""

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
        rounds = [[Round(messages, 0, 1.0, 1.0, 1, 1) for messages in kind] for kind in zip(*rates, strict=True)]
        assert compare(METRICS[0], *rounds).verdict == verdict

    def test_no_clear_difference_claims_none(self) -> None:
        rates = [(100, 160)] * 6 + [(100, 90)] * 4
        rounds = [[Round(messages, 0, 1.0, 1.0, 1, 1) for messages in kind] for kind in zip(*rates, strict=True)]
        comparison = compare(METRICS[0], *rounds)
        assert comparison.verdict == "no clear difference"
        sentence = report._sentence(comparison, 10)
        assert sentence == "messages/s: 160 against 100 in the median; better in 6 of 10 rounds, worse in 4"

    def test_less_cpu_is_better(self) -> None:
        asyncio, aiopool = ([Round(100, 0, 1.0, cpu, 1, 1)] * 10 for cpu in (2.0, 1.0))
        comparison = compare(METRICS[1], asyncio, aiopool)
        assert (comparison.verdict, comparison.ratio, comparison.better) == ("won", 0.5, 10)


class TestCommandLine:
    """The answers to wrong arguments."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--seconds", "0"),
            ("--seconds", "-1"),
            ("--seconds", "nan"),
            ("--seconds", "inf"),
            ("--seconds", "1e9"),
            ("--seconds", "soon"),
            ("--size", "0"),
            ("--size", "-5"),
            ("--size", "64KB"),
            ("--size", "1.5M"),
            ("--size", "1000M"),
            ("--size", "10G"),
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

    @pytest.mark.parametrize(
        ("option", "value"), [("--size", "10G"), ("--size", "0"), ("--seconds", "1e9"), ("--loops", "0")]
    )
    def test_out_of_range_is_not_reported_as_not_a_number(
        self, capsys: pytest.CaptureFixture[str], option: str, value: str
    ) -> None:
        with pytest.raises(SystemExit):
            main(["demo", option, value])
        assert "is out of range" in capsys.readouterr().err

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
        assert done.stderr == (f"aiopool demo: {module} is not installed; in a checkout, run: pip install '.[demo]'\n")


class TestInterrupted:
    """However the demo is ended, no process of it remains."""

    @staticmethod
    @contextlib.contextmanager
    def running(env: dict[str, str], seconds: str = "60", **options: Any) -> "Iterator[subprocess.Popen[str]]":
        """The running demo."""
        with subprocess.Popen(
            [sys.executable, "-m", "aiopool", "demo", "--seconds", seconds, "--size", "64K"],
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
        """The load process, which may not have started yet."""
        while not (children := psutil.Process(demo.pid).children()):
            assert demo.poll() is None
        return children[0]

    @staticmethod
    def own_lines(error: str) -> list[str]:
        """The lines that are not asyncio's, whose debug mode reports slow callbacks on a busy machine."""
        return [line for line in error.splitlines() if not line.startswith("Executing <")]

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
    def test_by_ctrl_c(self, env: dict[str, str], listening_to_ctrl_c: None) -> None:
        assert sys.platform != "win32"
        with self.running(env, process_group=0) as demo:
            load = self.load_of(demo)
            # To the whole process group, as a terminal does.
            os.killpg(demo.pid, signal.SIGINT)
            _, error = demo.communicate(timeout=30)
        assert (demo.returncode, self.own_lines(error)) == (130, ["aiopool demo: interrupted"])
        assert not load.is_running()

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to consoles, not to processes")
    def test_ctrl_c_never_ends_the_load(self, env: dict[str, str], listening_to_ctrl_c: None) -> None:
        """Not even at its very start; else the demo could report it as failed before it is interrupted itself."""
        with self.running(env, seconds="0.1") as demo:
            self.load_of(demo).send_signal(signal.SIGINT)
            _, error = demo.communicate(timeout=30)
        assert (demo.returncode, self.own_lines(error)) == (0, [])

    def test_by_the_end_of_the_load(self, env: dict[str, str]) -> None:
        with self.running(env) as demo:
            self.load_of(demo).kill()
            _, error = demo.communicate(timeout=30)
        assert demo.returncode == 1
        assert self.own_lines(error)[0].startswith("aiopool demo: the load process ended with exit code ")

    def test_by_its_own_sudden_end(self, env: dict[str, str]) -> None:
        with self.running(env) as demo:
            self.load_of(demo)
            demo.kill()
            # The output ends only when the load, which shares it, has ended too.
            _, error = demo.communicate(timeout=30)
        assert "Traceback" not in error
