"""Text that people read: descriptions and categories, tidied.

Catalogs are generated from other projects' pages, so descriptions carry Markdown
that no viewer renders, and one category has many spellings.
"""

import re
from collections.abc import Iterable

MAX_DESCRIPTION = 2000
MAX_CATEGORIES = 10
MAX_CATEGORY = 60

_CONTROL = re.compile(
    # C0 but tab and newlines, DEL and C1, bidirectional overrides that can make a
    # name read as another one, zero-width characters, and lone surrogates.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff]"
)
_MARKDOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!\[([^\]\n]*)\]\([^)\s]*\)"), r"\1"),
    (re.compile(r"\[([^\]\n]+)\]\([^)\s]*\)"), r"\1"),
    (re.compile(r"\[([^\]\n]+)\]\[[^\]\n]*\]"), r"\1"),
    (re.compile(r"\[([^\]\n]{1,80})\]"), r"\1"),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"`+([^`\n]+)`+"), r"\1"),
    (re.compile(r"^#{1,6}[ \t]+", re.MULTILINE), ""),
    (re.compile(r"^>[ \t]+", re.MULTILINE), ""),
    (re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(\s[^<>]*)?/?>"), ""),
)
# One name for each group of spellings, keyed as `_category_key` writes them.
_CATEGORIES = {
    "browser": "Web Browsers",
    "browsers": "Web Browsers",
    "web browser": "Web Browsers",
    "web browsers": "Web Browsers",
    "desktop": "Desktop Environments",
    "desktops": "Desktop Environments",
    "desktop environment": "Desktop Environments",
    "desktop environments": "Desktop Environments",
    "webtop": "Desktop Environments",
    "design": "Design & Graphics",
    "graphics": "Design & Graphics",
    "design and graphics": "Design & Graphics",
    "audio and video": "Audio & Video",
    "audio video": "Audio & Video",
    "development": "Development",
    "development tools": "Development",
    "developer tools": "Development",
    "programming": "Development",
    "network": "Network",
    "networking": "Network",
    "game": "Gaming",
    "games": "Gaming",
    "gaming": "Gaming",
    "media server": "Media Servers",
    "media servers": "Media Servers",
    "monitor": "Monitoring",
    "monitoring": "Monitoring",
    "backup": "Backup",
    "backups": "Backup",
    "chat": "Communication",
    "communication": "Communication",
    "office": "Productivity",
    "productivity": "Productivity",
    "terminal": "Terminals",
    "terminals": "Terminals",
    "vpn": "VPN",
    "dns": "DNS",
    "ai ml": "AI & Machine Learning",
    "ai and machine learning": "AI & Machine Learning",
    "machine learning": "AI & Machine Learning",
    "web tool": "Web Tools",
    "web tools": "Web Tools",
}


def has_control_characters(text: str) -> bool:
    """Whether the text holds what no database, header or screen should be given."""
    return _CONTROL.search(text) is not None


def without_control_characters(text: str) -> str:
    return _CONTROL.sub("", text)


def without_markdown(text: str) -> str:
    """The text with Markdown and HTML marks taken out and blank runs closed."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text


def shortened(text: str, length: int) -> str:
    """At most `length` characters, cut at a word where one ends near the cut."""
    if len(text) <= length:
        return text
    head = text[: length - 1]
    cut = head.rfind(" ")
    return (head[:cut] if cut > length * 3 // 4 else head).rstrip() + "…"


def categories(written: Iterable[str]) -> tuple[str, ...]:
    """Category texts as single canonical names: split on commas, trimmed, each once."""
    found: dict[str, str] = {}
    for text in written:
        for part in text.split(","):
            name = _category(part)
            if name:
                found.setdefault(name.casefold(), name)
    return tuple(found.values())[:MAX_CATEGORIES]


def _category(text: str) -> str:
    name = " ".join(text.split()).strip("-/;. ")
    known = _CATEGORIES.get(_category_key(name))
    if known is not None:
        return known
    if name == name.lower():
        name = " ".join(word[:1].upper() + word[1:] for word in name.split(" "))
    return shortened(name, MAX_CATEGORY)


def _category_key(name: str) -> str:
    words = re.split(r"[\s_/-]+", name.casefold().replace("&", " and "))
    return " ".join(word for word in words if word)
