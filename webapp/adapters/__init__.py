"""Base models and the trained adapters on them: library, download and shares."""
