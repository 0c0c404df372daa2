"""What the report is made of: the pictures, and the part of each track."""
