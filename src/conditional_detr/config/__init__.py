"""Settings of a run: their types and defaults (``settings.py``), how they are read (``reading.py``), the presets, and help."""

from conditional_detr.config.explaining import PresetHelp, SettingHelp, find_settings, preset_help
from conditional_detr.config.reading import (
    changed_within_run,
    differences,
    fixed,
    load_settings,
    preset_names,
    setting_fields,
    setting_keys,
    settings_from,
)
from conditional_detr.config.settings import (
    Ablation,
    DataSettings,
    EvaluationSettings,
    LossSettings,
    ModelSettings,
    Settings,
    TrainSettings,
)

__all__ = [
    "Ablation",
    "DataSettings",
    "EvaluationSettings",
    "LossSettings",
    "ModelSettings",
    "PresetHelp",
    "SettingHelp",
    "Settings",
    "TrainSettings",
    "changed_within_run",
    "differences",
    "find_settings",
    "fixed",
    "load_settings",
    "preset_help",
    "preset_names",
    "setting_fields",
    "setting_keys",
    "settings_from",
]
