"""Running the whole: the commands up and doctor, health, home and the machines page."""
