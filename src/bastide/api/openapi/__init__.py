"""The Docker Engine API as this engine offers it, described as data.

`operations` lists every path with its parameters, answers and state; `schemas` the answers' shapes. Both
were written from the facts of Docker's published reference (API 1.24 to 1.47). The tests check requests
and answers against them; `document` makes an OpenAPI 3.1 document and docs/api.md of them.
"""
