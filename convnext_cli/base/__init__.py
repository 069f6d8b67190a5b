"""Shared by every room: errors, text, files, threads, the machine. Nothing here knows about photos or networks."""
