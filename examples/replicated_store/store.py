"""A toy store whose keys are on every node: right as long as more than half of the nodes reach each other.

    python store.py NAME NAME=ADDRESS NAME=ADDRESS …

To write, a node asks for the newest version of a key and stores a newer one; to read, it asks for the newest
one and stores that again. It takes a majority of the nodes each time, so any two operations have a node in
common (Attiya, Bar-Noy and Dolev, "Sharing memory robustly in message-passing systems", 1995).
"""

from __future__ import annotations

import json
import queue
import socket
import socketserver
import sys
import threading
from typing import Any

PORT = 7000
PATIENCE_S = 1.0  # that a node has with another one

Record = tuple[int, str, Any]  # count, who wrote it, value: compared in this order


class NoMajority(Exception):
    """Too few nodes answer: to go on would be to tell a lie later."""


def get(address: str, key: str) -> Any:
    return _result(ask(address, {"do": "get", "key": key}, timeout=30))


def put(address: str, key: str, value: Any) -> None:
    _result(ask(address, {"do": "put", "key": key, "value": value}, timeout=30))


def _result(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise NoMajority(answer["error"])
    return answer["value"]


def ask(address: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    with socket.create_connection((address, PORT), timeout=timeout) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())


class Replica:
    def __init__(self, name: str, addresses: dict[str, str]) -> None:
        self.name = name
        self.addresses = addresses
        self.records: dict[str, Record] = {}
        self.lock = threading.Lock()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        key = request["key"]
        match request["do"]:
            case "newest":
                return {"record": self.records.get(key, (0, "", None))}
            case "store":
                with self.lock:
                    self.records[key] = max(self.records.get(key, (0, "", None)), tuple(request["record"]))
                return {}
            case "get":
                newest = self.newest(key)
                self.ask_majority({"do": "store", "key": key, "record": newest})
                return {"value": newest[2]}
            case "put":
                record = (self.newest(key)[0] + 1, self.name, request["value"])
                self.ask_majority({"do": "store", "key": key, "record": record})
                return {"value": None}
        raise ValueError(request)

    def newest(self, key: str) -> Record:
        answers = self.ask_majority({"do": "newest", "key": key})
        return max(tuple(answer["record"]) for answer in answers)

    def ask_majority(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        told: queue.Queue[dict[str, Any] | None] = queue.Queue()

        def ask_one(address: str) -> None:
            try:
                told.put(ask(address, request, PATIENCE_S))
            except OSError:
                told.put(None)

        for address in self.addresses.values():
            threading.Thread(target=ask_one, args=[address], daemon=True).start()
        answers: list[dict[str, Any]] = []
        for _ in self.addresses:
            answer = told.get()
            if answer is not None:
                answers.append(answer)
            if len(answers) > len(self.addresses) // 2:
                return answers
        raise NoMajority(f"{self.name} reaches {len(answers)} of {len(self.addresses)} nodes")


class Handler(socketserver.StreamRequestHandler):
    replica: Replica

    def handle(self) -> None:
        try:
            answer = self.replica.answer(json.loads(self.rfile.readline()))
        except NoMajority as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main(name: str, *others: str) -> None:
    Handler.replica = Replica(name, dict(other.split("=") for other in others))
    with Server(("", PORT), Handler) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
