"""uvicorn with `PooledHttpToolsProtocol`, and without: real requests, the same answers."""

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from children import run_child
from serving import KIB, MIB, PATIENCE, Application, Client, chunked, described, head, pooled_protocol, serving
from shared import FREE_THREADED

uvicorn = pytest.importorskip("uvicorn", reason="the extra test-uvicorn is not installed")
pytest.importorskip("httptools", reason="the extra test-uvicorn is not installed")


LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
LARGE = 256 * KIB
"""Smaller bodies are left to uvicorn."""

SIZES = [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, LARGE - 1, LARGE, LARGE + 1, 1 * MIB, 3 * MIB + 7]


@pytest.fixture(scope="module", params=["stock", "pooled"])
def protocol(request, aiopool):
    return pooled_protocol(aiopool) if request.param == "pooled" else "httptools"


@pytest.fixture(scope="module", params=LOOPS)
def loop(request):
    return request.param


@pytest.fixture(scope="module")
def service(protocol, loop):
    """A running server, its application, and its pool, if it has one."""
    application = Application()
    with serving(protocol, application, loop) as address:
        yield SimpleNamespace(address=address, application=application, buffers=getattr(protocol, "buffers", None))


@pytest.fixture(scope="module")
def pooled(aiopool, loop):
    """Like `service`, but only with `PooledHttpToolsProtocol`."""
    protocol = pooled_protocol(aiopool)
    application = Application()
    with serving(protocol, application, loop) as address:
        yield SimpleNamespace(address=address, application=application, buffers=protocol.buffers)


@pytest.fixture
def client(service):
    with Client(service.address) as client:
        yield client


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- bodies of every size ---


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_arrives_with_its_header(client, size):
    body = os.urandom(size)
    for _ in range(3):
        client.send(head(b"/digest", size) + body)
        assert client.answer() == (200, described(body))


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_arrives_after_its_header(client, size):
    body = os.urandom(size)
    for _ in range(3):
        client.send(head(b"/digest", size))
        time.sleep(0.005)
        client.send(body)
        assert client.answer() == (200, described(body))


@pytest.mark.parametrize("size", [1, 1000, 40 * KIB, 100 * KIB])
def test_a_body_in_pieces(client, size):
    body = os.urandom(300 * KIB)
    request = head(b"/digest", len(body)) + body
    client.send(*[request[start : start + size] for start in range(0, 20 * size, size)], request[20 * size :])
    assert client.answer() == (200, described(body))


def test_100_mib(client):
    body = os.urandom(MIB) * 100
    client.send(head(b"/digest", len(body)), body)
    assert client.answer() == (200, described(body))


@pytest.mark.parametrize("size", [1000, 64 * KIB, MIB])
def test_a_chunked_body(client, size):
    body = os.urandom(2 * MIB)
    client.send(head(b"/digest", None, b"Transfer-Encoding: chunked"), chunked(body, size))
    assert client.answer() == (200, described(body))
    client.send(head(b"/digest", 3) + b"abc")
    assert client.answer() == (200, described(b"abc"))


def test_with_httpx(service):
    httpx = pytest.importorskip("httpx", reason="the extra test-uvicorn is not installed")
    with httpx.Client(base_url="http://{}:{}".format(*service.address), timeout=PATIENCE, trust_env=False) as client:
        for size in SIZES:
            body = os.urandom(size)
            assert client.post("/digest", content=body).content == described(body)
        streamed = client.post("/digest", content=iter([b"a" * 100 * KIB, b"b" * 100 * KIB]))
        assert streamed.content == described(b"a" * 100 * KIB + b"b" * 100 * KIB)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]])
def test_with_curl(service, tmp_path, options):
    body = os.urandom(2 * MIB)
    (tmp_path / "body").write_bytes(body)
    url = "http://{}:{}/digest".format(*service.address)
    command = ["curl", "-sS", "--noproxy", "*", *options, "--data-binary", f"@{tmp_path / 'body'}", url]
    assert subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout == described(body)


# --- requests beside a large body ---


@pytest.mark.parametrize("size", [64 * KIB, LARGE, 300 * KIB, 2 * MIB])
def test_pipelined_requests_before_and_after_a_large_body(client, size):
    body = os.urandom(size)
    small, large = head(b"/digest", 5) + b"small", head(b"/digest", size) + body
    client.send(small + large + small + large + large + small)
    for expected in (b"small", body, b"small", body, body, b"small"):
        assert client.answer() == (200, described(expected))


def test_expect_100_continue(client):
    body = os.urandom(MIB)
    client.send(head(b"/digest", len(body), b"Expect: 100-continue"))
    assert client.head() == (100, {})
    client.send(body)
    assert client.answer() == (200, described(body))


def test_an_early_answer(client):
    """The server goes on reading, and the connection stays."""
    body = os.urandom(MIB)
    for _ in range(3):
        client.send(head(b"/early", len(body)), body[:1000])
        assert client.answer() == (200, b"early")
        client.send(body[1000:], head(b"/digest", 2) + b"ok")
        assert client.answer() == (200, described(b"ok"))


def test_an_early_answer_that_closes(client):
    # In one piece: bytes that are unread when the server closes would turn the end of the connection into a reset.
    client.send(head(b"/close", MIB) + bytes(1000))
    assert client.answer() == (200, b"closed")
    assert client.answer() is None


def test_an_application_that_fails(client):
    client.send(head(b"/fail", MIB) + bytes(1000))
    assert client.answer() == (500, b"Internal Server Error")
    assert client.answer() is None


def test_the_application_gets_the_body_while_it_is_sent(client):
    """The application gets each part before the end: the client waits for each answer before it sends more."""
    size = 10 * 100 * KIB
    client.send(head(b"/progress", size))
    assert client.head()[0] == 200
    for sent in range(100 * KIB, size + 1, 100 * KIB):
        client.send(bytes(100 * KIB))
        while int(client.chunk()) < sent:
            pass
    assert client.chunk() == b""


def test_an_application_that_does_not_read_makes_the_client_wait(service):
    service.application.gate.clear()
    body = bytes(64 * MIB)
    with Client(service.address) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        client.send(head(b"/gated", len(body)))
        client.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < len(body):
                sent += client.socket.send(body[sent : sent + 64 * KIB])
        except TimeoutError:
            pass
        assert sent < 32 * MIB  # most of it lies in the kernel
        if service.buffers is not None:
            assert service.buffers.stats().bytes_in_use == 0
        service.application.gate.set()
        client.socket.settimeout(PATIENCE)
        client.send(memoryview(body)[sent:])
        assert client.answer() == (200, described(body))


# --- clients that leave, stall or lie ---


@pytest.mark.parametrize("sent", [0, 1000, 100 * KIB, MIB + 100 * KIB])
def test_a_client_that_disconnects_in_the_middle(service, sent):
    path = f"/record/leaves{sent}"
    with Client(service.address) as client:
        client.send(head(path.encode(), 2 * MIB), bytes(sent))
        if sent:
            until(lambda: path in service.application.events)
    until(lambda: (service.application.events.get(path) or [(0, 0)])[-1][1] == "disconnect")
    assert service.application.events[path][-1] == (described(bytes(sent)), "disconnect")


def test_a_client_that_resets_in_the_middle(service):
    path = "/record/resets"
    client = Client(service.address)
    client.send(head(path.encode(), 2 * MIB), bytes(100 * KIB))
    until(lambda: service.application.events.get(path))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.file.close()
    client.socket.close()
    until(lambda: service.application.events[path][-1] == (described(bytes(100 * KIB)), "disconnect"))


@pytest.mark.parametrize("sent", [1000, 100 * KIB])
def test_bytes_that_arrived_before_a_stall_reach_the_application(service, sent):
    path = f"/record/stalls{sent}"
    with Client(service.address) as client:
        client.send(head(path.encode(), 2 * MIB), bytes(sent))
        until(lambda: (service.application.events.get(path) or [(0, 0)])[-1] == (sent, "more"))
        if service.buffers is not None:
            until(lambda: service.buffers.stats().bytes_in_use == 0)
        client.send(bytes(2 * MIB - sent))
        assert client.answer() == (200, described(bytes(2 * MIB)))


@pytest.mark.parametrize("claim", [b"-1", b"ten", b"1" * 30, b"300000, 300000", b"0x100000"])
def test_a_wrong_length(client, claim):
    client.send(head(b"/digest", None, b"Content-Length: " + claim) + bytes(100 * KIB))
    assert client.answer() == (400, b"Invalid HTTP request received.")


def test_a_bad_header_with_a_large_body(client):
    """One answer, although the body comes with it."""
    client.send(head(b"/digest", LARGE, b"Bad Header: 1") + bytes(1000))
    assert client.answer() == (400, b"Invalid HTTP request received.")
    assert client.answer() is None


def test_two_lengths(client):
    client.send(head(b"/digest", 300_000, b"Content-Length: 300001") + bytes(1000))
    assert client.answer() == (400, b"Invalid HTTP request received.")


def test_a_length_that_is_too_small(client):
    """The bytes after the body are not a request."""
    body = os.urandom(LARGE).replace(b"\n", b"x")
    client.send(head(b"/digest", len(body)), body + b"\1garbage\r\n\r\n")
    answers = [client.answer(), client.answer()]
    # The first request may or may not be answered before the connection is closed.
    assert (400, b"Invalid HTTP request received.") in answers


def test_an_enormous_length_allocates_no_more_than_a_piece(pooled):
    path = "/record/enormous"
    with Client(pooled.address) as client:
        client.send(head(path.encode(), 10**18))
        for count in range(1, 50):
            client.send(bytes(100 * KIB))
            assert pooled.buffers.stats().bytes_in_use <= 2 * MIB
            until(lambda count=count: (pooled.application.events.get(path) or [(0,)])[-1][0] == count * 100 * KIB)
    until(lambda: pooled.application.events[path][-1][1] == "disconnect")
    assert pooled.buffers.stats().bytes_in_use == 0


# --- the buffer pool ---


def test_large_bodies_are_received_into_the_pool_and_small_ones_are_not(pooled):
    def served(path, body, *args):
        before = pooled.buffers.stats().served
        with Client(pooled.address) as client:
            client.send(head(path.encode(), *args))
            until(lambda: path in pooled.application.events)  # the head arrives without the body
            client.send(body)
            assert client.answer()[0] == 200
        return pooled.buffers.stats().served - before

    assert served("/record/large", bytes(LARGE), LARGE) >= 1
    assert served("/record/less", bytes(LARGE - 1), LARGE - 1) == 0
    assert served("/record/1-mib", bytes(MIB), MIB) >= 1
    assert served("/record/chunked", chunked(bytes(MIB), 64 * KIB), None, b"Transfer-Encoding: chunked") == 0


def test_an_idle_connection_holds_no_buffer(pooled):
    with Client(pooled.address) as client:
        for size in (3 * MIB, LARGE, MIB):
            client.send(head(b"/digest", size), bytes(size))
            assert client.answer() == (200, described(bytes(size)))
            until(lambda: pooled.buffers.stats().bytes_in_use == 0)
            served = pooled.buffers.stats().served
            client.send(head(b"/digest", 5) + b"small")
            assert client.answer() == (200, described(b"small"))
            assert pooled.buffers.stats().served == served


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_bytes_that_look_like_a_large_body_do_not_make_chunks_quadratic(aiopool):
    """Small chunks must be appended to a `bytearray`: appending them to `bytes` copies all of them each time."""
    bodies = set()

    class Recording(pooled_protocol(aiopool)):
        def on_body(self, body):
            super().on_body(body)
            bodies.add(type(self.cycle.body))

    async def application(scope, receive, send):
        await asyncio.Event().wait()

    from uvicorn.server import ServerState

    config = uvicorn.Config(application, http=Recording, log_level="warning")
    loop = asyncio.get_running_loop()
    protocol = Recording(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    ours, peer = socket.socketpair()
    with peer:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        looks_like_it = b"\r\nContent-Length: 262144\r\n\r\n" + bytes(40 * KIB)
        protocol.data_received(head(b"/", len(looks_like_it)))
        chunks = chunked(bytes(10_000), 1)
        protocol.data_received(looks_like_it + head(b"/", None, b"Transfer-Encoding: chunked") + chunks)
        assert len(protocol.cycle.body) == 10_000
        assert bodies == {bytearray}
        for task in protocol.tasks:
            task.cancel()
        await asyncio.wait(protocol.tasks)
        transport.abort()


def test_a_fast_upload_is_one_message(pooled):
    """One message saves most of the time; on a slow machine it may be two."""
    for attempt in range(20):
        path = f"/record/fast{attempt}"
        with Client(pooled.address) as client:
            client.send(head(path.encode(), MIB) + bytes(MIB))
            assert client.answer() == (200, described(bytes(MIB)))
        if pooled.application.events[path] == [(MIB, "complete")]:
            return
    pytest.fail("none of 20 uploads was handed on in one piece")


FAULTS = """
import resource, sys

__import__(sys.argv[1])


def upload():
    pieces = [b"x" * 1024 * 1024 for _ in range(16)]
    b"".join(pieces)


for _ in range(2):
    upload()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    upload()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    FREE_THREADED or platform.libc_ver()[0] != "glibc",
    reason="about glibc's malloc; free-threaded CPython has an allocator of its own, which keeps that memory",
)
def test_memory_of_large_pieces_does_not_go_back_to_the_system_each_time(child_env):
    """Without the module, the system supplies this memory page by page again."""
    env = {name: value for name, value in child_env.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    options = ["-W", "ignore::RuntimeWarning"]
    assert int(run_child(FAULTS, env, ["uvicorn.protocols.http.httptools_impl"], options)) > 20_000
    assert int(run_child(FAULTS, env, ["aiopool.integrations.uvicorn"], options)) < 2_000


# --- configurations ---


def test_an_upgrade_to_websocket(service):
    sync = pytest.importorskip("websockets.sync.client", reason="the extra test-uvicorn is not installed")
    message = os.urandom(300 * KIB)
    with sync.connect("ws://{}:{}/".format(*service.address), max_size=None, proxy=None) as connection:
        for _ in range(3):
            connection.send(message)
            assert connection.recv() == message


def test_an_upgrade_after_a_large_body(client):
    body = bytes(MIB)
    client.send(head(b"/digest", len(body)), body)
    assert client.answer() == (200, described(body))
    upgrade = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"]
    client.send(head(b"/", None, *upgrade, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method=b"GET"))
    assert client.head()[0] == 101
    client.send(b"\x82\x82\0\0\0\0hi")
    assert client.file.read(4) == b"\x82\x02hi"


def test_limit_concurrency(protocol, loop):
    with serving(protocol, Application(), loop, limit_concurrency=2) as address, Client(address) as first:
        first.send(head(b"/digest", MIB), bytes(MIB))
        assert first.answer() == (200, described(bytes(MIB)))
        with Client(address) as second:
            second.send(head(b"/digest", LARGE))
            assert second.answer() == (503, b"Service Unavailable")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A file for the server, and a context for its clients."""
    trustme = pytest.importorskip("trustme", reason="cffi, which it needs, does not support free-threaded 3.13")
    authority = trustme.CA()
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return str(pem), context


def test_tls(protocol, loop, certificates):
    pem, context = certificates
    with serving(protocol, Application(), loop, ssl_certfile=pem) as address, Client(address, context) as client:
        for size in SIZES:
            body = os.urandom(size)
            client.send(head(b"/digest", size) + body, head(b"/digest", size), body)
            assert client.answer() == (200, described(body))
            assert client.answer() == (200, described(body))
        body = os.urandom(MIB)
        client.send((head(b"/digest", MIB) + body) * 3)
        assert [client.answer() for _ in range(3)] == [(200, described(body))] * 3


def test_a_stall_within_a_tls_record(aiopool, loop, certificates):
    """The transport asks for a buffer and has nothing to write to it; the connection does not hold that buffer."""
    protocol = pooled_protocol(aiopool)
    application = Application()
    pem, context = certificates
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    with serving(protocol, application, loop, ssl_certfile=pem) as address, socket.create_connection(address) as raw:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(sent.read())
                received.write(raw.recv(64 * KIB))
        tls.write(head(b"/record/tls", MIB) + bytes(1000))
        raw.sendall(sent.read())
        until(lambda: (application.events.get("/record/tls") or [(0, 0)])[-1] == (1000, "more"))
        served = protocol.buffers.stats().served
        tls.write(bytes(1000))
        raw.sendall(sent.read()[:-10])
        until(lambda: protocol.buffers.stats().served > served)
        until(lambda: protocol.buffers.stats().bytes_in_use == 0)


def test_a_graceful_shutdown_in_the_middle_of_a_body(protocol, loop):
    application = Application()
    with serving(protocol, application, loop) as address:
        client = Client(address)
        client.send(head(b"/record/stop", MIB), bytes(100 * KIB))
        until(lambda: application.events.get("/record/stop"))
        client.send(bytes(MIB - 100 * KIB))
    with client:
        assert client.answer() == (200, described(bytes(MIB)))


APPLICATION = """
import hashlib, os
async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    content = b"%d %s" % (os.getpid(), hashlib.sha256(body).hexdigest().encode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})
"""


def test_the_command_line_with_several_workers(child_env, loop, tmp_path):
    (tmp_path / "application.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "application:app", "--workers", "2", "--port", str(port)]
    command += ["--loop", loop, "--http", "aiopool.integrations.uvicorn:PooledHttpToolsProtocol"]
    with subprocess.Popen(command, cwd=tmp_path, env=child_env, stderr=subprocess.PIPE) as server:
        try:
            pids = set()
            body = os.urandom(MIB)
            deadline = time.monotonic() + PATIENCE
            while len(pids) < 2:
                assert time.monotonic() < deadline
                try:
                    with Client(("127.0.0.1", port)) as client:
                        client.send(head(b"/", len(body)), body)
                        status, content = client.answer()
                except (ConnectionError, TypeError):
                    time.sleep(0.02)  # not up yet
                    continue
                pid, digest = content.split()
                assert (status, digest) == (200, described(body).split()[1])
                pids.add(pid)
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE)


# --- versions ---


@pytest.fixture
def versions(aiopool):
    pooled_protocol(aiopool)
    return aiopool.integrations._versions


def test_an_older_version_is_an_error(versions, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: "0.29.1")
    with pytest.raises(
        ImportError, match=r"^aiopool does not support uvicorn 0\.29\.1: install uvicorn 0\.30 or later$"
    ):
        versions.check_version("uvicorn", "0.30", "0.54")


@pytest.mark.parametrize("version", ["0.30", "0.30.0rc1", "0.54.9", "0.54"])
def test_a_tested_version_gives_no_warning(versions, monkeypatch, version):
    monkeypatch.setattr(versions, "version", lambda package: version)
    versions.check_version("uvicorn", "0.30", "0.54")


def test_a_newer_version_is_a_warning(versions, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: "0.55.0")
    with pytest.warns(RuntimeWarning, match=r"^aiopool was tested with uvicorn 0\.30 to 0\.54, not with 0\.55\.0$"):
        versions.check_version("uvicorn", "0.30", "0.54")


def test_a_version_with_other_internals_is_an_error(versions):
    def function(self):
        self.cycle = None

    versions.check_names("uvicorn", function, ["cycle", "self"])
    with pytest.raises(ImportError, match=r"function no longer uses flow, headers; install a version that aiopool"):
        versions.check_names("uvicorn", function, ["headers", "cycle", "flow"])
