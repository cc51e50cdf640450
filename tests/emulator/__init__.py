"""The local Supabase emulator: real PostgreSQL, real PostgREST, a real gateway, and the function as it is deployed.

`python -m tests.emulator --help` is its command line; tests build the same parts through `project.ProjectFactory`.
"""
