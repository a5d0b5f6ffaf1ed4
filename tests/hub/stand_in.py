"""A stand-in for the HTTP API of the Hugging Face hub, as far as huggingface_hub needs it to create, upload and download.

It is not the hub: it knows one token, keeps files in memory, and checks little.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_stand_in"


class Hub:
    """Repositories of the stand-in: id -> list of commits, each a map from names to contents. refused: status of all writes."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.refused: int | None = None
        self.unknown: list[str] = []  # requests that the stand-in has no answer to
        self.address = ""

    def files(self, repo_id: str) -> dict[str, bytes]:
        return self.commits[repo_id][-1]

    def commit_id(self, repo_id: str, number: int) -> str:
        return hashlib.sha1(f"{repo_id}{number}".encode()).hexdigest()

    def at(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return commit id and files of a revision: main, or a commit."""
        commits = self.commits.get(repo_id, [])
        for number, files in reversed(list(enumerate(commits))):
            if revision in ("main", self.commit_id(repo_id, number)):
                return self.commit_id(repo_id, number), files
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: object = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.hub.refused is not None:
            return self.answer({"error": "refused"}, self.hub.refused)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", path):
            return getattr(self, found[2])(found[1], body)
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            return self.batch(json.loads(body))
        return self.unknown()

    def do_PUT(self) -> None:
        body = self.body()
        self.hub.large[hashlib.sha256(body).hexdigest()] = body
        self.answer({})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", path):
            at = self.hub.at(found[1], found[2] or "main")
            if at is None:
                return self.missing("RevisionNotFound" if found[1] in self.hub.commits else "RepoNotFound")
            files = [{"rfilename": name} for name in at[1]]
            return self.answer({"id": found[1], "sha": at[0], "siblings": files, "private": False, "tags": []})
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/tree/([\w.-]+)(?:/.*)?", path):
            at = self.hub.at(found[1], found[2])
            if at is None:
                return self.missing("RevisionNotFound" if found[1] in self.hub.commits else "RepoNotFound")
            return self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in at[1].items()
                ]
            )
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", path):
            at = self.hub.at(found[1], found[2])
            if at is None or found[3] not in at[1]:
                return self.missing("EntryNotFound" if at else "RepoNotFound")
            etag = f'"{hashlib.sha256(at[1][found[3]]).hexdigest()}"'
            return self.answer(at[1][found[3]], ETag=etag, X_Repo_Commit=at[0])
        if path == "/api/agent-harnesses":  # asked once per process, to name the program in a header
            return self.missing("EntryNotFound")
        return self.unknown()

    def do_HEAD(self) -> None:
        self.do_GET()

    def missing(self, code: str) -> None:
        self.answer({"error": code}, 404, X_Error_Code=code)

    def unknown(self) -> None:
        self.hub.unknown.append(f"{self.command} {self.path}")
        self.answer({"error": "the stand-in has no answer"}, 501)

    def create(self, wanted: dict) -> None:
        repo_id = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        url = f"{self.hub.address}/{repo_id}"
        if repo_id in self.hub.commits:
            return self.answer({"error": "You already created this model repo", "url": url}, 409)
        self.hub.commits[repo_id] = [{".gitattributes": b""}]
        self.hub.private[repo_id] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        return self.answer({"url": url, "name": repo_id})

    def preupload(self, repo_id: str, body: bytes) -> None:
        files = json.loads(body)["files"]
        large = (".safetensors", ".png", ".jpg")  # as the hub has it
        modes = ["lfs" if each["path"].endswith(large) else "regular" for each in files]
        listed = [
            {"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
            for each, mode in zip(files, modes, strict=True)
        ]
        self.answer({"files": listed, "commitOid": self.hub.commit_id(repo_id, 0)})

    def batch(self, wanted: dict) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}}}
            for each in wanted["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repo_id: str, body: bytes) -> None:
        files = dict(self.hub.files(repo_id))
        for line in body.splitlines():
            each = json.loads(line)
            value = each["value"]
            if each["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif each["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif each["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        self.hub.commits[repo_id].append(files)
        commit = self.hub.commit_id(repo_id, len(self.hub.commits[repo_id]) - 1)
        url = f"{self.hub.address}/{repo_id}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


@contextmanager
def running() -> Generator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
