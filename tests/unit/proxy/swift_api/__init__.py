"""The Swift dialect over a store in memory."""
