"""The mathematics of the pretext tasks; no Lightning here."""
