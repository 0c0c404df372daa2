"""Files from the Hugging Face hub, by its own client: from its cache where they are there, else fetched."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError


def snapshot(name: str, *, what: str, instead: str, **ask) -> Path:
    """The folder of a repository's files, named by its commit.

    what     is looked for, as an error names it: "model", "data set"
    instead  what the user can give in its place
    ask      keywords of huggingface_hub.snapshot_download (its hf_hub_download would retry for half a minute)
    Raises UserError with the reason when there is none, it is not open to us, or the hub is out of reach.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(name, **ask))
    except errors.GatedRepoError:
        why = "its owners give access to it on request: ask on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        why = f"there is no such {what}; for a private one log in with `hf auth login`"
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as error:
        why = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    raise UserError(f"{name}: could not be had from the hub ({why}); give {instead}")
