"""Training jobs: submitting, claiming, supervising, watching and recovering them."""
