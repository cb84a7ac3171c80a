"""Memory pressure, as reported by the kernel: with fake files, and once in a real control group."""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import pytest
from children import run_program
from loops import PATIENCE, in_thread
from shared import MIB, Thing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports it")


class Machine:
    """Fake files of a machine's kernel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/self/cgroup", "0::/pod/app\n")

    def write(self, name: str, text: object) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def group(
        self, path: str, used: int, limit: "int | str" = "max", high: "int | str" = "max", cache: int = 0
    ) -> None:
        """A control group of the unified kind. Sizes are in MiB."""
        for name, size in (("current", used), ("max", limit), ("high", high)):
            self.write(f"sys/fs/cgroup/{path}/memory.{name}", size if size == "max" else int(size) * MIB)
        self.write(f"sys/fs/cgroup/{path}/memory.stat", f"anon 1\ninactive_file {cache * MIB}\nactive_file 5")

    def legacy_group(self, path: str, used: int, limit: int, cache: int = 0) -> None:
        """A control group of the legacy kind. Sizes are in MiB."""
        for name, size in (("usage", used), ("limit", limit)):
            self.write(f"sys/fs/cgroup/memory/{path}/memory.{name}_in_bytes", size * MIB)
        self.write(f"sys/fs/cgroup/memory/{path}/memory.stat", f"inactive_file 7\ntotal_inactive_file {cache * MIB}")

    def stalled(self, seconds: float, file: str = "proc/pressure/memory") -> None:
        """Report that some task has stalled for `seconds` since the start."""
        total = round(seconds * 1e6)
        self.write(
            file,
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0",
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(aiopool, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(aiopool._core.pressure, "monotonic", clock)
    return clock


@pytest.fixture
def pressure(aiopool, machine: Machine, clock: Clock):
    return aiopool._core.pressure.MemoryPressure(str(machine.root))


# --- the kernel's reports ---


@pytest.mark.parametrize(
    ("group", "felt"),
    [
        ({"used": 91, "limit": 100}, True),
        ({"used": 89, "limit": 100}, False),
        ({"used": 91, "limit": "max"}, False),
        ({"used": 91, "limit": 200, "high": 100}, True),
        ({"used": 99, "limit": 100, "cache": 50}, False),
        ({"used": 99, "limit": 100, "cache": 5}, True),
    ],
)
def test_memory_is_short_when_the_working_set_is_near_a_limit(machine, pressure, group, felt):
    machine.group("pod/app", **group)
    assert pressure.is_felt() == felt


def test_the_limit_of_an_enclosing_group_counts_too(machine, pressure):
    machine.group("pod", used=95, limit=100)
    machine.group("pod/app", used=10)
    assert pressure.is_felt()


@pytest.mark.parametrize(("used", "cache", "felt"), [(95, 0, True), (95, 50, False), (50, 0, False)])
def test_legacy_control_groups(machine, pressure, used, cache, felt):
    machine.write("proc/self/cgroup", "5:cpu,cpuacct:/elsewhere\n4:memory:/app\n0::/\n")
    machine.legacy_group("app", used, 100, cache)
    machine.legacy_group("elsewhere", 99, 100)  # another process's memory
    machine.legacy_group("", 500, 2**43 - 1)
    assert pressure.is_felt() == felt


def test_in_a_container_the_path_may_be_the_path_outside(machine, pressure):
    machine.write("proc/self/cgroup", "4:memory:/docker/0123\n")
    machine.legacy_group("", 95, 100)
    assert pressure.is_felt()


def test_memory_is_short_when_tasks_stall(machine, pressure, clock):
    machine.stalled(500)
    assert not pressure.is_felt(), "the stalls may be long ago"
    for stalled, felt in ((0.05, False), (0.2, True), (0.0, False), (0.1, True)):
        clock.now += 1
        machine.stalled(500 + stalled)
        assert pressure.is_felt() == felt
        machine.stalled(500)
        clock.now += 1
        pressure.is_felt()


def test_stalls_are_a_fraction_of_the_time_between_two_checks(machine, pressure, clock):
    for seconds, stalled, felt in ((2, 0.15, False), (4, 0.45, True)):
        machine.stalled(500)
        pressure.is_felt()
        clock.now += seconds
        machine.stalled(500 + stalled)
        assert pressure.is_felt() == felt
        clock.now += 1


def test_stalls_of_its_own_group_are_used_instead_of_the_machines(machine, pressure, clock):
    machine.group("pod/app", used=1)
    machine.stalled(0, "sys/fs/cgroup/pod/app/memory.pressure")
    machine.stalled(0)
    pressure.is_felt()
    clock.now += 1
    machine.stalled(1)
    assert not pressure.is_felt()
    clock.now += 1
    machine.stalled(1, "sys/fs/cgroup/pod/app/memory.pressure")
    assert pressure.is_felt()


def test_stalls_during_a_long_pause_of_the_checks_are_ignored(machine, pressure, clock):
    machine.stalled(0)
    pressure.is_felt()
    clock.now += 60
    machine.stalled(20)
    assert not pressure.is_felt()


def test_a_limit_that_is_set_later_is_found(machine, pressure, clock):
    machine.stalled(0)
    machine.group("pod/app", used=95)
    assert not pressure.is_felt()
    machine.group("pod/app", used=95, limit=100)
    clock.now += 61
    assert pressure.is_felt()


def test_memory_is_checked_once_a_second(machine, pressure, clock):
    machine.group("pod/app", used=95, limit=100)
    assert pressure.is_felt()
    assert not pressure.is_felt()
    assert pressure.due() == clock.now + 1
    clock.now += 1
    assert pressure.is_felt()


def test_objects_that_become_idle_do_not_postpone_the_next_check(machine, pressure, clock):
    machine.group("pod/app", used=95, limit=100)
    assert pressure.is_felt()
    clock.now += 0.75
    due = pressure.due()
    pressure.begin()
    assert pressure.due() == due


def test_checks_leave_no_file_open(machine, pressure, clock):
    machine.group("pod/app", used=95, limit=100)
    machine.stalled(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pressure.is_felt()
        clock.now += 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_there_are_no_checks_if_the_kernel_reports_nothing(machine, pressure):
    assert not pressure.is_felt()
    assert pressure.due() == inf


@pytest.mark.parametrize("text", ["", "nonsense", "some total="])
def test_files_with_unexpected_contents_are_ignored(machine, pressure, clock, text):
    machine.group("pod/app", used=95, limit=100)
    machine.write("sys/fs/cgroup/pod/app/memory.current", text)
    machine.write("proc/pressure/memory", text)
    assert not pressure.is_felt()
    assert pressure.due() == inf


def test_a_process_that_moves_to_another_group_finds_its_files(machine, pressure, clock):
    machine.group("pod/app", used=50, limit=100)
    machine.group("other", used=95, limit=100)
    machine.stalled(0)
    assert not pressure.is_felt()
    (machine.root / "sys/fs/cgroup/pod/app/memory.current").unlink()
    machine.write("proc/self/cgroup", "0::/other\n")
    clock.now += 1
    assert not pressure.is_felt()
    clock.now += 1
    assert pressure.is_felt()


# --- cleanup under pressure ---


@pytest.fixture
def short(aiopool, machine: Machine, monkeypatch: pytest.MonkeyPatch):
    """The package on a machine that is short of memory, with frequent checks."""
    monkeypatch.setattr(aiopool._core.registry, "_pools", {})
    machine.group("pod/app", used=95, limit=100)
    monkeypatch.setattr(aiopool._core.pressure, "EVERY", 0.01)
    monkeypatch.setattr(
        aiopool._core.cleanup, "memory_pressure", aiopool._core.pressure.MemoryPressure(str(machine.root))
    )
    return aiopool


async def wait_until_dropped(pool) -> None:
    async with asyncio.timeout(PATIENCE):
        while pool.stats().idle:
            await asyncio.sleep(0.001)


def test_under_pressure_unused_objects_are_dropped_at_once(short):
    async def main():
        pool = short.Pool(Thing, idle_timeout=600)
        pool.put(Thing())
        await wait_until_dropped(pool)
        assert pool.stats().cycles >= 2

    asyncio.run(main())


def test_under_pressure_objects_without_an_idle_timeout_are_dropped_too(short):
    async def main():
        lasting, pool = short.Pool(Thing, idle_timeout=None), short.Pool(Thing, idle_timeout=600)
        lasting.put(Thing())
        pool.put(Thing())  # because of this one there is a timer
        await wait_until_dropped(lasting)

    asyncio.run(main())


def test_the_first_object_in_a_long_time_is_not_checked_at_once(short, monkeypatch):
    """It would be dropped at once, and no object could be reused."""
    monkeypatch.setattr(short._core.pressure, "EVERY", 500.0)

    async def main():
        pool = short.Pool(Thing, idle_timeout=600)
        before = time.monotonic()
        pool.put(Thing())
        assert before + 500 <= short.current_processor().wakes_at <= time.monotonic() + 500

    asyncio.run(main())


def test_without_pressure_unused_objects_stay(short, machine):
    """The control: nothing else drops the object."""
    machine.group("pod/app", used=5, limit=100)

    async def main():
        pool = short.Pool(Thing, idle_timeout=600)
        pool.put(Thing())
        looked = short._core.cleanup.memory_pressure
        async with asyncio.timeout(PATIENCE):
            for _ in range(5):
                before = looked._looked
                while looked._looked == before:
                    await asyncio.sleep(0.001)
        assert (pool.stats().idle, pool.stats().cycles) == (1, 0)

    asyncio.run(main())


def test_under_pressure_used_objects_stay(short):
    async def main():
        pool = short.Pool(Thing, idle_timeout=600)
        pool.put(Thing())
        async with asyncio.timeout(PATIENCE):
            while pool.stats().cycles < 5:
                with pool.borrow():
                    pass
                await asyncio.sleep(0)
        assert pool.stats().created == 0

    asyncio.run(main())


def test_nothing_is_checked_while_nothing_is_idle(short):
    async def main():
        pool = short.Pool(Thing, idle_timeout=600)
        pool.put(Thing())
        await wait_until_dropped(pool)
        processor = short.current_processor()
        async with asyncio.timeout(PATIENCE):
            while processor.wakes_at < inf:
                await asyncio.sleep(0)
        # Nothing is due, and there is no timer that would check.
        assert short._core.timers.next_due() == inf
        assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []

    asyncio.run(main())


def test_without_a_loop_a_garbage_collection_notices_pressure(short):
    def use() -> None:
        pool = short.Pool(Thing, idle_timeout=None)
        pool.put(Thing())
        for _ in range(3):
            short._core.cleanup.memory_pressure._looked = -inf
            gc.collect(0)
        assert pool.stats().idle == 0
        assert pool.stats().cycles >= 3  # on free-threaded builds every collection is full, and others come in between

    gc.enable()
    in_thread(use)


def test_a_full_collection_under_pressure_starts_only_one_cycle(short):
    """Two at once would drop objects that are used."""

    def use() -> None:
        pool = short.Pool(Thing, idle_timeout=None)
        pool.put(Thing())
        short._core.cleanup.memory_pressure._looked = -inf
        gc.collect()
        assert (pool.stats().idle, pool.stats().cycles) == (1, 1)

    gc.enable()
    in_thread(use)


@contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """A real control group, with a limit in bytes."""
    mounts = Path("/sys/fs/cgroup")
    own = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for controllers, path in own:
        if controllers not in ("", "memory"):
            continue
        group = mounts / controllers / path.lstrip("/") / f"aiopool-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / ("memory.limit_in_bytes" if controllers else "memory.max")).write_text(str(limit))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    pytest.skip("no control group can be created here")


def test_in_a_real_control_group(reusing, child_env):
    with control_group(256 * MIB) as group:
        printed = run_program("memory_pressure.py", child_env, [str(group / "cgroup.procs")])
    assert printed == "idle buffers were freed\n"
