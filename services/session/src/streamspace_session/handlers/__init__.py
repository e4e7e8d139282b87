"""From a request, a report or the passing of time to a committed change."""
