"""Measures bastide against docker, podman and bare crun: one run, one machine, samples interleaved."""
