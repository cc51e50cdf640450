"""What earlier releases left in a database, so that every later one can be tried on it.

`python -m tests.releases record 0.1.0` plays some runs on the present code and keeps all rows as `0.1.0.json`. Until
the release goes out, that is done again whenever a migration is edited so that the rows do not fit any more. When it
goes out, `python -m tests.releases freeze 0.1.0` notes how its migrations are: from then on they may not change, and
what is new comes as a new migration. tests/integration/installation/test_upgrade.py goes on from each release.
"""
