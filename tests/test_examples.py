"""The examples do what they say: run as a user runs them, and tested at their limits."""

import asyncio
import hashlib
import importlib.util
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from children import CHILD_LIMIT, errors_in
from loops import free_port
from redis_servers import NEEDS_REDIS_SERVER, redis_server

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = [
    "arrays_between_processes",
    "dask_workers",
    "multi_loop_service",
    "numpy_zstd",
    "opentelemetry_metrics",
    "prometheus_metrics",
    "proxy",
    "redis_cache",
    "request_buffers",
    "test_fixtures",
    "trio_tasks",
    "uvicorn_service",
    "worker_threads",
]

NEEDS_ZSTANDARD = pytest.mark.skipif(
    importlib.util.find_spec("zstandard") is None,
    reason="zstandard is not installed: not every Python has a wheel",
)


def test_every_example_is_tested():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == NAMES


@pytest.fixture
def run(child_env: dict[str, str]) -> Callable[..., str]:
    """Run Python with some arguments, in development mode and with warnings as errors. Returns its output."""

    def run(*args: object) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *map(str, args)],
            env=child_env | {"PYTEST_ADDOPTS": "-p no:cacheprovider -p no:hypothesispytest"},
            capture_output=True,
            text=True,
            timeout=CHILD_LIMIT,
        )
        assert (done.returncode, errors_in(done.stderr)) == (0, ""), done.stdout + done.stderr
        return done.stdout

    return run


def load(name: str) -> ModuleType:
    """A new copy of the example, with its own pool."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def only_match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text)
    assert match, text
    return match


# --- request_buffers ---

REQUEST_BUFFERS = (
    r"requests: 400 on (?P<loop>\S+), each answered with the right digest\n"
    r"buffers created: (?P<created>\d+), for (?P<gets>\d+) gets by server and clients\n"
    r"hits: (?P<hits>\d+) \((?P<rate>[\d.]+)%\), (?P<private>\d+) of them private\n"
)


def check_request_buffers(output: str) -> str:
    """Check the example's output, and return the name of its loop."""
    found = only_match(REQUEST_BUFFERS, output).groupdict()
    loop, rate = found.pop("loop"), float(found.pop("rate"))
    created, gets, hits, private = map(int, found.values())
    assert gets >= 800  # one for each request by its client, and one by the server
    assert created + hits == gets
    assert hits // 2 < private <= hits
    assert rate == pytest.approx(100 * hits / gets, abs=0.051)
    assert rate > 90
    return loop


def test_request_buffers_as_a_program(run):
    loop = check_request_buffers(run(EXAMPLES / "request_buffers.py"))
    assert loop.partition(".")[0] == ("uvloop" if importlib.util.find_spec("uvloop") else "asyncio")


def test_request_buffers_without_uvloop(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    example = load("request_buffers")
    with asyncio.Runner(loop_factory=example.new_loop) as runner:
        runner.run(example.main())
    assert check_request_buffers(capsys.readouterr().out).startswith("asyncio.")


class UploadServer:
    """The example's server, and helpers to talk to it."""

    def __init__(self, example: ModuleType, address: tuple[str, int], transports: list[asyncio.Transport]) -> None:
        self.example = example
        self.address = address
        #: the server's side of each connection
        self.transports = transports

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield reader, writer
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass  # the server was first to leave

    async def all_buffers_are_back(self) -> None:
        """Wait until the server has held a buffer and holds none. The timeout of `serve` limits this."""
        while not (stats := self.example.buffers.stats()).gets or stats.gets != stats.puts:
            await asyncio.sleep(0.001)


ServerTest = Callable[[UploadServer], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request) -> Callable[[ServerTest], None]:
    """Runs a test together with the example's server, on each loop."""
    new_loop = pytest.importorskip(request.param).new_event_loop
    example = load("request_buffers")

    async def run_beside_server(test: ServerTest) -> None:
        transports: list[asyncio.Transport] = []

        class Noted(example.UploadProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:
                transports.append(transport)
                super().connection_made(transport)

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30), await loop.create_server(Noted, "127.0.0.1", 0) as server:
            await test(UploadServer(example, server.sockets[0].getsockname(), transports))

    def serve(test: ServerTest) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run_beside_server(test))

    return serve


def request_of(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def answer_to(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + hashlib.sha256(body).digest()


def test_small_requests_that_arrive_together(serve):
    bodies = [bytes([n]) * (n % 7) for n in range(200)]

    async def test(server: UploadServer) -> None:
        async with server.connect() as (reader, writer):
            writer.write(b"".join(map(request_of, bodies)))
            assert await reader.readexactly(36 * len(bodies)) == b"".join(map(answer_to, bodies))

    serve(test)


def test_requests_of_all_sizes_in_any_pieces(serve):
    async def test(server: UploadServer) -> None:
        most = server.example.MAX_BODY
        bodies = [os.urandom(size) for size in (0, most, 1, most - 1, 0, most)]
        sent = b"".join(map(request_of, bodies))
        async with server.connect() as (reader, writer):
            for start in range(0, len(sent), 99_991):
                writer.write(sent[start : start + 99_991])
                await writer.drain()
            assert await reader.readexactly(36 * len(bodies)) == b"".join(map(answer_to, bodies))

    serve(test)


def test_an_idle_connection_holds_no_buffer(serve):
    async def test(server: UploadServer) -> None:
        async with server.connect() as (reader, writer):
            writer.write(request_of(b"hello"))
            assert await reader.readexactly(36) == answer_to(b"hello")
            await server.all_buffers_are_back()

    serve(test)


def test_a_client_that_disconnects_in_the_middle(serve):
    async def test(server: UploadServer) -> None:
        async with server.connect() as (_, writer):
            writer.write(request_of(b"hello")[:-1])
            await writer.drain()
        await server.all_buffers_are_back()

    serve(test)


def test_a_request_that_is_too_long(serve):
    async def test(server: UploadServer) -> None:
        async with server.connect() as (reader, writer):
            writer.write(struct.pack("!I", server.example.MAX_BODY + 1))
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass  # an aborted connection may end either way
        await server.all_buffers_are_back()

    serve(test)


def test_a_client_that_does_not_read_is_not_read_from(serve):
    async def test(server: UploadServer) -> None:
        loop = asyncio.get_running_loop()
        # A socket and not a stream, because a stream would read the answers by itself.
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.address)
            requests = 0
            while not server.transports or server.transports[0].is_reading():
                assert requests < 1_000_000
                await loop.sock_sendall(client, request_of(b"") * 1000)
                requests += 1000
                await asyncio.sleep(0)
            received = bytearray()
            while len(received) < 36 * requests:
                part = await loop.sock_recv(client, 1 << 20)
                assert part
                received += part
            assert received == answer_to(b"") * requests
        await server.all_buffers_are_back()

    serve(test)


# --- multi_loop_service ---

PROCESSOR = (
    r"processor (?P<id>\d+), a (?P<role>reader|worker): (?P<puts>\d+) puts, (?P<gets>\d+) gets, "
    r"(?P<created>\d+) created; hits: "
    r"(?P<private>\d+) private, (?P<shared>\d+) shared, (?P<stolen>\d+) stolen, (?P<victim>\d+) victim"
)


def check_multi_loop_service(output: str) -> int:
    """Check the example's output, and return how many loops read."""
    first, *rest = output.splitlines()
    assert first == "80 uploads on one port, each answered with the right digest"
    processors = [only_match(PROCESSOR, line).groupdict() for line in rest]
    roles = [each.pop("role") for each in processors]
    counts = [{key: int(value) for key, value in each.items()} for each in processors]
    assert [each["id"] for each in counts] == sorted({each["id"] for each in counts})
    (worker,) = (each for each, role in zip(counts, roles, strict=True) if role == "worker")
    readers = [each for each, role in zip(counts, roles, strict=True) if role == "reader"]
    assert (worker["puts"], worker["gets"]) == (80, 0)
    assert sum(each["gets"] for each in readers) == 80
    for each in readers:
        # Readers find objects that the worker put: they are stolen from its shard or from its victim.
        assert each["puts"] == each["private"] == each["shared"] == 0
        assert each["gets"] == each["stolen"] + each["victim"] + each["created"]
    assert sum(each["stolen"] for each in readers) > 40
    return len(readers)


def test_multi_loop_service_as_a_program(run):
    readers = check_multi_loop_service(run(EXAMPLES / "multi_loop_service.py"))
    # Linux distributes 80 connections over the listening sockets; other systems may prefer one of them.
    assert readers in ([2] if sys.platform == "linux" else [1, 2])


def test_multi_loop_service_without_reuse_port(monkeypatch, capsys):
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    asyncio.run(load("multi_loop_service").main())
    assert check_multi_loop_service(capsys.readouterr().out) in (1, 2)


def test_multi_loop_service_survives_bad_clients(capsys):
    example = load("multi_loop_service")
    run_clients = example.run_clients

    async def run_bad_clients_first(address: tuple[str, int]) -> None:
        for sent in (b"", b"\0", struct.pack("!I", example.MAX_BODY + 1), request_of(b"hello")[:-1]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        await run_clients(address)

    example.run_clients = run_bad_clients_first
    asyncio.run(example.main())
    assert capsys.readouterr().out.startswith("80 uploads on one port")
    stats = example.buffers.stats()
    assert (stats.gets, stats.puts) == (81, 80)  # the buffer of the one that was cut short was dropped


def test_multi_loop_service_ends_when_its_clients_fail():
    example = load("multi_loop_service")

    async def fail(address: tuple[str, int]) -> None:
        raise RuntimeError("wrong answer")

    example.run_clients = fail
    with pytest.raises(RuntimeError, match="wrong answer"):
        asyncio.run(example.main())


# --- test_fixtures ---


def test_fixtures_as_a_program(run):
    output = run(EXAMPLES / "test_fixtures.py")
    assert "12 tests on 12 loops\nshops opened: 2, reset: 12, closed down: 2\n" in output
    assert re.search(r"^12 passed", output, re.MULTILINE)


def test_fixtures_one_test_alone_by_pytest(run):
    output = run("-m", "pytest", EXAMPLES / "test_fixtures.py", "-k", "sells_out")
    assert re.search(r"= 1 passed, 11 deselected", output)


# --- proxy ---


def test_proxy_as_a_program(run):
    output = run("-W", "ignore:Buffers are not reused", EXAMPLES / "proxy.py")
    found = only_match(
        r"files: 10 on (?P<loop>\S+), each with the right bytes\n"
        r"bytes: (?P<bytes>[\d,]+), in (?P<served>[\d,]+) buffers, (?P<created>[\d,]+) of them new\n"
        r"in use now: 0 bytes; idle: (?P<idle>[\d,]+)\n",
        output,
    )
    assert 0 < number(found["created"]) <= number(found["served"])
    assert number(found["bytes"]) > 0


# --- numpy_zstd ---


@NEEDS_ZSTANDARD
def test_numpy_zstd_as_a_program(run):
    output = run("-W", "ignore:Buffers are not reused", EXAMPLES / "numpy_zstd.py")
    found = only_match(
        r"arrays: 100 on (?P<loop>\S+), each with the right sum\n"
        r"buffers: (?P<served>[\d,]+), (?P<created>[\d,]+) of them new\n"
        r"decompressors: (?P<decompressors>\d+), for 100 messages\n",
        output,
    )
    assert 0 < number(found["created"]) <= number(found["served"])
    assert int(found["decompressors"]) <= 4


# --- arrays_between_processes ---

ARRAYS_OPTIONS = [
    *("-W", "ignore:Buffers are not reused"),
    # From 3.15 on, linecache warns of the main module as multiprocessing imports it. It is asked for each new task on a
    # loop in debug mode.
    *("-W", "ignore:Module globals is missing a __spec__.loader:DeprecationWarning"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in asyncio on Windows")
def test_arrays_between_processes_as_a_program(run):
    output = run(*ARRAYS_OPTIONS, EXAMPLES / "arrays_between_processes.py")
    found = only_match(
        r"arrays: 20 there and back, each doubled and writable\n"
        r"buffers: (?P<views>\d+) views, (?P<created>\d+) of them of fresh blocks\n",
        output,
    )
    assert 0 < int(found["created"]) <= int(found["views"])


def there_and_back(example: ModuleType, *messages: object) -> list[object]:
    """Send messages over a connection, and return what arrives."""

    async def main() -> list[object]:
        sent: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

        async def serve(reader, writer) -> None:
            try:
                sent.set_result([await example.receive(reader) for _ in messages])
            except ValueError as error:
                sent.set_exception(error)
            writer.close()

        start = example.streams.start_server
        async with asyncio.timeout(30), await start(serve, "127.0.0.1", 0, buffers=example.buffers) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for message in messages:
                if isinstance(message, bytes):
                    writer.write(message)
                else:
                    await example.send(writer, message)
            try:
                return await sent
            finally:
                writer.close()

    return asyncio.run(main())


def test_arrays_between_processes_of_every_kind():
    example = load("arrays_between_processes")
    np = example.np
    messages = [
        {"no array": [1, 2, 3]},
        np.zeros(0),
        [np.arange(7), np.arange(0.0), np.ones((3, 4), np.float32)],
        np.arange(24).reshape(2, 3, 4)[:, ::2],
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.frombuffer(b"read-only", np.uint8),
    ]
    for sent, received in zip(messages, there_and_back(example, *messages), strict=True):
        assert type(sent) is type(received)
        if isinstance(sent, np.ndarray):
            assert (received == sent).all()
            assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
    assert received.flags.writeable == sent.flags.writeable is False


@pytest.mark.parametrize(
    "announced",
    [struct.pack("!II", 2**32 - 1, 0), struct.pack("!II", 10, 2**32 - 1), struct.pack("!IIQ", 10, 1, 2**63)],
)
def test_arrays_between_processes_rejects_arrays_that_are_too_big(announced):
    with pytest.raises(ValueError, match=r"(is|are) too big"):
        there_and_back(load("arrays_between_processes"), announced)


# --- prometheus_metrics ---


@NEEDS_ZSTANDARD
def test_prometheus_metrics_as_a_program(run):
    output = run("-W", "ignore:Buffers are not reused", EXAMPLES / "prometheus_metrics.py")
    assert 'aiopool_pool_gets_total{pool="compressors",result="private"} 199.0\n' in output
    assert 'aiopool_pool_created_total{pool="compressors"} 1.0\n' in output
    assert 'aiopool_buffer_created_total{pool="requests"' in output


# --- opentelemetry_metrics and redis_cache ---


def test_opentelemetry_metrics_as_a_program(run, reusing):
    output = run("-W", "ignore:Buffers are not reused", EXAMPLES / "opentelemetry_metrics.py")
    label = "'aiopool.pool.name': 'images', 'aiopool.size_class': '229376'"
    assert f"aiopool.buffer.gets 1 {{get}} {{{label}, 'aiopool.result': 'miss'}}\n" in output
    assert f"aiopool.buffer.gets 299 {{get}} {{{label}, 'aiopool.result': 'private'}}\n" in output
    assert "in_use" not in output


@NEEDS_REDIS_SERVER
def test_redis_cache_as_a_program(run, tmp_path):
    pytest.importorskip("redis")
    port = free_port()
    with redis_server(tmp_path, "--port", str(port)):
        arguments = ("-W", "ignore:Buffers are not reused", EXAMPLES / "redis_cache.py", f"redis://127.0.0.1:{port}")
        assert run(*arguments) == "20 pages of 1048576 bytes, each as it was stored\n"


# --- trio_tasks ---


def test_trio_tasks_as_a_program(run):
    output = run("-W", "ignore:Buffers are not reused", EXAMPLES / "trio_tasks.py")
    found = only_match(
        r"records: 200 in (?P<pieces>[\d,]+) pieces, and 3 cancelled\n"
        r"parsers: (?P<created>\d+) created, (?P<idle>\d+) idle, 3 dropped with half a record in them\n"
        r"buffers: 203 acquired, 0 bytes in use\n",
        output,
    )
    assert number(found["pieces"]) >= 200
    assert 3 < int(found["created"]) <= 13
    assert int(found["idle"]) == int(found["created"]) - 3


# --- worker_threads ---


@NEEDS_ZSTANDARD
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_worker_threads_as_a_program(run, backend):
    if backend == "uvloop":
        pytest.importorskip("uvloop")
    found = only_match(
        r"before: 0 gets, 0 compressors created, 0 idle\n"
        r"after: 200 gets, (?P<created>\d+) compressors created, (?P<idle>\d+) idle\n"
        r"  off-loop: 100 gets, 0 private, \d+ shared, \d+ stolen\n"
        r"  processor 1: 100 gets, (?P<private>\d+) private, \d+ shared, \d+ stolen\n"
        r"compressed to \d+% on average, 100 times\n",
        run(EXAMPLES / "worker_threads.py", backend),
    )
    assert found["created"] == found["idle"]
    assert 1 <= int(found["created"]) <= 8
    assert int(found["private"]) > 50


def number(text: str) -> int:
    return int(text.replace(",", ""))


# --- uvicorn_service and dask_workers ---


def test_uvicorn_service(run):
    pytest.importorskip("uvicorn", reason="the extra test-uvicorn is not installed")
    first, second = run("-W", "ignore:Buffers are not reused", EXAMPLES / "uvicorn_service.py").splitlines()
    assert first == "50 uploads of 1048576 bytes, each answered with the right digest"
    assert only_match(r"(\d+) buffers created, 0 bytes in use", second)


def test_dask_workers(run, aiopool, child_env):
    pytest.importorskip("distributed", reason="the extra test-distributed is not installed")
    if aiopool.implementation == "python":
        pytest.skip("it needs the C extension")
    child_env["DASK_LOGGING__DISTRIBUTED"] = "error"  # on a busy machine it warns of loops that were held up
    output = run(EXAMPLES / "dask_workers.py")
    assert output == "received 120 arrays of 1000000 bytes\ninto buffers that were used before: True\n"
