"""What pays on three repositories: tuning, search, or both?"""
