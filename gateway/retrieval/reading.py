"""The text of an uploaded file: PDF, HTML, Markdown and plain text."""

from __future__ import annotations

import io
import re
from pathlib import PurePath

from router.errors import MissingExtraError, RouterError

HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
HIDDEN_TAGS = ("script", "style", "noscript", "template", "svg", "head", "title")
INLINE_TAGS = ("a", "abbr", "b", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u")
BLANK_LINES = re.compile(r"\n[ \t\r\f\v]*(?:\n[ \t\r\f\v]*)+")
MAX_PDF_PAGES = 5_000
MAX_TEXT_CHARS = 50_000_000


class UnreadableFileError(RouterError):
    """A file whose text cannot be had.

    Args:
        code: OpenAI's: `unsupported_file` or `invalid_file`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def read_text(filename: str, content: bytes) -> str:
    """The text of a file; its kind is told by its first bytes, then by its name.

    Raises:
        UnreadableFileError: it is damaged, encrypted, of no supported kind, or holds no text.
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
        raise UnreadableFileError("the file holds no text (a scanned PDF holds pictures of it)", "invalid_file")
    if len(text) > MAX_TEXT_CHARS:
        raise UnreadableFileError(f"the file holds more than {MAX_TEXT_CHARS} characters", "invalid_file")
    return text


def read_pdf(content: bytes) -> str:
    """The text of every page, pages apart. Raises UnreadableFileError, MissingExtraError."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import FileNotDecryptedError, PyPdfError
    except ImportError as error:
        raise MissingExtraError("reading PDF", "retrieval") from error
    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFileError("the PDF is encrypted", "invalid_file")
        if len(reader.pages) > MAX_PDF_PAGES:
            raise UnreadableFileError(f"the PDF has more than {MAX_PDF_PAGES} pages", "invalid_file")
        pages = [page.extract_text() for page in reader.pages]
    except FileNotDecryptedError as error:
        raise UnreadableFileError("the PDF is encrypted", "invalid_file") from error
    except UnreadableFileError:
        raise
    # On damaged files pypdf also raises what its own code stumbles over.
    except (PyPdfError, ValueError, TypeError, KeyError, AttributeError, IndexError, OSError, RecursionError) as error:
        raise UnreadableFileError(f"the PDF is damaged ({type(error).__name__})", "invalid_file") from error
    return "\n\n".join(pages)


def read_html(markup: str) -> str:
    """The visible text, a line for each block. Raises UnreadableFileError, MissingExtraError."""
    try:
        from bs4 import BeautifulSoup
    except ImportError as error:
        raise MissingExtraError("reading HTML", "retrieval") from error
    try:
        soup = BeautifulSoup(markup, "html.parser")
        title = soup.title.get_text(" ", strip=True) if soup.title else ""
        for tag in soup(HIDDEN_TAGS):
            tag.decompose()
        for tag in soup(INLINE_TAGS):
            tag.unwrap()
        soup.smooth()
        text = soup.get_text("\n", strip=True)
    except RecursionError as error:
        raise UnreadableFileError("the HTML is nested too deep", "invalid_file") from error
    return f"{title}\n\n{text}" if title else text


def decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a mark of its byte order. Raises UnreadableFileError."""
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
