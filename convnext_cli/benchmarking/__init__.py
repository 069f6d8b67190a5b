"""Measuring: what ``convnext bench`` runs, and what scripts may use.

``runs.Bench`` gives rows: one ``setting.Setting`` after the other with ``measure``, or taking turns with
``interleaved``, whose rows ``compare.interleaved`` makes into ratios. Each setting runs in a process of its own
(``worker``, which the parent speaks to through ``process.Worker``).
"""
