"""The search service for agents, editors and browsers: tools of the Model Context Protocol, and a page of its own.

    stdio                          an agent or editor starts the command and talks to it
    http://127.0.0.1:PORT/mcp      the same tools
                         /         the page: page.html, which asks /api

Only the loopback interface is listened on, and only requests to it by its own name are answered: a web page elsewhere
cannot ask through the browser of who runs it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.console import UserError, need
from common.html import highlighted
from data.search.service import Service

HERE = Path(__file__).parent
HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
LARGEST = 100_000  # bytes of a request
ABOUT = "Searches {source}: {units:,} functions, classes and files, by meaning and by words."


def mcp_server(service: Service) -> Any:
    """An MCPServer with the tools search, find_related and read_unit."""
    module = need("mcp.server.mcpserver", why="search.py serve", install="'mcp>=2'")
    refused = need("mcp.server.mcpserver.exceptions", why="search.py serve", install="'mcp>=2'").ToolError
    server = module.MCPServer("code-search", instructions=ABOUT.format(**service.about), log_level="WARNING")

    async def answer(work: Callable[[], Any]) -> Any:
        try:
            return await in_thread(work)
        except UserError as error:
            raise refused(str(error)) from None

    @server.tool()
    async def search(query: str, k: int = 10) -> list[dict[str, Any]]:
        """Find code in the repository by what it does or what it is called. Best first, each with path, line and code.

        query  a question, a description or an identifier
        k      how many results, at most 100
        """
        return await answer(lambda: list(map(told, service.search(query, k))))

    @server.tool()
    async def find_related(path: str, line: int, k: int = 10) -> list[dict[str, Any]]:
        """Find code like the function, class or file at a line of a file, by meaning."""
        return await answer(lambda: list(map(told, service.related(path, line, k))))

    @server.tool()
    async def read_unit(path: str, line: int) -> dict[str, Any]:
        """Read the innermost function or class at a line of a file, or the file's outline."""
        return await answer(lambda: told(service.unit(path, line)))

    return server


def told(result: dict) -> dict:
    """What a tool says of a unit."""
    source = result.get("source") or {}
    lines = source.get("lines") or [None, None]
    kept = {key: result[key] for key in ("score", "kind") if key in result}
    return {"path": result["path"], "line": lines[0], "end_line": lines[1], "name": source.get("qualname")} | kept | {
        "id": result["id"], "code": result["code"],
    }  # fmt: skip


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of work that computes, while other requests are answered."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def web_app(service: Service) -> Any:
    """A Starlette application: the protocol at /mcp, the page at /, and what the page asks."""
    server = mcp_server(service)
    security = need("mcp.server.transport_security", why="search.py serve", install="'mcp>=2'")
    responses = need("starlette.responses", why="search.py serve", install="'mcp>=2'")

    def route(path: str, *methods: str):
        def add(answer):
            @functools.wraps(answer)
            async def checked(request):
                if (request.url.hostname or "") not in NAMES or not _same_origin(request):
                    return responses.JSONResponse({"error": "only requests to this machine"}, status_code=403)
                try:
                    return await answer(request)
                except (UserError, ValueError, KeyError, TypeError) as error:
                    return responses.JSONResponse({"error": str(error)}, status_code=400)

            return server.custom_route(path, methods=list(methods))(checked)

        return add

    @route("/", "GET")
    async def page(_request):
        text = (HERE / "page.html").read_text(encoding="utf-8")
        return responses.HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    @route("/api/about", "GET")
    async def about(_request):
        return responses.JSONResponse(service.about | {"feedback": service.feedback is not None})

    @route("/api/search", "GET")
    async def search(request):
        asked = request.query_params
        found = await in_thread(lambda: service.search(asked["q"], int(asked.get("k", 10))))
        return responses.JSONResponse([shown(one) for one in found])

    @route("/api/related", "GET")
    async def related(request):
        asked = request.query_params
        found = await in_thread(lambda: service.related(asked["path"], int(asked["line"]), int(asked.get("k", 10))))
        return responses.JSONResponse([shown(one) for one in found])

    @route("/api/feedback", "POST")
    async def feedback(request):
        body = b""
        async for chunk in request.stream():  # a length that a request claims is not relied on
            body += chunk
            if len(body) > LARGEST:
                raise ValueError("too long")
        said = json.loads(body)
        await in_thread(lambda: service.judge(str(said["query"]), str(said["id"]), bool(said["good"])))
        return responses.JSONResponse({})

    names = [f"{name}:*" for name in NAMES]
    settings = security.TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]
    )
    return server.streamable_http_app(transport_security=settings, host=HOST)


def shown(result: dict) -> dict:
    """What the page shows of a unit: its code as HTML, escaped and highlighted."""
    return told(result) | {"html": str(highlighted(result["code"], result["path"]))}


def _same_origin(request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.url.scheme}://{request.headers.get('host')}"


def listen(port: int) -> socket.socket:
    """A socket on the loopback interface; 0: any free port. UserError if the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # from here on questions wait to be answered
    except OSError as error:
        listener.close()
        raise UserError(f"port {port} is not available ({error.strerror}); give another --http") from None
    return listener


def run_web(service: Service, listener: socket.socket) -> None:
    """Serve the page and the protocol until Ctrl-C."""
    uvicorn = need("uvicorn", why="search.py serve", install="'mcp>=2'")
    uvicorn.Server(uvicorn.Config(web_app(service), log_level="warning")).run(sockets=[listener])
