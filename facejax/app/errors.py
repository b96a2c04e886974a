"""Errors that the page can show: a code for programmes, a sentence for people, an HTTP status."""

from starlette.responses import JSONResponse


class RequestError(Exception):
    """A request that is answered by an error.

    Attributes:
        status: Of HTTP.
        code: One word for programmes, such as ``too_large``.
        message: A sentence that says what to do.
    """

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> JSONResponse:
        """``{"error": {"code", "message"}}``; the connection closes, since the rest of an upload is not read."""
        return JSONResponse(self.to_dict(), self.status, headers={"Connection": "close"})

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The body of the response."""
        return {"error": {"code": self.code, "message": self.message}}
