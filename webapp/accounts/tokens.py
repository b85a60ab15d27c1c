"""Secrets that travel in links and keys: how they are made, and the hash that alone is stored."""

import hashlib
import hmac
import secrets


def new_token() -> str:
    """256 random bits, safe in an address."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is stored. A plain SHA-256 is enough: nobody can try out 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, stored_hash: str) -> bool:
    """Whether the token is the one whose hash is stored; takes the same time however much of it is right."""
    return hmac.compare_digest(hash_of(token), stored_hash)
