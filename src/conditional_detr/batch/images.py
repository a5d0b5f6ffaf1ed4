"""Images by their address, read where the detector opens them."""

from typing import BinaryIO, cast

from conditional_detr.batch.storage import is_remote, read, reason
from conditional_detr.batch.tars import is_member, read_member
from conditional_detr.data.images import ImageLike, is_url
from conditional_detr.errors import ImageError, InputError, RunError

_OF_ONE_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
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
            except InputError as error:
                raise ImageError(str(error)) from error
            except _OF_ONE_FILE as error:
                what = "does not exist" if isinstance(error, FileNotFoundError) else f"can't be read ({reason(error)})"
                raise ImageError(f"image {self.name} {what}; check the address and its permissions") from error
            except Exception as error:  # drivers raise types of their own
                if tried == _TRIES:
                    raise RunError(
                        f"{self.name} can't be read ({reason(error)}); check the network and the credentials"
                    ) from error
        raise AssertionError
