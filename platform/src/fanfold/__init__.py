"""Fanfold: a photo feed whose posts fan out on write and whose celebrities fold in on read."""
