"""What the rows of a file lie in: JSON, separated values, columns, plain text; plain, packed or in an archive."""
