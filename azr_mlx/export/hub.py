"""Exported folders on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.export.formats import ExportedFolder
from azr_mlx.model import weights


def repositories(repo: str, formats: Sequence[str]) -> dict[str, str]:
    """The repository of each format: REPO itself for one format, REPO-mlx and so on for several."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UsageError(f"--push {repo}: write it as OWNER/NAME")
    return {name: repo if len(formats) == 1 else f"{repo}-{name}" for name in formats}


def check_hub() -> None:
    """Raise one line unless something could be uploaded: asked before the work, not after it."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push needs the hub, but HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise UsageError("--push needs a login: run hf auth login, or set HF_TOKEN")


def push(written: Sequence[ExportedFolder], repo: str, *, public: bool = False, say: Callable[[str], None]) -> None:
    """Upload exported folders, private unless told otherwise. Raises AzrError; the folders stay."""
    from huggingface_hub import HfApi

    names = repositories(repo, [one.format for one in written])
    for one in written:
        name = names[one.format]
        try:
            HfApi().create_repo(name, private=not public, exist_ok=True)
            HfApi().upload_folder(repo_id=name, folder_path=one.folder, commit_message=f"azr export, {one.format}")
        except (OSError, ValueError) as error:  # what the hub's client raises derives from these
            raise AzrError(
                f"{one.folder} is written, but not uploaded to {name}: {weights.first_line(error)}; "
                f"try again with hf upload {name} {one.folder}"
            ) from None
        say(f"uploaded {one.format} to https://huggingface.co/{name}")
