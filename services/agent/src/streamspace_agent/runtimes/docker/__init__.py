"""The docker runtime: each session is one container of a Docker-compatible engine.

The engine is the only memory there is, so that any number of agents may share it and none
has a state of its own to lose:

* What was asked for last is kept as small named volumes, the session's words (`words`):
  one per generation, never changed. Labels of containers and volumes cannot be changed
  either, so a generation cannot be raised in place; but the highest of a set that only
  grows needs no compare-and-swap, and no lock that a killed agent would leave behind.
* A container's name says which generation it belongs to and how far it is (`naming`).
  Renaming is done by the engine as one step that fails for all but the first, so it
  decides between two agents: whoever adopts a running desktop for a newer start renames
  it, whoever removes it renames it first, and only one of them finds the old name.

Who has written a word and then looks, sees the words of all who wrote before: of two
agents that work on one session at once, at least the older one finds out and gives way.

`manifests` (what a container is made of), `observation` (what words and containers mean
together) and `endings` (how it ended, in words) are pure. `engine` alone knows aiodocker.
"""
