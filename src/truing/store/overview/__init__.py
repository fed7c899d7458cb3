"""What managers look at: counts, lists and histories, each a query that stays quick with hundreds of thousands of judgements.

Nothing here reads a whole table into memory: counts come from indexes and aggregates, lists from keyset pages.
"""
