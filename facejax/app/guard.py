"""What keeps other pages out of the app: a check of Host and Origin on every request, and headers on every response.

A page on the web can make the browser send requests to 127.0.0.1. Where its own name resolves to 127.0.0.1 (DNS
rebinding) the browser even takes both for one site, but the Host header tells; posts from another site carry its
Origin.
"""

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facejax.app.errors import RequestError

# Names, without a port, under which the app may be asked.
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
    # Results are about people: no copy stays in the browser's cache.
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that turns away what does not come from the app's own page or from a programme."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":  # start and end of the server; there are no web sockets
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
            return RequestError(421, "wrong_host", "This page is served to 127.0.0.1 and localhost only.")
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        own = origin is None or origin == f"http://{host}"
        # A link from elsewhere may open the page, nothing more.
        linked = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if not own or (site not in ("none", "same-origin") and not linked):
            return RequestError(403, "other_site", "Requests from other sites are not answered.")
        return None
