"""Gathered calls: one under way, the others together in the next; everyone gets their own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from headrace.platform.stream.gathered import Gathered


class Slow:
    """A call that is held up until it is let go on, and answers with squares; of a negative number, an error."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        await self.gate.wait()
        return [item * item if item >= 0 else ValueError(f"{item} is negative") for item in items]


def test_what_comes_while_a_call_is_under_way_goes_together_in_the_next() -> None:
    async def act() -> None:
        slow = Slow()
        gathered = Gathered[int, int](slow, most=3)
        asked = [asyncio.create_task(gathered(number)) for number in range(8)]
        await asyncio.sleep(0.01)
        assert slow.calls == [[0, 1, 2]] and not any(task.done() for task in asked)
        slow.gate.set()
        assert await asyncio.gather(*asked) == [number**2 for number in range(8)]
        assert slow.calls == [[0, 1, 2], [3, 4, 5], [6, 7]]
        assert await gathered(9) == 81
        assert slow.calls[-1] == [9]

    asyncio.run(act())


def test_nobody_waits_for_company() -> None:
    async def act() -> None:
        slow = Slow()
        slow.gate.set()
        gathered = Gathered[int, int](slow, most=3)
        assert [await gathered(number) for number in range(3)] == [0, 1, 4]
        assert slow.calls == [[0], [1], [2]]

    asyncio.run(act())


def test_an_error_of_one_does_not_concern_the_others_and_that_of_a_call_concerns_all() -> None:
    async def act() -> None:
        slow = Slow()
        slow.gate.set()
        gathered = Gathered[int, int](slow, most=3)
        first, wrong, last = await asyncio.gather(*map(gathered, (2, -3, 4)), return_exceptions=True)
        assert (first, last) == (4, 16)
        assert isinstance(wrong, ValueError) and str(wrong) == "-3 is negative"

        async def broken(items: Sequence[int]) -> list[int]:
            raise OSError(28, "No space left on device")

        failing = Gathered[int, int](broken, most=3)
        found = await asyncio.gather(*map(failing, range(5)), return_exceptions=True)
        assert all(isinstance(error, OSError) and error.errno == 28 for error in found)

    asyncio.run(act())


def test_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    async def act() -> None:
        slow = Slow()
        gathered = Gathered[int, int](slow, most=3)
        asked = [asyncio.create_task(gathered(number)) for number in (5, 6)]
        await asyncio.sleep(0.01)
        asked[0].cancel()
        await asyncio.sleep(0)
        slow.gate.set()
        assert await asked[1] == 36
        with pytest.raises(asyncio.CancelledError):
            await asked[0]

    asyncio.run(act())


def test_nobody_waits_for_ever_when_the_sending_is_ended() -> None:
    async def act() -> None:
        slow = Slow()
        gathered = Gathered[int, int](slow, most=1)
        asked = [asyncio.create_task(gathered(number)) for number in range(3)]
        await asyncio.sleep(0.01)
        assert gathered._under_way is not None
        gathered._under_way.cancel()
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert all(isinstance(error, asyncio.CancelledError) for error in found)

    asyncio.run(act())
