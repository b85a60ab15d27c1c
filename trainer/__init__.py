"""The fine-tuning library: torch, transformers, peft, bitsandbytes; knows nothing of the web application.

`spec`, `events`, `errors`, `presets`, `estimate`, `rendering` and `formats` are the border: they import no torch and
are what the web side may use. Everything else runs in a trainer child process or in a chat worker.
"""

import os

# OpenMP's threads spin while they wait for each other. Where training and chat share the cores, each then spins the
# other's time away: on two cores five times slower than threads that sleep. Read when torch loads, so it is set here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
