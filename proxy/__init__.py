"""What a client sees: the Swift and S3 dialects over one set of operations, and quorums."""
