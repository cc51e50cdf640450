"""The local Supabase emulator; tests build its parts through `project.ProjectFactory`. See README.md."""
