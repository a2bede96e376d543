"""Models that lie elsewhere: the hub's through its cache, anything else that fsspec reaches through ours.

A download is made beside its place and renamed into it, so what is in a cache is complete.
"""

from __future__ import annotations

import re
from pathlib import Path

from plait.checkpoint._files import unreadable
from plait.checkpoint._json import read_json
from plait.checkpoint._needed import needed_files
from plait.errors import InputError, PlaitError

_HUB = re.compile(
    r"(?:hf://(?:models/)?)?(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^/]+|refs/pr/\d+))?(?:/(?P<path>.+))?"
)


def fetch(reference: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Make a remote model local.

    Args:
        reference: a hub id `org/name` or `org/name@revision`, `hf://org/name@revision/path`, or any URL
            that fsspec opens (`s3://…`, `https://…`), of one file or of a folder.
        revision: the hub's branch, tag or commit; the default branch if none is given either way.

    Returns:
        The local file or folder, and the hub's commit (None elsewhere).

    Raises:
        InputError: it is not there, can't be reached or read, or a download was cut short.
        MissingExtra: a package for this kind of URL is not installed.
    """
    if "://" in reference and not reference.startswith("hf://"):
        from plait.checkpoint._url import fetch_url

        if revision is not None:
            hint = "only models on the hub have revisions"
            raise InputError(f"revision `{revision}` of a URL", where=reference, hint=hint)
        return fetch_url(reference), None
    found = _HUB.fullmatch(reference)
    if found is None or reference.startswith(("hf://datasets/", "hf://spaces/", "hf://buckets/")):
        hint = "write `org/name`, `org/name@revision` or `hf://org/name@revision`"
        raise InputError(f"`{reference}` is not the name of a model on the hub", hint=hint)
    return _fetch_hub(found["repo"], found["revision"] or revision, (found["path"] or "").strip("/"))


def _fetch_hub(repo: str, revision: str | None, path: str) -> tuple[Path, str | None]:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub import errors as hub

    where = f"{repo}@{revision}" if revision else repo
    endpoint = constants.ENDPOINT
    try:
        try:
            info = HfApi(endpoint=endpoint).model_info(repo, revision=revision)
        except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError):
            raise
        except Exception as unreached:  # no network, a server's fault: what was fetched before still opens
            try:
                folder = _cached(repo, revision, path, where)
            except hub.LocalEntryNotFoundError:
                raise unreached from None
        else:
            files = [sibling.rfilename for sibling in info.siblings or ()]
            wanted = [_escaped(name) for name in needed_files(files, path, where)]
            # by the user's word, not by its commit, so that the cache knows that word without a connection
            folder = snapshot_download(repo, revision=revision, allow_patterns=wanted, endpoint=endpoint)
    except PlaitError:
        raise
    except Exception as error:  # whatever the hub's client, its network library or the disk says
        raise _hub_error(error, repo, revision, where) from error
    # the cache's own layout: …/snapshots/COMMIT
    local = Path(folder)
    return _inside(local, path, where), local.name


def _cached(repo: str, revision: str | None, path: str, where: str) -> str:
    """The snapshot in the hub's cache.

    Newer clients note the repository's whole list of files and refuse a snapshot that lacks some; it is
    complete for plait with those that plait fetches.
    """
    from huggingface_hub import constants, snapshot_download

    home = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    reference = home / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    listing = home / "trees" / f"{commit}.json"
    wanted = None
    if listing.is_file():
        wanted = [_escaped(name) for name in needed_files(read_json(listing).get("files", ()), path, where)]
    return snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=wanted)


def _escaped(name: str) -> str:
    """A file's name as a glob that matches only it."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _inside(folder: Path, path: str, where: str) -> Path:
    if ".." in path.split("/"):
        raise InputError(f"`{path}` leaves the repository", where=where)
    if path and not (folder / path).exists():
        raise InputError(f"`{path}` is not in the cache of this repository", where=where)
    return folder / path


def _hub_error(error: Exception, repo: str, revision: str | None, where: str) -> InputError:
    """What went wrong on the hub and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        hint = f"accept its terms on the model's page, then `hf auth login`; or use another copy of `{repo}`"
        return InputError(
            f"the hub's model `{repo}` is gated, and you have no access", where=where, hint=hint
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        hint = "check the spelling; a private model needs `hf auth login`"
        return InputError(f"neither a local path nor a model on the hub: `{repo}`", where=where, hint=hint)
    if isinstance(error, hub.RevisionNotFoundError):
        hint = "give a branch, a tag or a full commit hash"
        return InputError(f"the hub's model `{repo}` has no revision `{revision}`", where=where, hint=hint)
    if isinstance(error, hub.HFValidationError):
        return InputError(f"`{repo}` is neither a local path nor a name that the hub allows", where=where)
    if constants.HF_HUB_OFFLINE:
        place = f"in the hub's cache at revision `{revision or 'main'}`"
        what = f"`{repo}` is not {place}, and HF_HUB_OFFLINE is set"
        return InputError(what, where=where, hint=f"download it once with `hf download {repo}`")
    if isinstance(error, OSError) and error.filename:
        return unreadable(Path(str(error.filename)), error)
    first = str(error).strip().split("\n", 1)[0] or type(error).__name__
    hint = f"check the connection; what `hf download {repo}` fetched before can be used without one"
    what = f"model `{repo}` (revision `{revision or 'main'}`) can't be fetched from the hub: {first}"
    return InputError(what, where=where, hint=hint)
