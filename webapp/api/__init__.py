"""The OpenAI-compatible API under /v1: a door to the same services as the pages."""
