"""What every command shares: errors with exit codes, flags from pydantic models, progress."""
