"""Cross-origin requests: which pages in a browser may call the API (the Fetch standard, "CORS protocol").

Without origins in the configuration nothing of this is in the application, and browsers keep other pages out.
"""

from falcon import asgi

ANY = "*"
_MAX_AGE_S = "600"
"""A browser asks again after so long."""


class CrossOrigin:
    """Falcon's middleware."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origins)

    async def process_response(
        self, req: asgi.Request, resp: asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Called by falcon after every request, also after one that failed."""
        if not self._any:
            resp.append_header("Vary", "Origin")
        origin = req.get_header("Origin")
        if origin is None or not (self._any or origin in self._origins):
            return
        resp.set_header("Access-Control-Allow-Origin", ANY if self._any else origin)
        resp.set_header("Access-Control-Expose-Headers", "Allow, Retry-After")
        allowed = resp.get_header("Allow")
        if req.method != "OPTIONS" or allowed is None or not req.get_header("Access-Control-Request-Method"):
            return
        resp.set_header("Access-Control-Allow-Methods", allowed)
        wanted = req.get_header("Access-Control-Request-Headers")
        if wanted:
            resp.set_header("Access-Control-Allow-Headers", wanted)
            resp.append_header("Vary", "Access-Control-Request-Headers")
        resp.set_header("Access-Control-Max-Age", _MAX_AGE_S)
