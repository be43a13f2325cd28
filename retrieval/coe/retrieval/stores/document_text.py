"""The text of an uploaded file. Parsers meet hostile files, so `read_text` runs only in a `reading_process`."""

from __future__ import annotations

import io
import re
from pathlib import PurePath

HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
HIDDEN_TAGS = frozenset({"script", "style", "noscript", "template", "svg", "head", "title"})
INLINE_TAGS = frozenset(
    {"a", "abbr", "b", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"}
)
BLANK_LINES = re.compile(r"\n[ \t\r\f\v]*(?:\n[ \t\r\f\v]*)+")
MAX_PDF_PAGES = 5_000
MAX_TEXT_CHARS = 50_000_000
MAX_HTML_DEPTH = 2_000
"""Open elements: libxml2 searches all of them for the end of one that is not open."""
FEED_CHARS = 1 << 16


class UnreadableFileError(Exception):
    """A file whose text cannot be extracted.

    Args:
        code: OpenAI's: `unsupported_file` or `invalid_file`.
    """

    def __init__(self, message: str, code: str = "invalid_file") -> None:
        super().__init__(message)
        self.code = code


def read_text(filename: str, content: bytes) -> str:
    """Extract the text of a file, whose kind follows from its first bytes, then from its name.

    Raises:
        UnreadableFileError: it is damaged, encrypted, of an unsupported kind, or has no text.
    """
    suffix = PurePath(filename).suffix.lower()
    if content[:1024].lstrip().startswith(b"%PDF-") or suffix == ".pdf":
        text = read_pdf(content)
    else:
        text = decoded(content)
        start = text[:200].lstrip().lower()
        if suffix in HTML_SUFFIXES or start.startswith(("<!doctype html", "<html")):
            text = read_html(text)
    text = BLANK_LINES.sub("\n\n", text.replace("\x00", "").replace("\r\n", "\n")).strip()
    if not text:
        raise UnreadableFileError("the file holds no text (a scanned PDF holds pictures of it)")
    if len(text) > MAX_TEXT_CHARS:
        raise UnreadableFileError(f"the file holds more than {MAX_TEXT_CHARS} characters")
    return text


def read_pdf(content: bytes) -> str:
    """Extract the text of every page, separated by blank lines; may raise UnreadableFileError."""
    from pypdf import PdfReader
    from pypdf.errors import FileNotDecryptedError

    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFileError("the PDF is encrypted")
        if len(reader.pages) > MAX_PDF_PAGES:
            raise UnreadableFileError(f"the PDF has more than {MAX_PDF_PAGES} pages")
        pages, size = [], 0
        for page in reader.pages:
            pages.append(page.extract_text())
            size += len(pages[-1])
            if size > MAX_TEXT_CHARS:
                raise UnreadableFileError(f"the file holds more than {MAX_TEXT_CHARS} characters")
    except FileNotDecryptedError as error:
        raise UnreadableFileError("the PDF is encrypted") from error
    except (UnreadableFileError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableFileError(f"the PDF is damaged ({type(error).__name__})") from error
    return "\n\n".join(pages)


def read_html(markup: str) -> str:
    """Extract the title and the visible text, one line per block; may raise UnreadableFileError."""
    from lxml.etree import HTMLParser, XMLSyntaxError

    parser = HTMLParser(target=VisibleText(), huge_tree=True)
    markup = markup.replace("\x00", "")
    try:
        for start in range(0, len(markup), FEED_CHARS):
            parser.feed(markup[start : start + FEED_CHARS])
        text: str = parser.close()
    except XMLSyntaxError as error:  # it mends everything but an empty document
        raise UnreadableFileError("the HTML is empty or damaged") from error
    return text


class VisibleText:
    """A parser target that collects visible text without a tree, so that deep or large documents cost no memory."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._title: list[str] = []
        self._titles = 0  # begun so far: the first one counts
        self._is_in_title = False
        self._hidden = 0  # open elements that show nothing
        self._depth = 0

    def start(self, tag: str, attributes: object) -> None:
        self._depth += 1
        if self._depth > MAX_HTML_DEPTH:
            raise UnreadableFileError(f"the HTML is nested more than {MAX_HTML_DEPTH} deep")
        if tag not in INLINE_TAGS:
            self._end_line()
        if tag == "title":
            self._titles += 1
            self._is_in_title = self._titles == 1
        self._hidden += tag in HIDDEN_TAGS

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag not in INLINE_TAGS:
            self._end_line()
        if tag == "title":
            self._is_in_title = False
        self._hidden -= tag in HIDDEN_TAGS

    def data(self, text: str) -> None:
        if self._is_in_title:
            self._title.append(text)
        elif not self._hidden:
            self._line.append(text)

    def close(self) -> str:
        self._end_line()
        title, text = "".join(self._title).strip(), "\n".join(self._lines)
        return f"{title}\n\n{text}" if title else text

    def _end_line(self) -> None:
        line = "".join(self._line).strip()
        self._line.clear()
        if line:
            self._lines.append(line)


def decoded(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; raise UnreadableFileError for anything else."""
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise unsupported() from error
    if text.count("\x00") > len(text) // 100:
        raise unsupported()
    return text


def unsupported() -> UnreadableFileError:
    return UnreadableFileError(
        "the file is of no supported kind; allowed: PDF, HTML, Markdown, and text in UTF-8 or UTF-16",
        "unsupported_file",
    )
