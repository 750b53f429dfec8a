"""Building images from Dockerfiles.

`builder` takes a build from its context to its image; `stages` runs the stages, `steps` one instruction at
a time, `state` says what an instruction makes of an image's configuration. `context` and `fetch` bring
files in, `sources` and `copying` move them, `mounts` and `running` serve RUN, `layers` makes what changed a
layer, `cache` remembers it, `output` tells about it.
"""
