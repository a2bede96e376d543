"""Uploading an output to the hub."""

from __future__ import annotations

from pathlib import Path

from plait.engine._verify import verify
from plait.errors import InputError


def push(
    path: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a verified output.

    Args:
        path: the output.
        repo: `org/name`.
        private: make a new repository private.
        revision: the branch.
        token: an access token; None takes the one that is logged in.

    Returns:
        The commit's address.

    Raises:
        InputError: the output is damaged, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    report = verify(path)
    if not report.ok:
        raise InputError("the output is damaged: " + "; ".join(report.problems[:5]), where=str(path))
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=str(path), revision=revision)
    except HFValidationError as error:
        raise InputError(
            f"`{repo}` is not the name of a repository", where="REPO", hint="write `org/name`"
        ) from error
    except OfflineModeIsEnabled as error:
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be uploaded", where=repo) from error
    except HfHubHTTPError as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the hub refuses: {reason}", where=repo, hint="log in with `hf auth login`"
        ) from error
    except Exception as error:  # whatever the hub's client, its network library or the disk says
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"uploading failed: {reason}", where=repo, hint="check the connection; what was uploaded is kept"
        ) from error
    return str(commit.commit_url)
