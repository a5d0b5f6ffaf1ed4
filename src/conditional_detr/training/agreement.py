"""Let the processes of a run end together: an error of one is raised in all, instead of leaving the others waiting."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from conditional_detr.errors import InputError, RunError

Result = TypeVar("Result")


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Run an action on the main process, and return its result in all. An error that a user may see is raised in all."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except (InputError, RunError) as error:
            outcome[1] = error
    result, error = broadcast_object_list(outcome)
    if error is not None:
        raise error
    return result


def everywhere(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Run an action in every process, and return the result of this one. An error that a user may see is raised in all."""
    result, error = None, None
    try:
        result = action()
    except (InputError, RunError) as caught:
        error = caught
    raise_any(accelerator, error)
    return cast(Result, result)


def raise_any(accelerator: Accelerator, error: Exception | None) -> None:
    """Raise the error of this process or, in a process without one, that of the first process that has one."""
    errors = [each for each in cast("list[Exception | None]", gather_object([error])) if each is not None]
    if error is not None:
        raise error
    if errors:
        raise errors[0]
