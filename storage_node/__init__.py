"""What one device remembers: index, volumes, group commit, and the jobs that keep it honest."""
