"""`lavida serve`: a page where a person drops a video, types anomalies, and sees the timeline and the overlay.

    page.html.jinja, page.css, page.js   the page: one file, which asks for nothing but this server
    app.py                               what it asks for (Starlette)
    jobs.py                              one video after another; temporary files

It listens on 127.0.0.1 unless told otherwise, and knows no users: who lets the network in lets everyone in it use the
detector.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from aesampler.errors import MissingExtra, StorageError
from lavida.detectors import Detector
from lavida.serve.jobs import Limits, Runs

__all__ = ["Limits", "Runs", "serve"]

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def serve(
    detector: Detector, limits: Limits, *, host: str = "127.0.0.1", port: int = 0, told: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C. told: is given the address, once it listens. port: 0 for any free one.

    Raises StorageError where the port is taken, MissingExtra where the server's packages are not there.
    """
    try:
        import uvicorn

        from lavida.serve.app import application
    except ImportError as error:
        raise MissingExtra.of(error.name or "uvicorn", "train") from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(
            f"it cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            do="give another --port, 0 for any free one, or another --host",
        ) from error
    with listening:
        everywhere = host in ("0.0.0.0", "::")
        shown = f"[{host}]" if ":" in host else host
        app = application(Runs(detector, limits), ("*",) if everywhere else (*LOCAL, shown))
        told(f"open http://{shown}:{listening.getsockname()[1]}/ in a browser; Ctrl-C ends it")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
            server.run(sockets=[listening])
