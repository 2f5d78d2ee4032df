"""Models on the Hugging Face hub, which a small server on this machine replaces."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from urllib.parse import unquote

import pytest

from sthggep import HGGEP, nn
from sthggep._inputs._inputs import Inputs
from sthggep.model._load import load_model
from sthggep.model._record import TrainingRecord

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "lab/breast-model"


def untrained(**options) -> HGGEP:
    net = nn.FeatureHGGEPNet([3], 2, dim=16, heads=2)
    record = {
        "sections": ["Anna", "Bert"],
        "n_spots": [30, 40],
        "held_out_pearson": [0.1, 0.5],
        "ceiling": [0.4, 0.8],
    }
    training = TrainingRecord(**(record | options))
    return HGGEP([net], ["A", "B"], Inputs("obsm", obsm=("X_mine",)), training=training)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that commits and downloads need; ``commits`` holds the files of each commit."""

    def log_message(self, *_):
        pass

    def answer(self, content, status: int = 200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        if self.path == "/api/repos/create":
            if self.headers.get("Authorization") == "Bearer hf_reader":
                return self.answer({"error": "You may only read."}, 403)
            self.server.created.append(request := json.loads(body))
            return self.answer({"url": f"{self.server.url}/{request['organization']}/{request['name']}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            entry["value"]["path"]: base64.b64decode(entry["value"]["content"])
            for entry in lines
            if entry["key"] == "file"
        }
        oid = hashlib.sha1(body).hexdigest()
        self.server.commits[oid] = files
        self.server.messages.append(lines[0]["value"]["summary"])
        return self.answer({"commitUrl": f"{self.server.url}/{NAME}/commit/{oid}", "commitOid": oid, "hookOutput": ""})

    def do_GET(self):
        path, commits = unquote(self.path.split("?")[0]), self.server.commits
        match = re.search(r"^(?:/api/models)?/(\w+/[\w-]+)/?(?:(revision|tree|resolve)/([^/]+))?/?(.*)$", path)
        repo, endpoint, revision, file = match.groups()
        if repo != NAME or not (commits or self.server.created):
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if not commits:  # an empty repository: older versions of huggingface_hub read it before the first commit
            return self.answer({"id": repo})
        sha = list(commits)[-1] if revision in {None, "main"} else revision
        if sha not in commits:
            return self.answer({"error": "No such revision"}, 404, X_Error_Code="RevisionNotFound")
        files = commits[sha]
        if endpoint == "resolve":
            etag = hashlib.sha1(files[file]).hexdigest()
            return self.answer(files[file], X_Repo_Commit=sha, ETag=f'"{etag}"')
        if endpoint == "tree":
            sizes = [(name, content, hashlib.sha1(content).hexdigest()) for name, content in files.items()]
            return self.answer([{"type": "file", "path": n, "size": len(c), "oid": o} for n, c, o in sizes])
        return self.answer({"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server in place of the hub; the cache and the login of the user stay untouched."""
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    http_server.url = f"http://127.0.0.1:{http_server.server_port}"
    http_server.commits, http_server.messages, http_server.created, http_server.requests = {}, [], [], []
    # HF_ENDPOINT and HF_HOME are read once, when the package is first imported
    address = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    # older versions of huggingface_hub hold a second copy of the address
    for module in (constants, import_module("huggingface_hub.file_download")):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", http_server.url + address, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", http_server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.chdir(tmp_path)
    thread = threading.Thread(target=http_server.serve_forever, daemon=True)
    thread.start()
    yield http_server
    http_server.shutdown()
    http_server.server_close()


def test_a_model_can_be_uploaded_and_downloaded(server):
    model = untrained()
    address = model.push_to_hub(NAME, private=True, commit_message="First")
    (oid,) = server.commits
    assert address == f"{server.url}/{NAME}/commit/{oid}"
    assert sorted(server.commits[oid]) == ["README.md", "config.json", "model.safetensors"]
    assert server.messages == ["First"]
    assert (server.created[0]["organization"], server.created[0]["name"]) == ("lab", "breast-model")
    assert "private" in {
        server.created[0].get("visibility"),
        *(["private"] if server.created[0].get("private") else []),
    }
    back = HGGEP.from_pretrained(NAME)
    assert (back.id, back.training) == (model.id, model.training)
    # Wherever a model has a name, the name on the hub works
    assert load_model(NAME).id == model.id


def test_revisions_are_pinned(server):
    models = untrained(), untrained(seed=1)
    commits = [one.push_to_hub(NAME).rsplit("/", 1)[1] for one in models]
    assert HGGEP.from_pretrained(NAME).id == models[1].id
    assert HGGEP.from_pretrained(NAME, revision=commits[0]).id == models[0].id
    with pytest.raises(FileNotFoundError, match=rf"{NAME}' has no revision 'v9'"):
        HGGEP.from_pretrained(NAME, revision="v9")


def test_cache_needs_no_network(server, monkeypatch):
    model = untrained()
    model.push_to_hub(NAME)
    HGGEP.from_pretrained(NAME)
    server.shutdown()
    server.server_close()
    assert HGGEP.from_pretrained(NAME).id == model.id
    with pytest.raises(ConnectionError, match=r"No model 'lab/other': there is no such folder.*cannot be reached"):
        HGGEP.from_pretrained("lab/other")
    with pytest.raises(ConnectionError, match="hub cannot be reached"):
        model.push_to_hub(NAME)


def test_refusals_of_the_hub_are_explained(server):
    with pytest.raises(
        FileNotFoundError, match=r"No model 'lab/none': there is no such folder here, and no such repository"
    ):
        HGGEP.from_pretrained("lab/none")
    with pytest.raises(PermissionError, match=r"does not let you write to 'lab/breast-model'.*hf auth login"):
        untrained().push_to_hub(NAME, token="hf_reader")
    for name in ("model", "a/b/c", "/lab/model", "../model"):
        with pytest.raises(ValueError, match="must be 'owner/name'"):
            untrained().push_to_hub(name)
    assert not server.commits


def test_repositories_without_a_model(server):
    server.commits["a" * 40] = {"config.json": b"{}", "weights.bin": b"1"}
    with pytest.raises(
        FileNotFoundError, match=r"'lab/breast-model' holds no model of sthggep: model.safetensors missing"
    ):
        HGGEP.from_pretrained(NAME)


def test_folders_take_precedence_over_the_hub(server, tmp_path):
    model = untrained()
    model.save(tmp_path / NAME)
    assert HGGEP.from_pretrained(NAME).id == model.id
    with pytest.raises(ValueError, match=r"`revision` is for models of the hub, but 'lab/breast-model' is a folder"):
        HGGEP.from_pretrained(NAME, revision="main")
    with pytest.raises(FileNotFoundError, match="No model is called 'a/b/c'"):
        HGGEP.from_pretrained("a/b/c")


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match=r"push_to_hub.*sthggep\[hub\]"):
        untrained().push_to_hub(NAME)
    with pytest.raises(ImportError, match=r"no folder 'lab/breast-model' here.*sthggep\[hub\]"):
        HGGEP.from_pretrained(NAME)


def test_model_card(server):
    untrained(model="hggep-default-1").push_to_hub(NAME)
    (files,) = server.commits.values()
    card = files["README.md"].decode()
    metadata, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert "library_name: sthggep" in metadata
    for part in (
        f"# {NAME}",
        "2 genes, log10",
        "2 sections, 70 spots",
        "0.300, the mean over genes",
        "0.600, the mean over genes",
        "B (0.50), A (0.10)",
        "hggep-default-1",
        f'from_pretrained("{NAME}")',
    ):
        assert part in text
    assert "Anna" not in card


def test_notebooks_show_a_table():
    model = untrained(sections=["<b>", "Bert"])
    html = model._repr_html_()
    assert html.startswith("<table>")
    assert model.id in html
    for part in ("2 genes, log10", "obsm &#x27;X_mine&#x27;", "1 network", "&lt;b&gt;", "0.300", "0.600"):
        assert part in html
    bare = HGGEP(list(model.members), model.genes, model.inputs)._repr_html_()
    assert "0 sections" in bare
    assert "held-out" not in bare
