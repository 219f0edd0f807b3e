"""The held-out tasks that every model without a set of its own is measured on: how they are made."""
