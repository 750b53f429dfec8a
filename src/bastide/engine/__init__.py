"""The engine: everything that bastide does, whoever asks; one file for each noun's life cycle.

`engine.Engine` wires them; only this package joins images, runtimes, storage and networks.
"""
