"""`python -m aiopool top`: with real processes where CPython supports it, and the errors where it does not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from children import CHILD_LIMIT
from shared import PROGRAMS

from aiopool import AsyncPool, BufferPool, Pool
from aiopool.__main__ import main

pytest.importorskip("psutil")
pytest.importorskip("rich")

from rich.console import Console

from aiopool._top import process as process_module
from aiopool._top.look import _stats
from aiopool._top.snapshot import Snapshot, snapshot
from aiopool._top.tables import tables


def can_look() -> bool:
    """Whether one process may run a script in another here, which a container may forbid."""
    if not hasattr(sys, "remote_exec"):
        return False
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        try:
            sys.remote_exec(other.pid, os.devnull)
        except PermissionError:
            return False
        except RuntimeError:
            pass  # it has not started yet
        finally:
            other.kill()
    return True


needs_looks = pytest.mark.skipif(not can_look(), reason="needs Python 3.14, and permission to debug other processes")

SERVICE = (PROGRAMS / "watched_service.py").read_text(encoding="utf-8")


@pytest.fixture
def env() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "120", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}


@contextmanager
def running(env: dict[str, str], program: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """Another process, after it has reported that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            yield other
        finally:
            other.kill()


def top(env: dict[str, str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "aiopool", "top", *map(str, arguments)],
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=CHILD_LIMIT,
    )


@needs_looks
class TestLooks:
    """Processes without any preparation."""

    def test_at_a_loop_that_waits(self, env: dict[str, str]) -> None:
        with running(env, SERVICE, "3") as other:
            done = top(env, other.pid, "--once", "--json")
            assert (done.returncode, done.stderr) == (0, "")
            seen = json.loads(done.stdout)
            assert other.poll() is None
        assert [each["name"] for each in seen["pools"]] == ["pool 0", "pool 1", "pool 2", "requests"]
        assert [each["created"] for each in seen["pools"]] == [1] * 4
        assert seen["pools"][3]["bytes_in_use"] == 8192
        assert [(each["id"], each["loop"], each["gets"]) for each in seen["processors"]] == [(1, "asyncio", 4)]

    def test_as_tables(self, env: dict[str, str]) -> None:
        with running(env, SERVICE, "1") as other:
            done = top(env, other.pid, "--once")
        assert (done.returncode, done.stderr) == (0, "")
        for shown in ("pool 0", "requests", "8 KiB", "processor"):
            assert shown in done.stdout
        assert "\x1b" not in done.stdout

    def test_many_pools_take_several_looks(self, env: dict[str, str]) -> None:
        with running(env, SERVICE, "500") as other, process_module.Process(other.pid) as process:
            parts = process.look()
        assert len(parts) > 1
        assert len(snapshot(other.pid, parts).pools) == 501

    def test_leaves_nothing_behind(self, env: dict[str, str]) -> None:
        with running(env, SERVICE, "1", "report") as other:
            with process_module.Process(other.pid) as process:
                process.look()
                folder = process._folder.name
            assert not os.path.exists(folder)
            out, error = other.communicate("\n", timeout=30)
        assert "look" not in out
        assert error == ""

    def test_once_a_second_until_it_ends(self, env: dict[str, str]) -> None:
        with running(env, SERVICE, "1") as other:
            command = [sys.executable, "-m", "aiopool", "top", str(other.pid), "--json"]
            with subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
            ) as watching:
                assert watching.stdout is not None
                looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
                other.kill()
                other.wait()
                _, error = watching.communicate(timeout=30)
        assert looks[1]["time"] > looks[0]["time"]
        assert (watching.returncode, error) == (1, f"aiopool top: process {other.pid} has ended\n")

    def test_at_a_process_without_aiopool(self, env: dict[str, str]) -> None:
        program = "import asyncio; print('ready', flush=True); asyncio.run(asyncio.sleep(60))"
        with running(env, program) as other:
            done = top(env, other.pid)
        assert (done.returncode, done.stderr) == (1, f"aiopool top: process {other.pid} has not imported aiopool\n")

    def test_at_a_process_that_runs_no_python_code(self, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process_module, "PATIENCE", 0.1)
        with running(env, "print('ready', flush=True); input(); print('done')") as other:
            with (
                process_module.Process(other.pid) as process,
                pytest.raises(process_module.LookError, match=r"did not answer .* runs no Python code"),
            ):
                process.look()
            # The process does not run the script later, because the script has been withdrawn.
            assert other.communicate("\n", timeout=30) == ("done\n", "")

    def test_at_a_process_that_does_not_allow_it(self, env: dict[str, str]) -> None:
        with running({**env, "PYTHON_DISABLE_REMOTE_DEBUG": "1"}, SERVICE, "1") as other:
            done = top(env, other.pid)
        assert done.returncode == 1
        assert done.stderr.startswith(f"aiopool top: process {other.pid} does not allow it: ")
        assert done.stderr.count("\n") == 1

    def test_at_a_process_that_is_not_python(self, env: dict[str, str]) -> None:
        with subprocess.Popen(["sleep", "60"]) as other:
            done = top(env, other.pid)
            other.kill()
        assert done.returncode == 1
        assert done.stderr.startswith(f"aiopool top: process {other.pid} does not run CPython 3.")

    def test_at_a_process_that_does_not_exist(self, env: dict[str, str]) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as other:
            pass
        done = top(env, other.pid)
        assert (done.returncode, done.stderr) == (1, f"aiopool top: there is no process with the PID {other.pid}\n")


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="this Python supports it")
def test_an_older_python_says_so(env: dict[str, str]) -> None:
    done = top(env, os.getpid())
    assert done.returncode == 1
    assert done.stderr.startswith("aiopool top: this is Python 3.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("pid", ["0", "-1", "self", "99999999999999", "1.5"])
def test_wrong_pid(capsys: pytest.CaptureFixture[str], pid: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", "--", pid])
    assert ended.value.code == 2
    assert f"{pid!r} is not a process id" in capsys.readouterr().err


# --- how a snapshot is shown ---


def look_at(*pools: Any, seconds: float = 0.0001) -> Snapshot:
    """A snapshot of these pools, as if they belonged to another process."""
    told = [(id(pool), type(pool).__name__, _stats(pool)) for pool in pools]
    part = {
        "pools": told,
        "left": 0,
        "implementation": "native",
        "processors": [(1, 4711, "uvloop")],
        "seconds": seconds,
    }
    return snapshot(4712, [part])


def shown(now: Snapshot, before: Snapshot | None) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(tables(now, before))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def test_a_snapshot_agrees_with_stats() -> None:
    pool, buffers = Pool(bytearray, name="one"), BufferPool(max_size=4096, name="two")
    pool.put(pool.get())
    views = [buffers.acquire(size) for size in (10, 3000, 5000)]
    rows = look_at(pool, AsyncPool(bytearray), buffers).pools
    assert [row.kind for row in rows] == ["Pool", "AsyncPool", "BufferPool"]
    assert rows[0].stats == pool.stats()
    seen, stats = rows[2].stats, buffers.stats()
    used = tuple(each for each in stats.classes if each.blocks.processors)
    assert [each.size for each in used] == [1024, 4096]
    assert seen == stats._replace(classes=used)
    assert (rows[2].gets, rows[2].created) == (3, 3)
    views.clear()
    plain = json.loads(json.dumps(look_at(pool, buffers).as_plain()))
    assert {"id": id(pool), "kind": "Pool", **pool.stats().as_dict()} == plain["pools"][0]
    assert plain["pools"][1]["bytes_in_use"] == 0


def test_another_version_of_aiopool_there_is_an_error() -> None:
    part = {"pools": [(1, "Pool", {"name": None, "made": 5})], "processors": [], "implementation": "", "seconds": 0.0}
    with pytest.raises(process_module.LookError, match=r"^process 4712 has another version of aiopool than this one: "):
        snapshot(4712, [part])


def test_rates_are_those_since_the_last_snapshot() -> None:
    pool = Pool(bytearray, max_idle=8, name="busy")
    before = look_at(pool)
    for _ in range(100):
        pool.get()
    now = look_at(pool)._replace(time=before.time + 2)
    (row,) = [line.split() for line in shown(now, before).splitlines() if line.strip().startswith("busy")]
    assert row == ["busy", "Pool", "100", "50", "0.0%", "100", "50", "0", "0", "8", "0"]
    (row,) = [line.split() for line in shown(now, None).splitlines() if line.strip().startswith("busy")]
    assert row[3] == "-"


def test_the_busiest_comes_first_and_names_are_not_markup() -> None:
    pools = [Pool(bytearray, name=f"[red]{number}") for number in range(3)]
    before = look_at(*pools)
    pools[1].get()
    text = shown(look_at(*pools)._replace(time=before.time + 1), before)
    assert text.index("[red]1") < text.index("[red]0") < text.index("[red]2")


def test_a_pool_in_two_parts_counts_once() -> None:
    pool = Pool(bytearray, name="moved")
    (row,) = look_at(pool, pool).pools
    assert row.stats.name == "moved"
