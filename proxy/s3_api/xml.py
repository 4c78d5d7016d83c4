"""XML, both ways: documents that we write, and documents from strangers.

Owns the escapes of the one, and the bounds of the other: no document type, so no entities, a bound on bytes, on depth and
on elements. Namespaces are not looked at: clients send theirs, AWS's of any year, or none.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias
from xml.parsers import expat

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
XML_TYPE: Final = "application/xml"
DECLARATION: Final = b'<?xml version="1.0" encoding="UTF-8"?>\n'
"""What every document that we write begins with."""

DEPTH_MAX: Final = 12
ELEMENTS_MAX: Final = 50_000
"""10,000 parts, of five elements each, are the longest list that a client sends."""


# --- writing ------------------------------------------------------------------------------------------------------


class Element(NamedTuple):
    """One element: text, or elements."""

    name: str
    content: "str | tuple[Element, ...] | list[Element]" = ""
    attributes: str = ""
    """As they stand in the document."""


class Written(NamedTuple):
    """Elements that are written already: what a listing has a thousand of costs less without a tree."""

    text: str


_ESCAPES: Final = {
    # XML 1.0 has no way to write control characters, not even as references: any parser would refuse the whole document.
    **dict.fromkeys((*range(32), 65534, 65535), "�"),
    ord("\t"): "&#9;",
    ord("\n"): "&#10;",
    ord("\r"): "&#13;",
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
}


def escape(text: str) -> str:
    """Write text; a character that no document can hold becomes U+FFFD."""
    return text.translate(_ESCAPES) if _find_odd(text) else text


_find_odd: Final = re.compile('[\x00-\x1f&<>"\ufffe\uffff]').search


def write_element(element: Element) -> str:
    """Write one element."""
    pieces: list[str] = []
    _write(element, pieces)
    return "".join(pieces)


def write_document(
    root: str, elements: Iterable[Element | Written], namespace: str = NAMESPACE, text: str = ""
) -> bytes:
    """Write a document of elements, or of text alone."""
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    pieces = [DECLARATION.decode(), f"<{root}{xmlns}>", escape(text)]
    for element in elements:
        _write(element, pieces)
    pieces.append(f"</{root}>")
    return "".join(pieces).encode("utf-8", "replace")


def _write(element: Element | Written, pieces: list[str]) -> None:
    if isinstance(element, Written):
        pieces.append(element.text)
        return
    name, content, attributes = element
    if isinstance(content, str):
        pieces.append(f"<{name}{attributes}>{escape(content)}</{name}>")
        return
    pieces.append(f"<{name}{attributes}>")
    for child in content:
        _write(child, pieces)
    pieces.append(f"</{name}>")


# --- reading ------------------------------------------------------------------------------------------------------


class XmlRefused(ValueError):
    """A document that is not taken."""


class Node:
    """An element of a document that was read."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[Node] = []
        self.text = ""

    def all(self, name: str) -> Iterator["Node"]:
        """Yield the children of a name."""
        return (child for child in self.children if child.name == name)

    def first(self, name: str) -> "Node | None":
        """Return the first child of a name."""
        return next(self.all(name), None)

    def value(self, name: str) -> str | None:
        """Return the text of the only child of a name; None when there is none. Raises XmlRefused when there are more."""
        found = list(self.all(name))
        if len(found) > 1:
            raise XmlRefused(f"{name} is there more than once")
        return found[0].text if found else None


Pieces: TypeAlias = list[str]


def read_document(raw: bytes, root: str) -> Node:
    """Read a document whose root has that name. Raises XmlRefused."""
    top: list[Node] = []
    path: list[Node] = []
    texts: list[Pieces] = []
    count = 0

    def start(name: str, attributes: object) -> None:
        nonlocal count
        count += 1
        if len(path) >= DEPTH_MAX or count > ELEMENTS_MAX:
            raise XmlRefused("the document is too deep, or has too many elements")
        node = Node(name.rpartition(" ")[2])
        (path[-1].children if path else top).append(node)
        path.append(node)
        texts.append([])

    def end(name: str) -> None:
        path.pop().text = "".join(texts.pop())

    def refuse(*_: object) -> None:
        raise XmlRefused("a document here has no document type and no entities")

    parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise XmlRefused(f"the document is not well-formed: {error}") from None
    except (ValueError, LookupError) as error:
        raise error if isinstance(error, XmlRefused) else XmlRefused(str(error)) from None
    if not top or top[0].name != root:
        raise XmlRefused(f"the document is no {root}")
    return top[0]
