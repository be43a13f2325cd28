"""The request in a text must survive; its wrapping must not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.reading.features import CACHED_TEXTS, NormalisedEncoder
from coe.router.reading.normalise import HEAD_CHARS, SENTENCE_END, TAIL_CHARS, courtesy_words, normalise

ASK = "Translate to German: where is the station"


@pytest.mark.parametrize(
    "wrapped",
    [
        f"  \n {ASK}\n\n",
        f"Hi! {ASK}",
        f"Hello there, {ASK}",
        f"{ASK}\n\nThanks a lot in advance!",
        f"Good morning. I hope you are doing well. {ASK}\n\nMany thanks and best regards",
        f"Task: {ASK}",
        f"Could you help me with this? {ASK}",
        f"I need help with the following:\n\n{ASK}",
        f"```\n{ASK}\n```",
        f"```text\n{ASK}\n```",
        f"Hi!\n\n```\nPlease help me with this: {ASK}\n```\n\nThank you",
        f"Beantworte die folgende Frage:\n\n{ASK}",
        f"Merci de traiter la demande suivante :\n\n{ASK}",
        f"Пожалуйста, выполни следующее:\n\n{ASK}",
        f"次の質問に答えてください:\n\n{ASK}",
        f"请完成下面的任务:\n\n{ASK}",
        f"다음 요청을 처리해 주세요:\n\n{ASK}",
        f"من فضلك قم بما يلي:\n\n{ASK}",
        f"कृपया निम्नलिखित कार्य करें:\n\n{ASK}",
    ],
)
def test_the_wrapping_goes_and_the_ask_stays(wrapped):
    assert normalise(wrapped) == ASK


@pytest.mark.parametrize(
    "text",
    [
        ASK,
        "17% of 3,480",
        "What is the capital of Mongolia?",
        "Translate into Dutch:\n\nThank you very much for your help.",
        "Traduis en anglais : merci beaucoup",
        "Write a poem about the sea.\n\nMake it short.",
        "```python\nprint('hello')\n```",
        "Why does this fail?\n```\nraise ValueError\n```",
        "From: l.pacheco@example.com\nTo: travel@example.com",
        ".card { display: flex; }",
        "rename getUserName to fetchUserName in userService",
        "次のSQLを速くするにはどう書き換えればいいですか？",
        "Wie spät ist es in Tokio, wenn in Berlin Mittag ist?",
        "Convert 5 GB to MB",
        "How do I exit vim?",
        "SELECT name FROM users WHERE id = 3",
    ],
)
def test_a_usual_text_stays_as_it_is(text):
    assert normalise(text) == text


def test_a_translation_keeps_the_courtesy_that_is_its_material():
    assert (
        normalise('How do you say "thank you very much" in Polish?')
        == 'How do you say "thank you very much" in Polish?'
    )
    assert normalise('Hi! Translate "good morning, how can I help you?" into French.').startswith(
        'Translate "good morning'
    )


@pytest.mark.parametrize("text", ["thanks", "Hi there!", "Hello, can you help me?", "Good morning! Thank you.", "谢谢"])
def test_a_text_of_courtesy_alone_keeps_it(text):
    assert normalise(f"  {text} ") == text


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("WHAT IS THE CAPITAL OF FRANCE?", "what is the capital of france?"),
        ("WhAt iS tHE CaPITAl oF fRAnCe?", "what is the capital of france?"),
        ("What Is The Tallest Volcano In Europe", "what is the tallest volcano in europe"),
        ('BUG OR FEATURE REQUEST? "Add dark mode"', 'bug or feature request? "add dark mode"'),
    ],
)
def test_an_odd_case_becomes_small_letters(text, usual):
    assert normalise(text) == usual


@given(text=st.text(max_size=300))
def test_twice_is_once_and_nothing_is_invented(text):
    once = normalise(text)
    assert normalise(once) == once
    assert re.sub(r"\s", "", once).lower() in re.sub(r"\s", "", text).lower()
    assert bool(once) == bool(text.strip())


@given(
    text=st.lists(
        st.sampled_from(["Hi! ", "Thanks.", "\n", "```", "12 + 5", " please ", "Sort this list", ": ", "FOO BAR", "?"]),
        max_size=12,
    ).map("".join)
)
def test_numbers_are_never_lost(text):
    assert re.findall(r"\d+", normalise(text)) == re.findall(r"\d+", text)
    assert normalise(normalise(text)) == normalise(text)


PLAIN_END = re.compile(r"[.!?:,;…]+[\"'”)]*(?:\s+|$)|[。！？：，、।؟،]+\s*|\n\s*|\s+[–—-]\s+")


@given(text=st.text(alphabet=" \n\t\u3000.:?…。、-–\")'a7é", max_size=24))
def test_sentences_end_where_the_plain_pattern_says(text):
    ends = ([match.end() for match in pattern.finditer(text)] for pattern in (SENTENCE_END, PLAIN_END))
    assert next(ends) == next(ends)


def test_no_word_that_asks_or_names_a_task_counts_as_courtesy():
    tasks = "what who when where why how which write translate summarize explain code convert calculate extract"
    others = "wer wann wieviel übersetze quoi qui traduis quién cuándo traduce kto кто переведи"
    assert courtesy_words() & {*tasks.split(), *others.split()} == set()


@pytest.mark.parametrize("text", ["请你" * 40 + "火", "hi, " * 1000, "`" * 4000, "( " * 2000, '"' * 4000, "aB" * 2000])
def test_no_text_takes_long(text):
    assert len(normalise(text)) <= len(text)  # the suite's own timeout fails a regular expression that explodes


class Recorder:
    """An encoder that keeps what it was given; its vectors are the texts' lengths."""

    dim, fingerprint, is_inline = 1, "recorder", True

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def test_of_a_long_text_the_head_and_the_tail_are_read():
    recorder = Recorder()
    encoder = NormalisedEncoder(recorder)
    head, tail = "Sum this up: " + "a" * (HEAD_CHARS - 13), "b" * (TAIL_CHARS - 14) + " in two words."
    encoder.encode([head + tail, f"{head}{'middle ' * 20_000}{tail}", f"{head}{'other '}{tail}"])
    assert recorder.seen == [head + tail, f"{head}\n{tail}"]


def test_a_single_text_is_encoded_once_whatever_its_wrapping():
    recorder = Recorder()
    encoder = NormalisedEncoder(recorder)
    vectors = [encoder.encode([text]) for text in (ASK, f"Hi! {ASK}", f"  {ASK}\n\nMany thanks")]
    assert recorder.seen == [ASK]
    assert not any(vector.flags.writeable for vector in vectors)
    np.testing.assert_array_equal(np.concatenate(vectors), [[len(ASK)]] * 3)


def test_the_vectors_that_are_kept_are_bounded():
    recorder = Recorder()
    encoder = NormalisedEncoder(recorder)
    for number in (*range(CACHED_TEXTS + 1), CACHED_TEXTS, 0):
        encoder.encode([f"{number} + 1"])
    assert recorder.seen[CACHED_TEXTS:] == [f"{CACHED_TEXTS} + 1", "0 + 1"]  # the oldest was given up, the last not


def test_texts_that_fill_the_memory_are_all_in_it_afterwards():
    recorder = Recorder()
    encoder = NormalisedEncoder(recorder)
    for number in range(CACHED_TEXTS):
        encoder.encode([f"{number} + 1"])
    together = [ASK, f"{CACHED_TEXTS - 1} + 1"]  # one is new, the other is kept
    encoder.encode(together)
    for text in together:
        encoder.encode([text])
    assert recorder.seen[CACHED_TEXTS:] == [ASK]


def test_a_text_that_was_encoded_with_others_is_not_encoded_again():
    recorder = Recorder()
    encoder = NormalisedEncoder(recorder)
    together = encoder.encode([ASK, "1 + 1", f"Hi! {ASK}"])
    assert recorder.seen == [ASK, "1 + 1"]
    np.testing.assert_array_equal(together, np.concatenate([encoder.encode([text]) for text in (ASK, "1 + 1", ASK)]))
    assert recorder.seen == [ASK, "1 + 1"]
