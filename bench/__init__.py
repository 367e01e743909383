"""Our own benchmark: this registry beside others, on one machine, in one run.

It starts every registry itself, on loopback only, loads them in turn (A B C A B C ...) and prints
medians and ratios. Nothing of the product imports it.
"""
