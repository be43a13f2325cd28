"""Texts of files, and what is said of files that have none."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from coe.retrieval.stores.document_text import UnreadableFileError, read_text
from tests.retrieval.stores.pdf import pdf_of


def encrypted() -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of("secret"))))
    writer.encrypt("a password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", b"\xef\xbb\xbfwith a mark\r\nand lines", "with a mark\nand lines"),
        ("a.txt", "wide".encode("utf-16"), "wide"),
        ("a.md", b"# Title\n\n\n\ntext", "# Title\n\ntext"),
        ("a.html", b"<h1>One</h1><p>two <b>three</b> <a href='x'>four</a></p><style>no</style>", "One\ntwo three four"),
        ("noname", b"<!DOCTYPE html><title>T</title><p>x", "T\n\nx"),
        ("a.pdf", pdf_of("Page text"), "Page text"),
        ("wrong-name.txt", pdf_of("Page text"), "Page text"),
    ],
)
def test_texts(name: str, content: bytes, text: str) -> None:
    assert read_text(name, content) == text


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.pdf", b"no pdf", "invalid_file", "damaged"),
        ("a.pdf", pdf_of("x")[:200], "invalid_file", "damaged"),
        ("a.pdf", encrypted(), "invalid_file", "encrypted"),
        ("a.png", b"\x89PNG\r\n\x1a\n\x00\x00", "unsupported_file", "no supported kind"),
        ("a.bin", b"a\x00b\x00" * 10, "unsupported_file", "no supported kind"),
        ("a.txt", b"\n \n", "invalid_file", "no text"),
    ],
)
def test_what_cannot_be_read(name: str, content: bytes, code: str, words: str) -> None:
    with pytest.raises(UnreadableFileError, match=words) as caught:
        read_text(name, content)
    assert caught.value.code == code


def outcome_of(name: str, content: bytes) -> str:
    """`text`, or the code of the reason why there is none."""
    try:
        return "text" if read_text(name, content) else "nothing"
    except UnreadableFileError as error:
        return error.code


@given(st.binary(max_size=400), st.sampled_from(["a.pdf", "a.html", "a.txt", "a"]))
def test_any_bytes_give_a_text_or_a_reason(content: bytes, name: str) -> None:
    assert outcome_of(name, content) in ("text", "invalid_file", "unsupported_file")


@given(st.data())
def test_a_damaged_pdf_gives_a_text_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(pdf_of("The quick brown fox"))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert outcome_of("a.pdf", bytes(content)) in ("text", "invalid_file", "unsupported_file")
