"""Runs the app's server on this machine's loopback address."""

import asyncio
import logging
import socket
import sys
import webbrowser

import numpy as np
import uvicorn

from facejax.app.server import create_app
from facejax.inference import FaceAnalyzer

HOST = "127.0.0.1"


def serve(analyzer: FaceAnalyzer, *, port: int, browser: bool = True) -> None:
    """Serves the page until interrupted.

    Args:
        analyzer: Detects the faces and predicts their attributes.
        port: Port on 127.0.0.1; 0 for a free one.
        browser: Whether to open a browser.

    Raises:
        OSError: The port is taken.
    """
    with listen(port) as listener:
        warm_up(analyzer)
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"the page is at {address}; nothing leaves this machine; press Ctrl+C to stop", file=sys.stderr)
        if browser:
            webbrowser.open(address)
        # A clip being processed at shutdown is cancelled, which is not an error.
        logging.getLogger("uvicorn.error").addFilter(_is_error)
        # Low limits, as the only client is a browser on this machine.
        config = uvicorn.Config(
            create_app(analyzer),
            log_config=None,  # keep the logging setup: warnings and errors go to standard error
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _is_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback address; connections wait until they are served.

    Raises:
        OSError: The port is taken or invalid.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # with SO_REUSEADDR, two sockets may bind to the same port while neither listens
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"cannot listen on port {port} ({error}); --port 0 picks a free one") from error
    return listener


def warm_up(analyzer: FaceAnalyzer) -> None:
    """Compiles P-Net, and the networks for one face; R- and O-Net are compiled when the first face is found."""
    analyzer.analyze(np.zeros((480, 640, 3), np.uint8))
    for model in analyzer.models:
        model.outputs([np.zeros((8, 8, 3), np.uint8)])
