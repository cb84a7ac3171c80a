"""What waits for answers on the loop that it was made on."""

import asyncio


class Link:
    """As clients of databases do."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()

    async def ask(self):
        answer = self.loop.create_future()
        self.loop.call_soon_threadsafe(answer.set_result, 42)
        return await answer
