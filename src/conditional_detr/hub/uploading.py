"""Upload a model with its card to the Hugging Face hub."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.errors import RunError, SettingsError
from conditional_detr.hub.facts import RunFacts, facts_of, is_hub_id
from conditional_detr.runs import RunFolder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"


class Pushed(NamedTuple):
    """What was uploaded. remarks: sentences about what was not."""

    url: str
    files: list[str]
    remarks: list[str]


def push(
    checkpoint: Checkpoint,
    repo_id: str,
    *,
    run: str | Path | None = None,
    private: bool = False,
    license: str | None = None,
    pictures: bool = True,
    message: str = "Upload model",
    token: str | None = None,
) -> Pushed:
    """Upload a checkpoint folder with a model card. The repository is created where it does not exist.

    repo_id: owner/name. run: folder of the run that the card describes. private: whether a new repository is private.
    license: its identifier on the hub, such as apache-2.0. pictures: whether the card may show images of the data. token: by default
    the one of ``hf auth login``. A card that somebody edited on the hub is kept. Raises ``SettingsError`` for a wrong name, and
    without a valid token; ``RunError`` when the hub can't be reached or refuses the upload.
    """
    if not is_hub_id(repo_id):
        raise SettingsError(
            f"{repo_id!r} is no name of a repository; give owner/name of letters, digits, '-', '_' and '.', such as my-organization/my-detector",
            argument="repo_id",
        )
    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    if token is None:
        raise SettingsError("there is no token for the Hugging Face hub; log in with: hf auth login, or set HF_TOKEN")
    facts = None if run is None else facts_of(RunFolder(Path(run)), pictures)
    api, remarks = HfApi(token=token), list[str]()
    with tempfile.TemporaryDirectory(prefix="cdetr-push-") as place:
        folder = Path(place)
        _write(checkpoint, folder, repo_id, facts, license)
        with _told(repo_id):
            url = str(api.create_repo(repo_id, private=private, exist_ok=True))
            if _edited(api, repo_id):
                (folder / CARD).unlink()
                remarks.append(
                    f"{CARD} of {repo_id} was edited on the hub and is kept; delete it there to get the new model card"
                )
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return Pushed(url, files, remarks)


def _write(checkpoint: Checkpoint, folder: Path, repo_id: str, facts: RunFacts | None, license: str | None) -> None:
    from conditional_detr.hub.card import card

    load("huggingface").write(checkpoint, folder)
    for picture in () if facts is None else facts.pictures:
        (folder / picture.name).parent.mkdir(exist_ok=True)
        shutil.copyfile(picture.file, folder / picture.name)
    (folder / CARD).write_text(card(checkpoint, repo_id, facts, license), encoding="utf-8")


def _edited(api: "HfApi", repo_id: str) -> bool:
    """Tell whether the repository has a card that this package did not write, or that was changed since."""
    from conditional_detr.hub.card import is_ours

    if not api.file_exists(repo_id, CARD):
        return False
    return not is_ours(Path(api.hf_hub_download(repo_id, CARD)).read_text(encoding="utf-8"))


@contextmanager
def _told(repo_id: str) -> Generator[None]:
    """Turn errors of huggingface_hub into one sentence."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise SettingsError(
                "the Hugging Face hub does not accept the token; log in again with: hf auth login, or correct HF_TOKEN"
            ) from error
        if status in (403, 404):
            raise SettingsError(
                f"the token may not write to {repo_id} on the Hugging Face hub; give a repository of your own, or a token with "
                f"write access"
            ) from error
        raise RunError(_unreachable(repo_id, error)) from error
    except Exception as error:  # the types of connection errors differ between versions of huggingface_hub
        raise RunError(_unreachable(repo_id, error)) from error


def _unreachable(repo_id: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{repo_id} can't be uploaded to the Hugging Face hub ({reason}); check the network and try again"
