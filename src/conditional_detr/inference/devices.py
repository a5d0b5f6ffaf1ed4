"""The device that a network computes on: the one that is asked for, or the best that is there."""

import torch

from conditional_detr.errors import SettingsError


def named_device(device: str | torch.device) -> torch.device:
    """Return a device by its name. Raises ``SettingsError`` for a name that torch does not know."""
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingsError(f"device {device!r} does not exist; give cpu or cuda", argument="device") from error


def find_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device; by default an accelerator if available, else the CPU.

    Raises ``SettingsError`` for a device that does not exist or is not available.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    there = ["cpu"]
    if accelerator is not None:
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingsError(
            f"device {device!r} does not exist; available: {', '.join(there)}", argument="device"
        ) from error
    if str(wanted) not in there:
        raise SettingsError(
            f"device {str(wanted)!r} is not available; available: {', '.join(there)}", argument="device"
        )
    return wanted
