"""What `fmct doctor` looks at: packages, the machine, an experiment, and how fast its steps are here."""
