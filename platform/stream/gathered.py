"""Gathered: calls that are made together, because one of many costs little more than one of one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence


class Gathered[Item, Result]:
    """Makes a call for all that wait: one call is under way, and what comes meanwhile makes up the next.

    Who asks waits for the call that their item is in, and nobody waits for company: an item that comes while no call is
    under way is sent alone, at once.

    Args:
        call: takes the items, in the order in which they came, and returns a result or an error for each.
        most: so many items at most go together.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], *, most: int) -> None:
        self._call, self._most = call, most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._under_way: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The result of an item.

        Raises:
            Exception: the item's own error, or that of the call that it was in.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._send())
        result: Result = await future
        return result

    async def _send(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._send_group(group)
        finally:
            self._under_way = None

    async def _send_group(self, group: "Sequence[tuple[Item, asyncio.Future[Result]]]") -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._call([item for item, _ in group])
        except Exception as error:
            results = [error] * len(group)
        except BaseException:
            # Nobody will send what waits, either.
            left, self._waiting = self._waiting, []
            for _, future in (*group, *left):
                future.cancel()
            raise
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue  # who asked has gone
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
