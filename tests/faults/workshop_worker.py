"""The real worker process, with fault actions beside the real ones: `python -m tests.faults.workshop_worker`.

`EFFECTS` is the file of effects. `OVERRUNS` adds the actions with a timeout, `LIMITED` those with a limit, `TICKING` a
schedule of every second; `SKEW` moves the clock by so many seconds. The application's own schedules are not there: they
would do what no test asked for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults import actions
from tests.faults.effects import Effects
from tests.faults.skew import skewed

from app.engine.schedule import AllUpTo
from app.tasks import action, procrastinate_app
from app.worker_main import main

if __name__ == "__main__":
    effects = Effects(Path(os.environ["EFFECTS"]))
    actions.register(action, effects)
    procrastinate_app.schedules.clear()
    if os.environ.get("TICKING"):
        every_second = procrastinate_app.periodic(cron="* * * * * *", missed=AllUpTo(1000))
        every_second(procrastinate_app.tasks["tick"])
    if os.environ.get("OVERRUNS"):
        actions.register_overruns(action, effects)
    if os.environ.get("LIMITED"):
        actions.register_limited(action, effects)
    with skewed(float(os.environ.get("SKEW", "0"))):
        sys.exit(main())
