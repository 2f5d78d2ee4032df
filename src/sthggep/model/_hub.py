"""Model folders on the Hugging Face hub, by way of `huggingface_hub` (extra ``hub``)."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from sthggep.model._store import CONFIG, TENSORS

# owner/name, and neither a path from the root or from here, nor one with several folders
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def names_repository(name: str) -> bool:
    """Whether a name may be one of the hub's: ``"owner/name"``."""
    return REPOSITORY.fullmatch(name) is not None


def upload(folder: Path, repo_id: str, *, token: str | None, private: bool, commit_message: str) -> str:
    """Put the files of a folder into a repository, in one commit; the repository is made where there is none.

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
        msg = f"The hub cannot be reached ({_first_line(reason)}); nothing is said to be there. Push again later."
        raise ConnectionError(msg) from reason
    return str(commit.commit_url)


def download(repo_id: str, *, revision: str | None, token: str | None) -> Path:
    """The folder of a model of the hub, in the cache of `huggingface_hub`; without network, what is there already.

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
            "What was loaded once is in the cache and needs no network."
        )
        raise ConnectionError(msg) from reason
    absent = [name for name in (CONFIG, TENSORS) if not (Path(files) / name).is_file()]
    if absent:
        msg = (
            f"The repository {repo_id!r} holds no model of sthggep: {' and '.join(absent)} missing. Such a repository is "
            "made by `model.push_to_hub`."
        )
        raise FileNotFoundError(msg)
    return Path(files)


def _hub(what: str) -> Any:
    """The package `huggingface_hub`, or an error that says how to get it."""
    try:
        hub = import_module("huggingface_hub")
        import_module("huggingface_hub.errors")
    except ImportError as reason:
        msg = f"{what} needs the package huggingface_hub, the extra `hub`: `pip install 'sthggep[hub]'`."
        raise ImportError(msg) from reason
    return hub


def _network_errors(hub: Any) -> tuple[type[Exception], ...]:
    """What is raised where there is no network: of requests it is an OSError, of httpx a class of its own."""
    return (OSError, hub.errors.HTTPError)


def _first_line(reason: Exception) -> str:
    """What went wrong, in a line; the hub's own texts are long."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(reason).__name__
