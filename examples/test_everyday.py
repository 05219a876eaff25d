"""What tests do every day works inside a sandbox as it does outside."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import sqlite3
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.shared_memory import SharedMemory


def test_database(tmp_path):
    """tmp_path is a real directory of the host: its files are there after the run."""
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("create table fruit (name text, price integer)")
        shop.executemany("insert into fruit values (?, ?)", [("apple", 3), ("pear", 4)])
        assert shop.execute("select sum(price) from fruit").fetchone() == (7,)
    shop.close()


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args):
        """Say nothing."""


def test_http_server():
    """Port 8080 is always free: each sandbox has a loopback interface of its own."""
    with HTTPServer(("127.0.0.1", 8080), Hello) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        client.close()
        server.shutdown()


def test_pipeline():
    assert subprocess.check_output("seq 100 | sort -n | tail -1", shell=True) == b"100\n"


def fill(name: str) -> None:
    memory = SharedMemory(name)
    memory.buf[:5] = b"hello"
    memory.close()


def test_shared_memory(trace):
    """/dev/shm is the sandbox's own: nobody else's segments are there, whatever their names."""
    memory = SharedMemory(trace, create=True, size=5)
    try:
        worker = multiprocessing.get_context("fork").Process(target=fill, args=(trace,))
        worker.start()
        worker.join()
        assert bytes(memory.buf[:5]) == b"hello"
        assert os.listdir("/dev/shm") == [trace]
    finally:
        memory.close()
        memory.unlink()
