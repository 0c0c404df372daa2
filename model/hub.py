"""Files from the Hugging Face hub, through its own client and cache."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError


def snapshot(name: str, *, what: str, instead: str, **options) -> Path:
    """The local folder of a hub repository's files, named by its commit.

    what     for error messages: "model", "data set"
    instead  what the user can give instead, for error messages
    options  of huggingface_hub.snapshot_download (hf_hub_download would retry for half a minute)
    Raises UserError with the reason if the repository is missing or gated, or the hub is unreachable.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(name, **options))
    except errors.GatedRepoError:
        why = "it is gated: request access on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        why = f"there is no such {what}; for a private one log in with `hf auth login`"
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as error:
        why = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    raise UserError(f"{name}: could not be fetched from the hub ({why}); give {instead}")
