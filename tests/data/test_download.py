"""Downloads of MNIST: from a mirror, and from servers that are not one."""

import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from ddpmctl.data import downloads, load_dataset
from ddpmctl.data.sources import SOURCES

from .support import TRAIN_IMAGES, check_is_small_mnist, refusal, write_mnist

HANGS = 60
"""Seconds that a bad server holds a client: whoever gives up earlier, on whatever machine, was not held."""

CLIENT_GAVE_UP = threading.Event()

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A local web server that answers in this way; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def mirror(archives: dict[str, bytes]) -> Answer:
    """Answer as a mirror of MNIST."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = archives.get(request.path.strip("/"))
        send(request, 404 if body is None else 200, body or b"")

    return answer


@pytest.fixture
def archives(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The small MNIST as it is downloaded; for this test these are the archives that are known, and we are on-line."""
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    made = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}
    know(monkeypatch, archives=made)
    return made


def know(monkeypatch: pytest.MonkeyPatch, name: str = "mnist", **files: dict[str, bytes]) -> None:
    """Let these be the files or archives of a dataset, for this test."""
    digests: dict[str, Any] = {
        kind: {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} for kind, made in files.items()
    }
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], **digests))


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *addresses: str, name: str = "mnist") -> None:
    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], mirrors=addresses))


@contextmanager
def silence() -> Iterator[str]:
    """A server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def left_in(cache: Path) -> list[str]:
    """What is in the cache, but for locks, which stay."""
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.suffix != ".lock")


def test_mnist_is_downloaded_into_the_cache_once(
    cache: Path, archives: dict[str, bytes], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(mirror(archives)) as address:
        use_mirrors(monkeypatch, address)
        check_is_small_mnist(load_dataset("mnist", 32))
    assert left_in(cache) == ["MNIST", "MNIST/raw", *sorted(f"MNIST/raw/{name}" for name in files)]
    assert {name: (cache / "MNIST" / "raw" / name).read_bytes() for name in files} == files
    # The server is gone: this comes from the cache.
    check_is_small_mnist(load_dataset("mnist", 32))


def test_a_damaged_cache_is_downloaded_anew(
    cache: Path, archives: dict[str, bytes], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(cache, files | {TRAIN_IMAGES: b"damaged"})
    with serving(mirror(archives)) as address:
        use_mirrors(monkeypatch, address)
        check_is_small_mnist(load_dataset("mnist", 32))


def test_a_mirror_that_does_not_answer_is_passed_over(
    cache: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(mirror({})) as empty, serving(mirror(archives)) as address:
        use_mirrors(monkeypatch, closed_port(), empty, address)
        check_is_small_mnist(load_dataset("mnist", 32))


def speak(text: bytes) -> Answer:
    """Answer in words that are not HTTP."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(text)
        request.close_connection = True

    return answer


def portal(request: BaseHTTPRequestHandler) -> None:
    """As the network of a hotel answers everything."""
    send(request, 200, b"<html>Please log in</html>")


def cut_short(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"\x1f\x8b and no more", length=100_000)


def only_promise(request: BaseHTTPRequestHandler) -> None:
    send(request, 200 if request.command == "HEAD" else 404, b"")


def babble_after_the_probe(request: BaseHTTPRequestHandler) -> None:
    (portal if request.command == "HEAD" else speak(b"SSH-2.0-OpenSSH_9.6\r\n"))(request)


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize("answer", [portal, cut_short, only_promise, babble_after_the_probe], ids=lambda f: f.__name__)
def test_what_is_not_mnist_is_refused_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with serving(answer) as address:
        use_mirrors(monkeypatch, address)
        error = refusal()
    assert error.message.startswith("the download of MNIST failed: ")
    assert left_in(cache) == []


def hang_in_the_middle(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"\x1f\x8b and so on", length=100_000)
    if request.command == "GET":
        request.wfile.flush()
        CLIENT_GAVE_UP.wait(HANGS)


@pytest.mark.usefixtures("archives")
def test_a_server_that_hangs_in_the_middle_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TRANSFER_SECONDS", 0.5)
    with serving(hang_in_the_middle) as address:
        use_mirrors(monkeypatch, address)
        started = time.monotonic()
        error = refusal()
        assert time.monotonic() - started < HANGS
        CLIENT_GAVE_UP.set()
    assert error.message.startswith("the download of MNIST failed: ")
    assert left_in(cache) == []


def test_two_downloads_at_once_are_one(
    cache: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    answer = mirror(archives)

    def counted(request: BaseHTTPRequestHandler) -> None:
        if request.command == "GET":
            fetched.append(request.path)
            time.sleep(0.1)
        answer(request)

    with serving(counted) as address:
        use_mirrors(monkeypatch, address)
        with ThreadPoolExecutor() as pool:
            for data in [pool.submit(load_dataset, "mnist", 32) for _ in range(3)]:
                check_is_small_mnist(data.result())
    # One pass over the files: nobody fetched them anew.
    assert [name for name, _ in groupby(fetched)] == [f"/{name}" for name in archives]
    assert [name for name in left_in(cache) if "ubyte" not in name] == ["MNIST", "MNIST/raw"]


def test_archives_whose_content_is_not_mnist_are_refused_and_leave_nothing(
    cache: Path, archives: dict[str, bytes], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], files=dict.fromkeys(files, "0" * 64)))
    with serving(mirror(archives)) as address:
        use_mirrors(monkeypatch, address)
        assert "does not match the checksum of the MNIST file of that name" in refusal().message
    assert left_in(cache) == []


def test_a_download_does_not_change_how_others_use_the_network(
    cache: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = socket.getdefaulttimeout()
    with serving(mirror(archives)) as address:
        use_mirrors(monkeypatch, address)
        load_dataset("mnist", 32)
    assert socket.getdefaulttimeout() == before


@pytest.mark.usefixtures("archives")
def test_a_server_that_accepts_and_never_answers_is_given_up_after_three_seconds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silence() as address:
        use_mirrors(monkeypatch, address)
        started = time.monotonic()
        error = refusal()
    assert 2.5 < time.monotonic() - started < HANGS
    assert error.message == f"MNIST is not in the cache and cannot be downloaded: no answer from {address}"
    assert not cache.exists()


def drip(request: BaseHTTPRequestHandler) -> None:
    """Answer a letter at a time, each soon enough for a socket's own time limit."""
    for letter in b"HTTP/1.0 200 OK\r\nServer: slow\r\n\r\n" * 20:
        try:
            request.wfile.write(bytes([letter]))
        except OSError:
            return
        time.sleep(0.1)


def test_a_server_that_answers_a_letter_at_a_time_is_given_up_too() -> None:
    with serving(drip) as address:
        started = time.monotonic()
        assert not downloads.answers(address, seconds=0.3)
        assert time.monotonic() - started < HANGS


@pytest.mark.parametrize("answer", [speak(b"SSH-2.0-OpenSSH_9.6\r\n"), speak(b"")], ids=["ssh", "hung up"])
def test_a_server_that_does_not_speak_http_does_not_answer(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    # A thread that dies of what it heard would print a traceback.
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    with serving(answer) as address:
        assert not downloads.answers(address)
        assert died == []


@pytest.mark.parametrize("address", ["http://", "nonsense", "http://127.0.0.1:99999/"])
def test_an_address_that_is_none_does_not_answer(address: str) -> None:
    assert not downloads.answers(address)


def test_the_real_mnist_is_downloaded(mnist_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPMCTL_OFFLINE", "0")
    raw = mnist_dir / "MNIST" / "raw"
    real = {f"{name}.gz": gzip.compress((raw / name).read_bytes(), compresslevel=1) for name in SOURCES["mnist"].files}
    know(monkeypatch, archives=real)
    with serving(mirror(real)) as address:
        use_mirrors(monkeypatch, address)
        data = load_dataset("mnist", 28)
    assert len(data) == 60_000
    assert downloads.is_complete(cache, SOURCES["mnist"])
