"""What is told of one answer: read out of its text, judged by form, by measures, and by what it names."""
