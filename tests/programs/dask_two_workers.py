"""Two `dask worker` processes with the preload, and arrays that go from one to the other."""

import socket
import subprocess
import sys

import numpy as np
from distributed import Client, wait

PRELOAD = "aiopool.integrations.distributed"


def worker(address):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--preload", PRELOAD]
    options = ["--nthreads", "1", "--memory-limit", "1GiB", "--no-dashboard", "--host", "127.0.0.1"]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def scheduler(port):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen([*command, "--no-dashboard"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def array(size, number):
    return np.full(size, number, dtype="u1")


def change(received, number):
    """Arrays from another worker are writable, and nothing else writes to them."""
    assert (received == number).all()
    received += 1
    return received


def check(received, number):
    assert (received == number).all()
    return len(received)


def stats():
    from aiopool.integrations.distributed import receiving

    stats = receiving.buffers.stats()
    return stats.name, stats.served, stats.created, stats.bytes_idle, stats.bytes_in_use


def main():
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(port) as process:
        workers = [worker(address), worker(address)]
        try:
            with Client(address, timeout=60) as client:
                client.wait_for_workers(2)
                one, two = client.scheduler_info()["workers"]
                for size in (1000, 200_000, 1 << 20, 3_000_000):
                    for _ in range(3):
                        arrays = client.map(array, [size] * 20, range(20), workers=[one], pure=False)
                        changed = client.map(change, arrays, range(20), workers=[two], pure=False)
                        # Dask frees the arrays of the first worker, and keeps those of the second.
                        wait(changed)
                        del arrays
                        back = client.map(check, changed, range(1, 21), workers=[one], pure=False)
                        assert client.gather(back) == [size] * 20
                        del changed, back
                for name, served, created, idle, _ in client.run(stats).values():
                    assert name == "distributed"
                    assert served >= 180
                    assert created < served
                    assert idle <= (1 << 30) / 8
                client.shutdown()
        finally:
            for each in workers:
                each.terminate()
                each.wait()
            process.terminate()


main()
print("ok")
