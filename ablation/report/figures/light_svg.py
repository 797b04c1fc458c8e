"""Makes an SVG file of matplotlib's half as large, and no different to look at."""

import re

_AROUND = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
_TAG = re.compile(r"<[^!?<>][^<>]*>")
_FONTS = re.compile(r"font-family: ([^;\"]+)")
_DIGITS = re.compile(r"(\d+\.\d\d)\d+")
_PATH = re.compile(r"(?<= d=')[^']*")
_ALONE = re.compile(r"<g>\n(<(?:path|use)[^<>]*/>|<text[^<>]*>[^<]*</text>)\n</g>")


def light_svg(text: str) -> str:
    """Return the file without what is not seen: metadata, unused names, digits beyond a hundredth of a point.

    The fonts, which matplotlib gives for each text, are given once. Texts stay as they are.
    """
    text = _AROUND.sub("", text)
    used = set(re.findall(r"#([\w.-]+)", text))
    fonts = _FONTS.search(text)
    text = _TAG.sub(lambda tag: _light_tag(tag.group(), used), text)
    text = re.sub(r">\s+<", ">\n<", text.strip())
    if fonts is not None:
        text = text.replace("<svg ", f'<svg font-family="{fonts.group(1)}" ', 1)
    while (without := _ALONE.sub(r"\1", text.replace("<g/>\n", ""))) != text:
        text = without
    return f"{text}\n"


def _light_tag(tag: str, used: set[str]) -> str:
    tag = re.sub(r' id="([^"]*)"', lambda name: name.group() if name.group(1) in used else "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", tag)
    tag = re.sub(r"font-family: [^;\"]*(?:; )?", "", tag)
    # Single quotes need no escaping in an address that is an attribute.
    tag = re.sub(r"\"([^\"']*)\"", r"'\1'", re.sub(r"\s*\n\s*", " ", tag))
    return _PATH.sub(lambda path: re.sub(r"\s*([MLCQHVz])\s*", r"\1", path.group()), _DIGITS.sub(r"\1", tag))
