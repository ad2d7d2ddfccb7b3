"""A small HTTP server and client, one connection that is kept."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Client:
    """Posts to the server whose port comes through a pipe."""

    def __init__(self, pipe: Any) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", pipe.recv())

    def post(self, body: bytes) -> bytes:
        self._connection.request("POST", "/", body)
        return self._connection.getresponse().read()


def serve(pipe: Any, answer: Callable[[BaseHTTPRequestHandler, bytes], bytes]) -> None:
    """Answer each POST, in a worker process, for as long as it lives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            reply = answer(self, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *arguments: Any) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()
