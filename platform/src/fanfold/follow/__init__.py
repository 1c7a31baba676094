"""Follow service: who follows whom, and who is followed by so many that their posts are pulled."""
