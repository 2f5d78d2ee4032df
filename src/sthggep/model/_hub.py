"""Model folders on the Hugging Face hub, by way of `huggingface_hub` (extra ``hub``)."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

from sthggep.model._store import CONFIG, TENSORS

# owner/name; not an absolute path, one that starts with a dot, or one of several folders
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_repository_name(name: str) -> bool:
    """Whether a name has the form of a repository of the hub: ``"owner/name"``."""
    return REPOSITORY.fullmatch(name) is not None


def upload(folder: Path, repo_id: str, *, token: str | None, private: bool, commit_message: str) -> str:
    """Upload the files of a folder to a repository in one commit; a missing repository is made.

    Returns
    -------
    The address of the commit.

    Raises
    ------
    ImportError
        `huggingface_hub` is not installed.
    PermissionError
        The hub does not let this user write there.
    ConnectionError
        The hub cannot be reached, or refuses.
    """
    hub = _hub(f"`push_to_hub({repo_id!r})`")
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    except hub.errors.HfHubHTTPError as reason:
        status = getattr(reason.response, "status_code", None)
        if status in {401, 403}:
            msg = (
                f"The hub does not let you write to {repo_id!r} ({_first_line(reason)}). Log in by `hf auth login`, or pass "
                "a `token=` that may write there."
            )
            raise PermissionError(msg) from reason
        msg = f"The hub refused {repo_id!r}: {_first_line(reason)}."
        raise ConnectionError(msg) from reason
    except _network_errors(hub) as reason:
        msg = f"The hub cannot be reached ({_first_line(reason)}), and the upload may be missing. Push again later."
        raise ConnectionError(msg) from reason
    return str(commit.commit_url)


def download(repo_id: str, *, revision: str | None, token: str | None) -> Path:
    """Download a model to the cache of `huggingface_hub` and return its folder; without network, read the cache.

    Raises
    ------
    ImportError
        `huggingface_hub` is not installed.
    FileNotFoundError
        No such repository or revision that this user may read, or it holds no model.
    ConnectionError
        The hub cannot be reached, and the cache does not hold the model.
    """
    hub = _hub(f"There is no folder {repo_id!r} here, and looking for a model of that name on the hub")
    try:
        files = hub.snapshot_download(repo_id, revision=revision, token=token, allow_patterns=[CONFIG, TENSORS])
    except hub.errors.RepositoryNotFoundError as reason:
        msg = (
            f"No model {repo_id!r}: there is no such folder here, and no such repository on the hub that you may read. "
            "Check the name; for a private one, log in by `hf auth login` or pass `token=`."
        )
        raise FileNotFoundError(msg) from reason
    except hub.errors.RevisionNotFoundError as reason:
        msg = f"The repository {repo_id!r} has no revision {revision!r}. Pass a branch, a tag or the full hash of a commit."
        raise FileNotFoundError(msg) from reason
    except _network_errors(hub) as reason:
        msg = (
            f"No model {repo_id!r}: there is no such folder here, and the hub cannot be reached ({_first_line(reason)}). "
            "Only models in the cache load without network."
        )
        raise ConnectionError(msg) from reason
    absent = [name for name in (CONFIG, TENSORS) if not (Path(files) / name).is_file()]
    if absent:
        msg = (
            f"The repository {repo_id!r} holds no model of sthggep: {' and '.join(absent)} missing. Upload a "
            "model by `model.push_to_hub`."
        )
        raise FileNotFoundError(msg)
    return Path(files)


def _hub(what: str) -> ModuleType:
    """Import `huggingface_hub`, or raise an error with the command that installs it."""
    try:
        hub = import_module("huggingface_hub")
        import_module("huggingface_hub.errors")
    except ImportError as reason:
        msg = f"{what} needs the package huggingface_hub, the extra `hub`: `pip install 'sthggep[hub]'`."
        raise ImportError(msg) from reason
    return hub


def _network_errors(hub: ModuleType) -> tuple[type[Exception], ...]:
    """Exceptions raised without network: requests raises an OSError, httpx an HTTPError."""
    return (OSError, hub.errors.HTTPError)


def _first_line(reason: Exception) -> str:
    """Return the first line of the message, since the hub's messages are long."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(reason).__name__
