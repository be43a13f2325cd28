"""Heads such as `103 Early Hints`, thousands in one read."""

from __future__ import annotations

import asyncio

from coe.fleet.providers._post import HEAD_PIECE_BYTES, MAX_INTERIM, InterimError, OneAnswer

HEAD = b"HTTP/1.1 103 Early Hints\r\n\r\n"


class Counted(OneAnswer):
    """Counts what the parser gives."""

    heads = 0

    def feed_data(self, data: object, size: int = 0) -> None:
        self.heads += 1
        super().feed_data(data, size)


async def test_no_more_than_a_piece_of_interim_heads_is_parsed() -> None:
    connection = Counted(asyncio.get_running_loop())
    connection.set_response_params(read_until_eof=True)
    connection.data_received(HEAD * 9_000)
    assert isinstance(connection.exception(), InterimError)
    assert MAX_INTERIM < connection.heads <= MAX_INTERIM + HEAD_PIECE_BYTES // len(HEAD) + 1
