"""Errors that the page can show: a machine-readable code, a message for users and an HTTP status."""

from starlette.responses import JSONResponse


class RequestError(Exception):
    """An error to be sent in response to a request.

    Attributes:
        status: HTTP status.
        code: Machine-readable code, such as ``too_large``.
        message: A sentence for users that says what is wrong or what to do.
    """

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> JSONResponse:
        """``{"error": {"code", "message"}}``; closes the connection, as the rest of an upload is not read."""
        return JSONResponse(self.to_dict(), self.status, headers={"Connection": "close"})

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The body of the response."""
        return {"error": {"code": self.code, "message": self.message}}
