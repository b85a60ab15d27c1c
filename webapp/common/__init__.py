"""What every app may use: errors, storage, streams, HTTP pieces and template tags; no models."""
