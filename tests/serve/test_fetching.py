"""URLs in requests: only allowed hosts, never addresses of the server's own network."""

import http.server
import threading
import time

import pytest

from conditional_detr.serve import fetching
from conditional_detr.serve.fetching import allowed, fetch
from conditional_detr.serve.refusals import Refusal
from tests.serve.test_detection import refusal

PUBLIC = "93.184.215.14"


def refused(url, hosts=("images.example",), addresses=(PUBLIC,)):
    with pytest.raises(Refusal) as caught:
        fetch(url, hosts, max_bytes=1000, deadline=time.monotonic() + 2, resolve=lambda host, port: list(addresses))
    return caught.value


def test_hosts_are_compared_as_a_whole():
    hosts = ("images.example", "*.cdn.example")
    assert allowed("IMAGES.example.", hosts)
    assert allowed("a.b.cdn.example", hosts)
    for other in ("images.example.evil.org", "evilimages.example", "cdn.example", "xcdn.example", ""):
        assert not allowed(other, hosts)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "::1", "fd00::1", "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1", "64:ff9b:1::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address):
    found = refused("http://images.example/a.jpg", addresses=[PUBLIC, address])
    assert (found.status, found.code) == (403, "host_not_allowed")
    assert "not on the public internet" in found.message


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://other.example/a.jpg", 403),
        ("http://images.example@other.example/a.jpg", 422),
        ("http://other.example#@images.example/", 403),
        ("file:///etc/passwd", 422),
        ("ftp://images.example/a", 422),
        ("http:///a", 422),
        ("http://images.example:99999/", 422),
        ("http://[::1", 422),
        ("http://127.0.0.1/", 403),
        ("", 422),
    ],
)
def test_other_hosts_and_schemes_are_refused(url, status):
    assert refused(url).status == status


@pytest.fixture
def site(monkeypatch):
    """A site on loopback that stands for a public one: its address counts as public."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1/secret")
                self.end_headers()
                return
            self.send_response(200 if self.path.startswith("/good") else 404)
            self.end_headers()
            self.wfile.write(self.headers["Host"].encode() + b"x" * (5000 if "large" in self.path else 1))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(fetching, "_is_public", lambda address: True)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_the_address_that_was_checked_is_the_one_connected_to(site):
    def get(path):
        return fetch(
            f"http://images.example:{site}{path}",
            ("images.example",),
            max_bytes=1000,
            deadline=time.monotonic() + 5,
            resolve=lambda host, port: ["127.0.0.1"],
        )

    assert get("/good?x=1") == f"images.example:{site}x".encode()
    for path, words in (("/bad", "status 404"), ("/redirect", "status 302"), ("/good-large", "larger than 1000")):
        with pytest.raises(Refusal, match=words):
            get(path)


def test_a_request_may_name_urls_only_where_the_server_allows_them(client, serving):
    body = {"images": [{"url": "http://localhost/a.jpg"}]}
    assert "fetches no images" in refusal(client.post("/v1/detect", json=body), 403)
    open_client = serving(url_hosts=("localhost",))
    assert "'localhost' is not on the public internet" in refusal(open_client.post("/v1/detect", json=body), 403)
