"""Dockerfiles: from bytes to typed instructions in stages. Nothing here reads a file or runs anything.

`lines` joins and cuts, `words` expands variables, `flags` and `mounts` read options, `instructions` gives
each instruction a type, `stages` orders them, `ignore` reads `.dockerignore`.

The rules are those of the Dockerfile reference (docs.docker.com/reference/dockerfile) and, where it is
silent, of its reference implementation (github.com/moby/buildkit, frontend/dockerfile), whose messages
are kept because people search for them.
"""
