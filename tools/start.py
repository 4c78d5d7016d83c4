"""Where `swiftlike` begins: signals wait while the program loads.

Owns nothing but that order. Whichever command runs then hears them (`swiftlike.signals.hear`) as soon as it can do what they ask for.
"""

from swiftlike import signals


def main() -> None:
    """Run the command line."""
    signals.hold()
    from tools.swiftlike import main  # loading it takes a quarter of a second, in which a signal may come

    main()


if __name__ == "__main__":
    main()
