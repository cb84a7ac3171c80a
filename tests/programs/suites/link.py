"""An object that waits for answers on the loop on which it was created."""

import asyncio


class Link:
    """Stands for the client of a database."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()

    async def ask(self):
        answer = self.loop.create_future()
        self.loop.call_soon_threadsafe(answer.set_result, 42)
        return await answer
