"""The deliverable, a demonstration and lessons, each made from one text and executed."""
