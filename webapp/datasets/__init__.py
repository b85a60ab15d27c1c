"""Uploads of instruction data: inspection, immutable versions, findings and preview."""
