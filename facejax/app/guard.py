"""Protects the app from other web pages: checks Host and Origin of every request, adds headers to every response.

Any page on the web can make the browser send requests to 127.0.0.1. If its own host name resolves to 127.0.0.1 (DNS
rebinding), the browser even treats both as the same site, but the Host header reveals it. Cross-site POST requests
carry the Origin of the other site.
"""

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facejax.app.errors import RequestError

# Host names, without a port, that the app accepts.
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Results are about people, so no copy must stay in the browser's cache.
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that accepts requests only from the app's own page or from programs other than browsers."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":  # startup and shutdown of the server; there are no web sockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        error = self._error(scope)
        await (error.response() if error else self._app)(scope, receive, with_headers)

    def _error(self, scope: dict[str, Any] | Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host.rsplit(":", 1)[0] not in LOOPBACK:
            return RequestError(421, "wrong_host", "This page is only available under 127.0.0.1 and localhost.")
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        own = origin is None or origin == f"http://{host}"
        # A link on another site may open the page, but nothing else.
        linked = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if not own or (site not in ("none", "same-origin") and not linked):
            return RequestError(403, "other_site", "Requests from other sites are not allowed.")
        return None
