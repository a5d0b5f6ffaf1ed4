"""The fenced blocks of the documents, and which of their lines tests run.

A line is run unless a rule of ``NOT_RUN`` gives a reason, or a comment before the block does: ``<!-- not run: REASON -->``,
``<!-- run by tests/... -->``.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = "conditional-detr_tiny_shapes"

# What a command or a line of it looks like -> why tests do not run it as it stands there.
NOT_RUN = {
    r"pip install|pre-commit install|(sudo )?apt": "changes the environment",
    r"make |git |\.ci/run": "sets up or checks a whole clone",
    r"docker ": "needs a Docker daemon",
    r"curl |kill ": "needs a running server (tests/serve/test_docs.py runs the examples)",
    r"(\.venv/bin/)?python -m pytest": "runs tests",
    r"(python )?scripts/": "takes minutes to hours",
    r"torchrun |accelerate |srun |sbatch |(\w+=\S+ )*torchrun ": "starts several processes (tests/training/test_distributed.py does)",
    r"cdetr (serve|app) ": "runs until it is stopped (tests/serve runs it)",
    r"cdetr demo": "takes minutes (tests/cli/test_commands.py runs it on few images)",
    r"cdetr benchmark ": "takes minutes (tests/benchmark runs it)",
    r"cdetr export |cdetr \w+ (model\w*(/|\.onnx| )|exported)": "takes minutes (tests/export runs it)",
    r"(RAY_ADDRESS=\S+ )?cdetr batch .*(s3://|--engine|--shard)": "needs a store or a cluster (tests/batch runs it)",
    r"export |head=": "belongs to the lines after it",
    r"cdetr push ": "needs the hub (tests/hub runs it against a stand-in)",
    r"cdetr predict .*(\.mp4|camera:|rtsp:|--tiles)": "needs a video or a large image (tests/cli/test_predict_video.py makes one)",
    r"cdetr --install-completion": "changes the shell",
    r"\w+=\S+$": "belongs to the lines after it",
    r".*https?://|.*\b(microsoft|facebook|PekingU|owner|my-organization)/|.*data\.hub=": "needs the network",
    r".*/data/(bccd|vehicles|coco_mini)|.*\$D/": "needs data that is not in the repository",
    r".*\.pth\b|.*\.log\.json": "needs a published file (tests/checkpoints and tests/explain make such files)",
    r"cdetr train \S*(r50|r101)": "trains a network of full size; its settings are checked",
    r".*(\s|=|^)(PRESET|FILE|FOLDER|RUN|SOURCE|OUT|DATA|IMAGE|CHANGE|INPUT|NAME)\b": "has placeholders",
}
NOT_RUN_PYTHON = {
    r"crossing\.mp4": "needs a video (tests/test_video.py makes one)",
    r"httpx": "needs a running server (tests/serve/test_docs.py runs the examples)",
    r"_r50_|_r101_": "trains a network of full size",
    r"/data/(bccd|vehicles|coco_mini)": "needs data that is not in the repository",
    r"microsoft/|facebook/|https?://": "needs the network",
    r"\.onnx|\.pth": "needs an exported or published file",
    r"\bout\b, \{": "writes 20,000 images",
}


@dataclass(frozen=True)
class Block:
    """A fenced block. note: the comment before it. printed: the block of language text right after it."""

    page: str
    line: int
    language: str
    code: str
    note: str
    printed: str

    @property
    def reason(self) -> str | None:
        """Why the block as a whole is not run here; None if it is."""
        if found := re.match(r"not run: (.{10,})|run by (tests/\S+)", self.note, re.DOTALL):
            if found[2]:
                assert (ROOT / found[2]).exists(), f"{self.page}: {found[2]} does not exist"
            return found[0]
        if self.language == "python":
            return next((why for look, why in NOT_RUN_PYTHON.items() if re.search(look, self.code)), None)
        return None


def documents() -> list[Path]:
    """Return the documents, whose blocks are examples."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]*?) -->\s*?\n\s*)?^(?P<indent> *)```(?P<language>sh|bash|console|python)\n(?P<code>.*?)^ *```\n"
    r"(?:\s*(?:prints[^\n]*\n\s*)?^ *```text\n(?P<printed>.*?)^ *```)?",
    re.MULTILINE | re.DOTALL,
)


def blocks(document: Path) -> Iterator[Block]:
    """Yield the blocks of a document that can be examples."""
    text = document.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        indent = found["indent"]
        code = "".join(line.removeprefix(indent) + "\n" for line in found["code"].splitlines())
        printed = "".join(line.removeprefix(indent) + "\n" for line in (found["printed"] or "").splitlines())
        number = text[: found.start("language")].count("\n") + 1
        name = document.relative_to(ROOT).as_posix()
        yield Block(name, number, found["language"], code, found["note"] or "", printed)


def commands(block: Block) -> list[str]:
    """Return the lines of a shell block, continued ones joined, without comments."""
    joined = block.code.replace("\\\n", " ")
    lines = [re.sub(r"\s#\s.*|^#.*", "", line).strip() for line in joined.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line]


def why_not_run(command: str) -> str | None:
    """Return the reason of the rule that a command meets; None if tests run it."""
    return next((why for look, why in NOT_RUN.items() if re.match(look, command)), None)


# --- the same commands on little data ---

SMALL = {
    "train.batch_size": "4",
    "train.warmup_steps": "0",
    "data.workers": "0",
    "data.short_sides": "[96]",
    "data.max_size": "96",
    "data.crop": "0",
    "data.eval_short_side": "96",
    "data.eval_max_size": "96",
}
_LENGTHS = ("train.epochs=", "train.steps=", "train.minutes=", "train.max_steps=")


def smaller(command: str) -> list[str]:
    """Return the arguments of a ``cdetr`` command for the data and the run of the tests."""
    words = [re.sub(r"/data/(mine|coco)\b", "mine", word) for word in shlex.split(command)[1:]]
    if words[0] == "train" and "--resume" in words:
        return [word if not word.startswith(_LENGTHS) else "train.steps=6" for word in words]
    if words[0] == "train" and "=" in command:
        words[1] = words[1].replace("_lite0_photos", "_tiny_photos")  # the smaller network of the same recipe
        keys = {word.partition("=")[0] for word in words}
        kept = [word for word in words if not word.startswith(_LENGTHS) and word.partition("=")[0] not in SMALL]
        report = [] if "evaluation.report" in keys else ["evaluation.report=false"]
        kept = ["train.accumulate=2" if word.startswith("train.accumulate=") else word for word in kept]
        return [*kept, "train.steps=2", *(f"{key}={value}" for key, value in SMALL.items()), *report]
    if words[:2] in (["dataset", "shapes"], ["dataset", "scenes"]):
        for option, number in (("--images", "16"), ("--val-images", "6"), ("--size", "96")):
            if option in words:
                words[words.index(option) + 1] = number
            elif option != "--size":
                words += [option, number]
    return words
