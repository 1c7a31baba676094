"""Profile service: accounts, passwords, sessions, tokens, and users as others see them."""
