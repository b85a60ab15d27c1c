"""The fine-tuning library: torch, transformers, peft, bitsandbytes; knows nothing of the web application.

`spec`, `events`, `errors`, `presets`, `estimate`, `rendering` and `formats` are the border: they import no torch and
are what the web side may use. Everything else runs in a trainer child process or in a chat worker.
"""

import os

# OpenMP's threads spin while they wait for each other, three milliseconds by default. Where training and chat share the
# cores, each then spins the other's time away: on two cores six times slower together. Threads that sleep at once
# (OMP_WAIT_POLICY=PASSIVE) make a training that is alone a third slower. A tenth of a millisecond is near the better of
# both. Read when torch loads, so it is set here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# oneDNN keeps the code it made for a product of matrices by its exact shape, 1,024 times half a megabyte, and torch
# keeps as many entries around it. Passes differ in length, so a training met new shapes with every one and grew by a
# gigabyte. A layer needs about a hundred for rows of many lengths; torch's entries save nothing beside oneDNN's code.
SHAPES_KEPT = 128
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES_KEPT))
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
