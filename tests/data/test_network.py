import socket
import threading
import time

from jaxdl.data import network


def test_a_server_that_has_the_file(mnist, serve):
    unit = serve(mnist)
    assert network.unreachable(unit.urls()["train"][0]) is None


def test_a_server_that_has_it_not(mnist, serve):
    assert "404" in network.unreachable(serve(mnist).home + "nothing-here")


def test_a_refused_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "refused" in network.unreachable(f"http://127.0.0.1:{port}/").lower()


def test_a_name_that_does_not_exist():
    assert network.unreachable("http://nowhere.invalid/")


def test_no_url_at_all():
    assert network.unreachable("http:///")
    assert network.unreachable("nonsense")


def test_silence_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        assert network.unreachable(address, patience=0.3)
        assert time.monotonic() - start < 2


def test_a_name_server_that_hangs(monkeypatch):
    release = threading.Event()

    def hang(*arguments, **options):
        release.wait(30)
        raise socket.gaierror("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    try:
        reason = network.unreachable("http://nowhere.invalid/", patience=0.3)
    finally:
        release.set()
    assert reason == "no answer within 0.3 s"
    assert time.monotonic() - start < 2
