"""What every service needs and none should write again. Imports contracts only."""
