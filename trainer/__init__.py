"""The fine-tuning library: torch, transformers, peft, bitsandbytes; knows nothing of the web application.

`spec`, `events`, `errors`, `presets`, `estimate`, `rendering` and `formats` are the border: they import no torch and
are what the web side may use. Everything else runs in a trainer child process or in a chat worker.
"""
