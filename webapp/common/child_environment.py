"""What the programs we start see of our environment: everything but what is ours alone."""

import os

# No child reads these, and neither do the libraries that it loads: whoever broke into one finds nothing here.
OURS = (
    "SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "EMAIL_URL",
    "DJANGO_SUPERUSER_PASSWORD",
    "POSTGRES_PASSWORD",
    "PGPASSWORD",
    "VALKEY_PASSWORD",
)
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def child_environment(*, with_hub_token: bool) -> dict[str, str]:
    """The environment of a child of ours. Only a child that fetches models has a use for the hub's token."""
    withheld = OURS if with_hub_token else OURS + HUB_TOKENS
    passed_on = {name: value for name, value in os.environ.items() if name not in withheld}
    return passed_on | {"LOWRANK_DIE_WITH_PARENT": "1"}
