"""Resume a run: choose a state that is whole, and find what changed since it was saved."""

import logging
from pathlib import Path
from typing import NamedTuple

from conditional_detr.checkpoints.safe_load import load_safetensors
from conditional_detr.config import differences, fixed, load_settings
from conditional_detr.data.fingerprint import Fingerprint, changed_categories, changes, check_fingerprint
from conditional_detr.errors import CheckpointError, SettingsError
from conditional_detr.record import Categories
from conditional_detr.runs import RunFolder, read_metrics, repeatable
from conditional_detr.training.state_files import CONFIG, DATA, REMEDY, DamagedError, check_files, read_shape
from conditional_detr.training.states import Terms


class Remark(NamedTuple):
    """A sentence for the log. level: of ``logging``."""

    level: int
    text: str


def choose_state(run: RunFolder) -> tuple[Path | None, list[Path], list[Remark]]:
    """Return the newest state that is whole, None before the first one, the newer states that are damaged, and remarks.

    Raises ``CheckpointError`` when all are damaged, and for a state of a newer version.
    """
    damaged: dict[Path, str] = {}
    for state in run.saved_states():
        try:
            check_files(state)
        except DamagedError as error:
            damaged[state] = str(error).removesuffix(f"; {REMEDY}")
            continue
        going_on = f"going on from the older {state.name}, so the metrics after it are void"
        return state, list(damaged), [Remark(logging.WARNING, f"{reason}; {going_on}") for reason in damaged.values()]
    if damaged:
        place = run.states if len(damaged) > 1 else next(iter(damaged))
        raise CheckpointError(
            f"{', and '.join(damaged.values())}; {REMEDY}; or delete {place} to train from the beginning"
        )
    if any(record["kind"] == "train" for record in read_metrics(run.metrics)):
        text = f"{run.path} has metrics and no state: starting from the beginning, so they are void"
        return None, [], [Remark(logging.WARNING, text)]
    return None, [], [Remark(logging.INFO, f"{run.path} has no state yet: starting from the beginning")]


def check_terms(run: RunFolder, state: Path, now: Terms, categories: Categories) -> list[Remark]:
    """Return remarks on settings and data that changed since a state was saved.

    Raises ``CheckpointError`` or ``SettingsError`` for a change with which the run can't go on.
    """
    saved = read_shape(state)
    before = _read_terms(state, saved)
    changed = {} if before is None else differences(before.settings, repeatable(now.settings))
    refused = fixed(changed)
    for what, count in now.shape.items():
        if saved.get(what, count) != count:  # older states lack some of them
            raise CheckpointError(
                f"{run.path} was trained with {saved[what]} {what}, now there would be {count}{_listed(refused)}; "
                f"resume with the same data, settings and number of processes"
            )
    for key, change in refused.items():
        raise SettingsError(
            f"{run.config}: {key} changed after {state.name} was saved ({change}), but it can't change within a run; "
            f"set it back, or start a new run: cdetr train {run.config} (model.init_from={run.path} keeps the weights "
            f"that fit)"
        )
    if before is None:
        text = f"{state.name} is of an older version: whether settings or data changed since can't be told"
        return [Remark(logging.INFO, text)]
    if names := changed_categories(before.data, categories):
        raise CheckpointError(
            f"{run.path} was trained with other categories: {', '.join(names[:10])} had another id or name; resume with "
            f"the same, or start a new run"
        )
    remarks: list[Remark] = []
    if changed:
        remarks.append(Remark(logging.INFO, f"settings changed since {state.name}{_listed(changed)}"))
    if parts := changes(before.data, now.data):
        text = (
            f"the data changed since {state.name}: {', '.join(parts)}; the run goes on with it as it is now, so its "
            f"results are those of no single data set"
        )
        remarks.append(Remark(logging.WARNING, text))
    return remarks


def _listed(changed: dict[str, str]) -> str:
    return f" ({', '.join(f'{key}: {change}' for key, change in changed.items())})" if changed else ""


def _read_terms(state: Path, shape: dict[str, int]) -> Terms | None:
    """Return the terms that a state was saved with; None for states of older versions, which lack them."""
    if shape["version"] < 2:
        return None
    file = state / DATA
    try:
        data: Fingerprint = load_safetensors(file)
        check_fingerprint(data)
        file = state / CONFIG
        settings = load_settings(file)
    except (LookupError, ValueError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); {REMEDY}; or delete {state} to train from the beginning"
        ) from error
    return Terms(shape, settings, data)
