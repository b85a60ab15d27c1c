"""File containers of rows: JSON, separated values, Parquet and Arrow, plain text; also compressed or archived."""
