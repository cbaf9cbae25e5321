"""What `fmct bench` measures: one module per subject, each against a stated baseline in the same run."""
