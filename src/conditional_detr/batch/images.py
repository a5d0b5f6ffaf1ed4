"""Images by their address, read where the detector opens them."""

from typing import Any, BinaryIO, cast

from conditional_detr.batch.storage import is_remote, read, reason
from conditional_detr.batch.tars import is_member, read_member
from conditional_detr.data.images import ImageLike, is_url
from conditional_detr.errors import DataError, ImageError, InputError, RunError

_OF_ONE_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_DENIED = ("AccessDenied", "403", "Forbidden")  # codes of S3 for one object; others are of the credentials
_TRIES = 3  # of an image in a store that does not answer; drivers repeat requests themselves as well


def image_of(address: str) -> ImageLike:
    """Return what ``open_image`` opens for an absolute address. Nothing is read before."""
    if is_member(address) or (is_remote(address) and not is_url(address)):
        return cast(BinaryIO, StoredImage(address))
    return address


class StoredImage:
    """An image in a store or in a tar, as a file that is read at once. ``name`` is its address, for messages.

    ``read`` raises ``ImageError`` when this image can't be read, and ``RunError`` when its store does not answer: then the other
    images can't be read either, and rows with errors would be kept as results.
    """

    def __init__(self, address: str) -> None:
        self.name = address

    def read(self) -> bytes:
        for tried in range(1, _TRIES + 1):
            try:
                return read_member(self.name) if is_member(self.name) else read(self.name)
            except KeyError as error:
                raise ImageError(f"image {self.name} is not in the tar; check the list") from error
            except DataError as error:
                raise ImageError(str(error)) from error
            except InputError:  # a package is missing, on this node perhaps
                raise
            except Exception as error:  # drivers raise types of their own
                if not is_remote(self.name) or _is_of_one_file(error):
                    what = (
                        "does not exist" if isinstance(error, FileNotFoundError) else f"can't be read ({reason(error)})"
                    )
                    raise ImageError(f"image {self.name} {what}; check the address and its permissions") from error
                if tried == _TRIES:
                    raise RunError(
                        f"{self.name} can't be read ({reason(error)}); check the network and the credentials"
                    ) from error
        raise AssertionError


def _is_of_one_file(error: Exception) -> bool:
    """Tell whether an error of a store is of one file, and not of the credentials, such as a token that expired."""
    response: Any = getattr(error.__cause__, "response", None)  # botocore's, which s3fs turns into a PermissionError
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return isinstance(error, _OF_ONE_FILE) and (
        not isinstance(error, PermissionError) or code is None or code in _DENIED
    )
