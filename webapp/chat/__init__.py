"""Conversations with base models and adapters, side by side, streamed."""
