"""The strategy `agree`: whom it asks, and whom it serves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coe.router.strategies.agree import Agree, Reply, Settled

AGREE = Agree((0, 1), 2)
FAILED = Reply(is_failure=True)

replies = st.one_of(st.just(FAILED), st.builds(Reply, st.sampled_from([None, "a", "b", "c"])))


@given(listed=st.tuples(replies, replies, replies))
def test_a_reply_is_served_that_states_an_answer_if_any_does(listed: tuple[Reply, ...]) -> None:
    asked = 3 if AGREE.needs_arbiter(dict(enumerate(listed[:2]))) else 2
    heard = dict(enumerate(listed[:asked]))
    end = AGREE.settled(heard)
    if end.expert is None:
        assert all(reply.is_failure for reply in heard.values())
        return
    served = heard[end.expert]
    assert not served.is_failure
    assert served.key is not None or all(reply.key is None for reply in heard.values())
    assert end.agreed == sum(reply.key == served.key for reply in heard.values() if reply.key is not None)


def test_two_that_agree_need_no_arbiter() -> None:
    same = {0: Reply("a"), 1: Reply("a")}
    assert not AGREE.needs_arbiter(same)
    assert AGREE.settled(same) == Settled(0, 2)


def test_where_they_differ_the_arbiters_own_answer_is_served() -> None:
    differ = {0: Reply("a"), 1: Reply("b")}
    assert AGREE.needs_arbiter(differ)
    assert AGREE.settled({**differ, 2: Reply("c")}) == Settled(2, 1)
    assert AGREE.settled({**differ, 2: Reply("b")}) == Settled(2, 2)
    assert AGREE.settled({**differ, 2: Reply()}) == Settled(0, 1)


def test_two_that_state_nothing_do_not_agree() -> None:
    assert AGREE.needs_arbiter({0: Reply(), 1: Reply()})
    assert AGREE.settled({0: Reply(), 1: Reply(), 2: FAILED}) == Settled(0, 0)


def test_an_expert_that_fails_is_no_answer() -> None:
    assert AGREE.needs_arbiter({0: Reply("a"), 1: FAILED})
    assert AGREE.needs_arbiter({0: Reply("a")})  # one that cannot take the request is not asked
    assert AGREE.settled({0: Reply("a"), 1: FAILED, 2: FAILED}) == Settled(0, 1)
    assert AGREE.settled(dict.fromkeys(range(3), FAILED)) == Settled(None)
