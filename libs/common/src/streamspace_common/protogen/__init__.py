"""Writes `proto/`: the published message contract, generated from `contracts`.

`python -m streamspace_common.protogen` writes it, `--check` tells what differs.
The models decide; what was published before is held against them: a field that
vanished or became required, a type that is gone, or an example that no longer
parses is an error, because somewhere an older version still speaks so.
"""
