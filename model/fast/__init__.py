"""The same numbers as the plain code, sooner."""
