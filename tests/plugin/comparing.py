"""What two inner runs print, made comparable: without times, addresses and what isolation adds."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

__all__ = ["comparable", "comparable_xml"]

#: The beginning of a line across the terminal.
RULE = r"(?:\x1b\[\d+m)*[=!-]{5}"
ADDED = ("isolate:", "cachedir", "plugins:", "Using --randomly-seed")


def comparable(out: str) -> str:
    out = re.sub(rf"\n=+ isolate =+\n(?:(?!{RULE}).*\n)*(?={RULE})", "\n", out)
    out = re.sub(r"\bin \d+\.\d+s\b.*", "in TIME", out)
    out = re.sub(r"\b\d+\.\d\ds (?=setup|call|teardown)", "TIME ", out)
    out = re.sub(r"\b0x[0-9a-f]+\b", "0xADDRESS", out)
    out = re.sub(r"\(cache from \S+ ago", "(cache from TIME ago", out)
    return "\n".join(line for line in out.splitlines() if line and not line.startswith(ADDED))


def comparable_xml(text: str) -> list[str]:
    """The elements of a JUnit file, one a line, without times and the properties named ``isolate.*``."""
    root = ET.fromstring(text)
    for properties in root.iter("properties"):
        for prop in [*properties]:
            if str(prop.get("name")).startswith("isolate."):
                properties.remove(prop)
    lines = []
    for element in root.iter():
        if element.tag == "properties" and not len(element):
            continue
        attributes = {k: v for k, v in element.attrib.items() if k not in ("time", "timestamp")}
        lines.append(f"{element.tag} {attributes} {element.text}")
    return lines
