"""Write the pages of docs/reference that are made from the source and the installed packages: settings, commands, licenses, changelog.

``python scripts/docs/generate.py`` writes them; with ``--check`` the exit code tells whether they are up to date. They are part of
the repository, so any builder of the site can read them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import commands_page
import licenses_page
import settings_page

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def pages() -> dict[Path, str]:
    """Return the text of every generated page."""
    return {
        REFERENCE / "settings.md": settings_page.page(),
        REFERENCE / "command-line.md": commands_page.page(),
        REFERENCE / "licenses.md": licenses_page.page(),
        REFERENCE / "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](../"),
    }


def outdated() -> list[Path]:
    """Return the generated pages that differ from what the source says."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Write the pages, or check them with ``--check``."""
    if "--check" in sys.argv[1:]:
        stale = outdated()
        for path in stale:
            print(f"{path} is out of date; run: python scripts/docs/generate.py", file=sys.stderr)
        return int(bool(stale))
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
