"""Alignment of the hidden states of audio models with EEG recorded while people heard the same speech.

The protocol is arXiv 2601.16540, with what it leaves open or gets wrong decided in docs/alignment.md. Every
measure here is a pure function of arrays whose first axis is time.
"""
