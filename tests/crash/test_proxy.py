"""The proxy carries bytes, and stops carrying them in each of its ways."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from crash.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(one: socket.socket) -> None:
            with one:
                while data := one.recv(1024):
                    one.sendall(data)

        def accept() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[one], daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with closing(Proxy(lambda: echo)) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_a_whole_line_carries_bytes_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(1024) == b"hello"


def test_a_cut_line_ends_what_was_open_and_refuses_what_is_new(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(1024) == b"hello"
        proxy.cut()
        assert client.recv(1024) == b""
    with connect(proxy) as client:
        assert client.recv(1024) == b""
    proxy.heal()
    test_a_whole_line_carries_bytes_both_ways(proxy)


def test_a_stalled_line_keeps_bytes_until_it_is_healed(proxy: Proxy) -> None:
    proxy.stall()
    with connect(proxy) as client:
        client.sendall(b"hello")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1024)
        client.settimeout(5)
        proxy.heal()
        assert client.recv(1024) == b"hello"


def test_a_server_that_answers_500_does_so_to_each_request(proxy: Proxy) -> None:
    proxy.answer_500()
    answer = httpx.get(f"http://127.0.0.1:{proxy.port}/", trust_env=False)
    assert answer.status_code == 500
