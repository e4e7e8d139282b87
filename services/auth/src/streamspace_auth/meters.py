"""What Prometheus learns about logins."""

from prometheus_client import Counter

from streamspace_auth.domain.logins import LoginResult

LOGINS = Counter("streamspace_logins_total", "Logins, by how they ended.", labelnames=("result",))


class LoginCounter:
    """Implements `ports.LoginMeter`; every result exists from the start, as zero."""

    def __init__(self) -> None:
        self._results = {result: LOGINS.labels(result=result.value) for result in LoginResult}

    def count(self, result: LoginResult) -> None:
        self._results[result].inc()
