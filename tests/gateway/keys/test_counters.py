"""Counters of caps: what is left of the tightest, and when a client that was refused comes back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coe.gateway.keys.counters import Cost, Counter, amount_of, counters_of, headers_of, over_cap
from coe.gateway.keys.grants import Cap, Measure, ScopedCap, Window

USD_CAP = Cap(measure=Measure.USD, amount=0.5, window=Window.MONTH)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """A quarter of a second before noon on the last day of a year."""
    at = datetime(2027, 12, 31, 11, 59, 59, 750_000, UTC).timestamp()
    monkeypatch.setattr("coe.gateway.keys.counters.time.time", lambda: at)
    return at


def counter(measure: Measure, amount: float, need: int = 0, *, ends_in: float = 10.0, scope: str = "acme/1") -> Counter:
    cap = Cap(measure=measure, amount=amount, window=Window.MINUTE)
    noon = int(datetime(2027, 12, 31, 12, tzinfo=UTC).timestamp())
    return Counter("slot", "name", ScopedCap(scope, cap), need, noon + int(ends_in))


def test_each_cap_counts_what_it_measures_in_a_counter_of_its_window(now: float) -> None:
    caps = [ScopedCap(scope, USD_CAP) for scope in ("acme/1", "acme")]
    found = counters_of(caps, Cost(7, 9), now)
    start, end = Window.MONTH.bounds(now)
    assert [each.key for each in found] == [
        f"coe:limits:{{acme}}:{own}:usd/month:{start}" for own in ("acme/1", "acme")
    ]
    assert [(each.need, each.ends_at) for each in found] == [(9, end), (9, end)]
    assert [amount_of(counter(measure, 1).scoped, Cost(7, 9)) for measure in Measure] == [1, 7, 9]
    assert Cost(7, 9).times(3).plus(Cost(1, 2)) == Cost(22, 29)


def test_headers_are_of_the_cap_that_has_least_left_in_proportion() -> None:
    """40 of 100 tokens are less than 5 of 10; of requests there is one cap, of which more is used than it allows."""
    caps = [
        counter(Measure.TOKENS, 10, 2),
        counter(Measure.TOKENS, 100, 20, ends_in=30),
        counter(Measure.REQUESTS, 3, 1),
        counter(Measure.USD, 0.5, 50_000_000),
    ]
    used = [3, 40, 3, 150_000_000]
    held = headers_of(caps, used, is_held=True)
    assert held == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "31s",
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "11s",
        "x-ratelimit-limit-usd": "0.5",
        "x-ratelimit-remaining-usd": "0.3",
        "x-ratelimit-reset-usd": "11s",
    }
    refused = headers_of(caps, used, is_held=False)
    assert [refused[f"x-ratelimit-remaining-{name}"] for name in ("tokens", "requests", "usd")] == ["60", "0", "0.35"]
    assert headers_of([counter(Measure.TOKENS, 0)], [0], is_held=False)["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(
    ("refused", "is_held", "wait", "retries"),
    [
        (counter(Measure.TOKENS, 100, 60, ends_in=30), False, "31", True),
        (counter(Measure.TOKENS, 100, 100, ends_in=30), True, "5", True),
        (counter(Measure.TOKENS, 100, 100, ends_in=2), True, "3", True),
        (counter(Measure.REQUESTS, 100, 1, ends_in=30), True, "31", True),  # those that run give none back
        (counter(Measure.TOKENS, 100, 1, ends_in=59), False, "60", True),
        (counter(Measure.TOKENS, 100, 1, ends_in=60), False, "61", False),
        (counter(Measure.TOKENS, 100, 1, ends_in=-9), False, "1", True),
        (counter(Measure.TOKENS, 100, 101), False, None, False),  # it never fits
    ],
)
def test_a_refusal_says_when_it_is_worth_coming_back(
    refused: Counter, is_held: bool, wait: str | None, retries: bool
) -> None:
    error = over_cap(refused, 90, {"x-more": "1"}, is_held=is_held)
    assert error.status == 429
    assert error.headers.get("retry-after") == wait
    assert ("x-should-retry" not in error.headers) is retries
    assert error.headers["x-more"] == "1"


def test_a_refusal_names_whose_cap_it_is_and_what_is_left() -> None:
    money = over_cap(counter(Measure.USD, 0.5, 400_000_000, scope="acme"), 200_000_000, {}, is_held=False)
    assert str(money).startswith(
        "the limit of this team, 0.5 usd per minute, has 0.3 left, and this request may need 0.4;"
    )
    assert (money.code, money.error_type) == ("insufficient_quota", "insufficient_quota")
    often = over_cap(counter(Measure.REQUESTS, 3, 1), 5, {}, is_held=False)
    assert str(often) == "the limit of this key, 3 requests per minute, has 0 left"
    assert often.code == "rate_limit_exceeded"
