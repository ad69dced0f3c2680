"""python -m several COUNT COMMAND...: so many workers at once, for one that uses one process.

Each gets a node name of its own, as `celery multi` gives it. SIGTERM is passed on to all.
"""

import signal
import subprocess
import sys
from pathlib import Path

count, (program, *arguments) = int(sys.argv[1]), sys.argv[2:]
workers = [
    subprocess.Popen(
        [Path(sys.executable).parent / program, *arguments, "--hostname", f"w{number}@%h"]
    )
    for number in range(count)
]
signal.signal(signal.SIGTERM, lambda *_: [worker.terminate() for worker in workers])
sys.exit(max([worker.wait() for worker in workers], key=abs))
