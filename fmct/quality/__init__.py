"""Quality control of a cache: what is measured of each scan, what stands out, and one page that shows it."""
