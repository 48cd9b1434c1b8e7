"""Encode a text source in chunks, with any number of processes on one or several machines.

plan.py         divides the source into chunks and makes the tokenizer
changes.py      decides which encoded chunks are kept after the input has changed
ledger.py       the state of all chunks in a folder: which are encoded, which are claimed by a process
encoder.py      encodes one chunk and writes its segments
duplicates.py   finds the first copy of every document, in bounded memory
settlement.py   decides whether the encoded chunks suffice
worker.py       what every process does
local_pool.py   worker processes on this machine
reader.py       reads the encoded chunks as batches of documents, which are written to the store

The result does not depend on the number of processes: chunks are encoded independently, and duplicates, `max_tokens` and the limit on
bad rows are applied to all chunks in order.
"""
