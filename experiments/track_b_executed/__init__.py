"""Which answers teach a small model most: the repository's, a teacher's, or its own that pass?"""
