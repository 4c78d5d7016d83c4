"""Programs of people who use a library: each asserts what it saw, uploads `up` and leaves it again in `down`."""
