"""A folder without a checkpoint is refused with what it holds."""

import os

import pytest

from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.errors import InputError


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"\(it holds nothing\)"),
        (["a.jpg", "b.jpg", "c.jpg", "d.txt"], r"\(it holds a\.jpg, b\.jpg, c\.jpg, \.\.\. \(4 in all\)\)"),
        (["weights/best.pth"], r"give the file .*/weights/best\.pth$"),
        (["lightning_logs/version_0/checkpoints/epoch=3.ckpt", "x.pth"], r"such as .*x\.pth.*epoch=3\.ckpt"),
        (["args.yaml", "weights/best.pt", "weights/last.pt"], r"such as .*(best|last)\.pt"),
        (["checkpoint-500/config.json", "checkpoint-500/model.safetensors"], r"give one of the folders in it, such as .*checkpoint-500$"),
        (["run-1/config.yaml", "run-2/config.yaml"], r"such as .*run-2, .*run-1$"),
        (["config.yaml"], "has no checkpoint yet"),
        (["a/b/c/d/e/deep.pth"], r"\(it holds a\)"),
    ],
)  # fmt: skip
def test_what_a_folder_holds_is_said(files, sentence, tmp_path):
    for age, name in enumerate(files):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        os.utime(file.parent if name.startswith("run") else file, (age, age))
    with pytest.raises(InputError, match=sentence) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith((str(tmp_path), f"run {tmp_path}"))
    assert "\n" not in str(caught.value)


def test_a_work_dir_of_mmdetection(tmp_path):
    (tmp_path / "epoch_50.pth").write_text("")
    (tmp_path / "epoch_49.pth").write_text("")
    (tmp_path / "last_checkpoint").write_text("/elsewhere/work_dirs/epoch_50.pth\n")
    with pytest.raises(InputError, match=r"a work_dir of MMDetection: give a file in it, such as .*epoch_50\.pth$"):
        open_checkpoint(tmp_path)
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    with pytest.raises(InputError, match=r"give a file of weights in it, such as .*epoch_"):
        open_checkpoint(tmp_path)
