"""The real worker process, with fault actions beside the real ones: `python -m tests.faults.workshop_worker`.

`EFFECTS` is the file of effects. With `OVERRUNS` set there are also the actions with a timeout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults import actions
from tests.faults.effects import Effects

from app.tasks import action
from app.worker_main import main

if __name__ == "__main__":
    effects = Effects(Path(os.environ["EFFECTS"]))
    actions.register(action, effects)
    if os.environ.get("OVERRUNS"):
        actions.register_overruns(action, effects)
    sys.exit(main())
