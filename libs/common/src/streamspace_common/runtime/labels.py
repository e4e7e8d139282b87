"""Labels of metrics that stay few, whatever users and operators add.

Each value of a label is a time series for ever. A label whose values come from
outside, a template's id or a cluster's, therefore keeps its first values and calls
all later ones `other`. Ids of sessions and users are never labels.
"""

from typing import Final

OTHER: Final = "other"
NONE: Final = "none"


class BoundedLabel:
    """Lets `limit` different values through.

    Forgets nothing until the process ends, as the metrics themselves do not either.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """The value itself, `other` when there are too many, `none` for None."""
        if value is None:
            return NONE
        if value not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(value)
        return value
