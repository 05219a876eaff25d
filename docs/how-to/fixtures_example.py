import http.client
import http.server
import threading

import pytest


@pytest.fixture(scope="session")
def words():
    # Set up once, by pytest itself; the isolated tests inherit it with the fork.
    return ["made", "once"]


@pytest.mark.isolated
def test_has_a_copy_of_its_own(words):
    words.append("changed")


@pytest.mark.isolated
def test_sees_no_change_of_another(words):
    assert words == ["made", "once"]


@pytest.mark.isolated(scope="class")
class TestServer:
    # One sandbox for the class, and so one loopback: the fixture of class scope starts the server in it.
    @pytest.fixture(scope="class")
    @staticmethod
    def port():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
        server.server_close()

    def get(self, port, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    def test_found(self, port):
        assert self.get(port, "/") == 200

    def test_not_found(self, port):
        assert self.get(port, "/no-such-page") == 404


@pytest.fixture(scope="session")
def worker():
    # Threads do not survive a fork: a fixture with one is of no use to a test that inherits it.
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    thread.start()
    yield thread
    done.set()
    thread.join()


@pytest.mark.isolated(fixtures="fresh")
def test_sets_up_all_fixtures_in_its_sandbox(worker):
    assert worker.is_alive()
