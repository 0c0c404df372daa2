"""What data/instruct.py is made of: drafts by category, their wording and filters, the teacher."""
