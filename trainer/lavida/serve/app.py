"""The page and what it asks for, as a Starlette application.

    GET    /                     the page: one file, nothing from elsewhere, a policy that forbids all else
    POST   /jobs?anomaly=&name=  the body is the video; 201 {"id"}
    GET    /jobs/ID?since=N      how far it is, the scores from the Nth on, at the end the answer
    GET    /jobs/ID/FILE         a file of the answer
    DELETE /jobs/ID              take it away

An error is {"error": "..."}, one line that says what to do. Requests of other sites are refused (Host and Origin), so
that a page elsewhere cannot use the browser of someone who runs this one.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aesampler.errors import AesamplerError
from lavida.serve.jobs import Full, Run, Runs

EXAMPLES = ("a bicycle", "a person falling", "a fight", "smoke or fire", "a car on the pavement")
WORDS = 30
"""Anomalies of one run, at most: the longest list that LAVIDA was trained with."""
LETTERS = 200
"""Letters of an anomaly, at most."""


def page(runs: Runs) -> tuple[str, str]:
    """The page, and the content security policy that goes with it."""
    style, script = (_packaged(name) for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(_packaged("page.html.jinja")).render(
        style=Markup(style),
        script=Markup(script),
        detector=runs.detector.name,
        reads=runs.detector.uses_categories,
        limit=runs.limits.upload_bytes,
        size=f"{runs.limits.upload_bytes / 1e6:,.0f} MB",
        examples=EXAMPLES,
    )
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def application(runs: Runs, hosts: tuple[str, ...]) -> Starlette:
    """The application. hosts: names by which it may be called, `*` for any; entering and leaving it opens and closes
    `runs`.
    """
    text, policy = page(runs)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with runs:
            yield

    async def index(request: Request) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/jobs", _told(runs, _begin), methods=["POST"]),
            Route("/jobs/{key}", _told(runs, _state), methods=["GET"]),
            Route("/jobs/{key}", _told(runs, _remove), methods=["DELETE"]),
            Route("/jobs/{key}/{name}", _told(runs, _file), methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(_Guard)],
        lifespan=lifespan,
    )


class _Refused(AesamplerError):
    """A request that is answered with an error. status: of HTTP."""

    def __init__(
        self, status: int, what: str, *, where: str = "", got: object = None, allowed: object = None, do: str = ""
    ) -> None:
        super().__init__(what, where=where, got=got, allowed=allowed, do=do)
        self.status = status


Handler = Callable[[Runs, Request], Awaitable[Response]]


def _told(runs: Runs, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors become answers."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(runs, request)
        except _Refused as error:
            return JSONResponse({"error": str(error)}, status_code=error.status)
        except Full as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        except AesamplerError as error:
            return JSONResponse({"error": str(error)}, status_code=422)

    return answered


async def _begin(runs: Runs, request: Request) -> Response:
    anomalies = tuple(dict.fromkeys(word.strip() for word in request.query_params.getlist("anomaly") if word.strip()))
    if runs.detector.uses_categories and not anomalies:
        raise _Refused(422, "no anomaly was named", do="say in words what is looked for")
    if len(anomalies) > WORDS or any(len(word) > LETTERS for word in anomalies):
        raise _Refused(422, "too many anomalies, or too long ones", allowed=f"{WORDS} of {LETTERS} letters")
    name = Path(request.query_params.get("name", "video")).name or "video"
    if int(request.headers.get("content-length", 0)) > runs.limits.upload_bytes:
        raise _too_large(runs, name)
    folder = runs.room()
    try:
        await _receive(runs, request, folder / "upload", name)
    except BaseException:
        runs.give_up(folder)
        raise
    run = await run_in_threadpool(runs.add, folder, folder / "upload", name, anomalies)
    if await request.is_disconnected():  # nobody will ever ask for it
        await run_in_threadpool(runs.remove, run.key)
    return JSONResponse({"id": run.key}, status_code=201)


async def _receive(runs: Runs, request: Request, path: Path, name: str) -> None:
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > runs.limits.upload_bytes:
                    raise _too_large(runs, name)
                await run_in_threadpool(file.write, chunk)
    except ClientDisconnect as error:
        raise _Refused(400, "the upload broke off") from error
    if not size:
        raise _Refused(422, "the file is empty", where=name)


def _too_large(runs: Runs, name: str) -> _Refused:
    most = f"{runs.limits.upload_bytes / 1e6:,.0f} MB"
    return _Refused(
        413, f"the video is larger than {most}", where=name, do="cut it, or start lavida serve with a higher --max-mb"
    )


async def _state(runs: Runs, request: Request) -> Response:
    run = _run(runs, request)
    since = request.query_params.get("since", "0")
    if not since.isdecimal():
        raise _Refused(422, "since is a number", got=since)
    return JSONResponse(run.to_json(int(since), runs.ahead(run)))


async def _remove(runs: Runs, request: Request) -> Response:
    await run_in_threadpool(runs.remove, request.path_params["key"])
    return Response(status_code=204)


async def _file(runs: Runs, request: Request) -> Response:
    run, name = _run(runs, request), request.path_params["name"]
    path = run.answer.files.get(name) if run.answer is not None else None
    if path is None or not path.is_file():
        raise _Refused(404, "there is no such file", where=name)
    return FileResponse(path)


def _run(runs: Runs, request: Request) -> Run:
    run = runs.get(request.path_params["key"])
    if run is None:
        raise _Refused(404, "this run is gone", do="send the video again")
    return run


class _Guard:
    """Refuses what another site makes a browser send, and forbids browsers to guess, keep or frame our answers."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != headers.get(b"host", b"").decode(
            "latin-1"
        ):
            await JSONResponse({"error": "this request comes from another site"}, status_code=403)(
                scope, receive, guarded
            )
            return
        await self._app(scope, receive, guarded)


def _packaged(name: str) -> str:
    return (importlib.resources.files("lavida.serve") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The name by which a content security policy allows this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
