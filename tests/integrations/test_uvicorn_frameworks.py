"""Frameworks on uvicorn with `PooledHttpToolsProtocol`, and without: the same answers."""

import hashlib
import os

import pytest
from serving import MIB, PATIENCE, pooled_protocol, serving

pytest.importorskip("uvicorn", reason="the extra test-uvicorn is not installed")
pytest.importorskip("httptools", reason="the extra test-uvicorn is not installed")
httpx = pytest.importorskip("httpx", reason="the extra test-uvicorn is not installed")


BODY = os.urandom(3 * MIB)
DIGEST = hashlib.sha256(BODY).hexdigest()


def starlette():
    """`request.body()`, and `request.stream()` with the length of each piece."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def whole(request: Request):
        return JSONResponse(hashlib.sha256(await request.body()).hexdigest())

    async def stream(request: Request):
        digest = hashlib.sha256()
        async for part in request.stream():
            assert type(part) is bytes
            digest.update(part)
        return JSONResponse(digest.hexdigest())

    return Starlette(routes=[Route("/raw", whole, methods=["POST"]), Route("/stream", stream, methods=["POST"])])


def fastapi():
    """JSON, a form with a file, and the plain request."""
    from fastapi import FastAPI, Request, UploadFile

    app = FastAPI()

    async def json_sum(numbers: list[int]):
        return sum(numbers)

    async def upload(file: UploadFile):
        return [file.filename, file.size, hashlib.sha256(await file.read()).hexdigest()]

    async def raw(request: Request):
        return hashlib.sha256(await request.body()).hexdigest()

    app.post("/json")(json_sum)
    app.post("/upload")(upload)
    app.post("/raw")(raw)
    return app


def django():
    """The plain request, and a file."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import JsonResponse
    from django.urls import path

    async def raw(request):
        return JsonResponse(hashlib.sha256(request.body).hexdigest(), safe=False)

    async def upload(request):
        file = request.FILES["file"]
        return JsonResponse([file.name, file.size, hashlib.sha256(file.read()).hexdigest()], safe=False)

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], DATA_UPLOAD_MAX_MEMORY_SIZE=None, ROOT_URLCONF=__name__)
    global urlpatterns
    urlpatterns = [path("raw", raw), path("upload", upload)]
    return get_asgi_application()


@pytest.fixture(scope="module", params=["stock", "pooled"])
def protocol(request, aiopool):
    return pooled_protocol(aiopool) if request.param == "pooled" else "httptools"


@pytest.fixture(scope="module")
def client(request, protocol):
    """A client of a server that runs an application of the framework."""
    pytest.importorskip(request.param.__name__, reason="the extra test-uvicorn is not installed")
    with serving(protocol, request.param(), lifespan="off") as address:
        url = "http://{}:{}".format(*address)
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            yield client


def of(*frameworks):
    return pytest.mark.parametrize("client", frameworks, indirect=True, ids=lambda make: make.__name__)


@of(starlette, fastapi, django)
def test_a_plain_body(client):
    assert client.post("/raw", content=BODY).json() == DIGEST


@of(starlette)
def test_a_stream(client):
    assert client.post("/stream", content=BODY).json() == DIGEST


@of(fastapi)
def test_json(client):
    numbers = list(range(300_000))
    assert client.post("/json", json=numbers).json() == sum(numbers)


@of(fastapi, django)
def test_a_file_in_a_form(client):
    answer = client.post("/upload", files={"file": ("name.bin", BODY)})
    assert answer.json() == ["name.bin", len(BODY), DIGEST]
