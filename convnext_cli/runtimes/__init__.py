"""Runtimes: what runs a network, one folder each. ``registry`` lists them, ``select`` opens the right one."""
