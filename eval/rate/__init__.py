"""What people think of answers: two sets compared blind, or one set rated from 1 to 5."""
