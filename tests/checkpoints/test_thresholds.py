"""Thresholds are written into the record of a checkpoint folder, and nothing else is changed."""

import json
import os

import pytest

from conditional_detr.checkpoints.checkpoint import OWN_KEY
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.checkpoints.thresholds import RecordFile
from conditional_detr.errors import CheckpointError
from conditional_detr.record import Thresholds
from tests.checkpoints.models import randomized, save_checkpoint, small

THRESHOLDS = Thresholds(0.4, (0.3, None, 0.5))


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(randomized(small()), tmp_path / "model")
    return tmp_path / "model"


def test_only_the_thresholds_change(folder, tmp_path):
    before, original = json.loads((folder / "config.json").read_text()), open_checkpoint(folder)
    RecordFile.of(folder.parent).keep(THRESHOLDS)  # of a run, whose folder holds "model"
    after = json.loads((folder / "config.json").read_text())
    assert after[OWN_KEY].pop("thresholds") == {"all": 0.4, "per_class": [0.3, None, 0.5]}
    assert after == before
    opened = open_checkpoint(folder)
    assert opened.record.thresholds == THRESHOLDS
    assert opened.input_size == original.input_size
    convert(opened, tmp_path / "x.pth", "official")
    assert open_checkpoint(tmp_path / "x.pth").record.thresholds == THRESHOLDS


def test_categories_that_another_program_changed_have_none(folder):
    RecordFile.of(folder).keep(THRESHOLDS)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).record.thresholds is None


@pytest.mark.parametrize("own", [None, {}, {"version": 0}, {"version": 1}])
def test_a_folder_without_our_record_stays(folder, own):
    config = json.loads((folder / "config.json").read_text())
    config[OWN_KEY] = own
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="has no record that thresholds can be kept in; convert"):
        RecordFile.of(folder).keep(THRESHOLDS)
    assert json.loads((folder / "config.json").read_text()) == config


def test_a_model_that_was_replaced_meanwhile_stays(folder):
    found = RecordFile.of(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    with pytest.raises(CheckpointError, match="was changed while it was evaluated; evaluate it again"):
        found.keep(THRESHOLDS)


def test_links_stay(folder, tmp_path):
    os.replace(folder / "config.json", tmp_path / "blob")
    (folder / "config.json").symlink_to(tmp_path / "blob")
    with pytest.raises(CheckpointError, match="is a link and is not changed"):
        RecordFile.of(folder).keep(THRESHOLDS)


def test_files_and_hub_ids_have_no_folder(tmp_path):
    assert RecordFile.of(tmp_path / "x.pth") is None
    assert RecordFile.of("owner/name") is None
