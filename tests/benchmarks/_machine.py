"""What a benchmark ran on, for its second line and its closing JSON."""

import os
from typing import Any

from headrace.platform.provenance import machine, versions


def ran_on(*packages: str) -> dict[str, Any]:
    """Processor, cores, load, graphics cards if there are any, and the versions of Headrace and of these packages."""
    here = machine()
    cards = {"gpus": "; ".join(here["gpus"])} if here["gpus"] else {}
    load = round(os.getloadavg()[0], 1)
    return {"cpu": here["cpu"], "cores": here["cores"], "load": load, **cards, **versions(("headrace", *packages))}
