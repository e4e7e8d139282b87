"""Subjects: what is built is parsed back, what is unsafe is refused, nothing overlaps."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.contracts import subjects
from streamspace_common.contracts.events import AGENT_EVENTS, CORE_EVENTS, AgentEvent, Event
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.permissions import OPERATORS, SERVICES, agent
from streamspace_common.contracts.streams import SESSION_EVENTS, STREAMS, agent_durable
from streamspace_common.contracts.subjects import Aggregate, SubjectError
from streamspace_common.protogen.asyncapi import matches, publishers
from streamspace_common.protogen.samples import sample

tokens = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
clusters = tokens.filter(lambda text: text != "core").map(ClusterId)
sessions = tokens.map(SessionId)
unsafe = st.text().filter(
    lambda text: (
        not text
        or len(text) > 128
        or any(not (c.isascii() and (c.isalnum() or c in "-_")) for c in text)
    )
)


@given(clusters, sessions)
def test_a_command_subject_is_parsed_back(cluster: ClusterId, session: SessionId) -> None:
    found = subjects.parse_command(subjects.command(cluster, session))
    assert (found.cluster, found.session) == (cluster, session)


@given(clusters, sessions, tokens)
def test_an_agent_event_subject_is_parsed_back(
    cluster: ClusterId, session: SessionId, kind: str
) -> None:
    found = subjects.parse_event(subjects.agent_event(cluster, session, kind))
    assert (found.origin, found.aggregate, found.id, found.kind) == (
        cluster,
        Aggregate.SESSION,
        session,
        kind,
    )


@given(st.sampled_from(Aggregate), tokens, tokens)
def test_a_core_event_subject_is_parsed_back(aggregate: Aggregate, id_: str, kind: str) -> None:
    found = subjects.parse_event(subjects.core_event(aggregate, id_, kind))
    assert (found.origin, found.aggregate, found.id, found.kind) == ("core", aggregate, id_, kind)


@given(clusters, tokens)
def test_a_heartbeat_subject_is_parsed_back(cluster: ClusterId, instance: str) -> None:
    assert subjects.parse_heartbeat(subjects.heartbeat(cluster, instance)) == (cluster, instance)


@given(unsafe)
def test_an_unsafe_token_is_refused_everywhere(text: str) -> None:
    for build in (
        lambda: subjects.token(text),
        lambda: subjects.command(ClusterId(text), SessionId("s")),
        lambda: subjects.command(ClusterId("lab"), SessionId(text)),
        lambda: subjects.cluster_commands(ClusterId(text)),
        lambda: subjects.agent_event(ClusterId("lab"), SessionId("s"), text),
        lambda: subjects.core_event(Aggregate.USER, text, "created"),
        lambda: subjects.heartbeat(ClusterId("lab"), text),
        lambda: subjects.service("auth", text),
        lambda: subjects.rpc(ClusterId(text), "open_tunnel"),
        lambda: subjects.dead_letter(ClusterId("lab"), SessionId(text)),
        lambda: subjects.session_events(SessionId(text)),
    ):
        with pytest.raises(SubjectError):
            build()


@pytest.mark.parametrize(
    "text", ["a\n", "a b", "a.b", "*", ">", "a\r\nPUB x", "ä", "a\0", "a" * 129]
)
def test_what_could_break_out_of_a_token_is_refused(text: str) -> None:
    with pytest.raises(SubjectError):
        subjects.token(text)


def test_no_cluster_is_called_core() -> None:
    core = ClusterId("core")
    builders: list[Callable[[], object]] = [
        lambda: subjects.command(core, SessionId("s")),
        lambda: subjects.agent_event(core, SessionId("s"), "started"),
        lambda: subjects.heartbeat(core, "one"),
        lambda: subjects.rpc(core, "open_tunnel"),
    ]
    for build in builders:
        with pytest.raises(SubjectError, match="core"):
            build()


@given(st.text())
def test_nonsense_is_refused_by_every_parser(text: str) -> None:
    for parse in (subjects.parse_command, subjects.parse_event, subjects.parse_heartbeat):
        with pytest.raises(SubjectError):
            parse(f"x{text}")


@pytest.mark.parametrize(
    "subject",
    ["evt.lab.user.u.created", "evt.core.planet.p.found", "evt.lab.session.s", "cmd.lab", "hb.lab"],
)
def test_what_is_almost_a_subject_is_refused(subject: str) -> None:
    for parse in (subjects.parse_command, subjects.parse_event, subjects.parse_heartbeat):
        with pytest.raises(SubjectError):
            parse(subject)


EVENTS = (*AGENT_EVENTS, *CORE_EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_an_event_is_kept_by_exactly_one_stream(event: type[Event]) -> None:
    subject = sample(event).subject
    keepers = [s.name for s in STREAMS if any(matches(p, subject) for p in s.subjects)]
    assert keepers == ["EVENTS"]
    assert subjects.parse_event(subject).kind == event.KIND


@pytest.mark.parametrize("event", AGENT_EVENTS, ids=lambda event: event.TYPE)
def test_the_session_service_hears_every_agent_event(event: type[AgentEvent]) -> None:
    subject = sample(event).subject
    assert any(matches(pattern, subject) for pattern in SESSION_EVENTS.filters)
    assert "agent" in publishers(subject.replace("lab", "CLUSTER"))


@pytest.mark.parametrize("event", CORE_EVENTS, ids=lambda event: event.TYPE)
def test_some_service_and_no_agent_may_publish_a_core_event(event: type[Event]) -> None:
    allowed = publishers(sample(event).subject)
    assert allowed
    assert "agent" not in allowed


def test_no_filter_of_the_session_service_overlaps_another() -> None:
    """The server would refuse the consumer."""
    kinds = {event: sample(event).subject for event in EVENTS}
    for event, subject in kinds.items():
        hits = [p for p in SESSION_EVENTS.filters if matches(p, subject)]
        assert len(hits) <= 1, f"{event.TYPE}: {hits}"


def test_commands_of_one_cluster_reach_its_durable_only() -> None:
    durable = agent_durable(ClusterId("lab"))
    command = subjects.command(ClusterId("lab"), SessionId("s"))
    other = subjects.command(ClusterId("lab-2"), SessionId("s"))
    assert any(matches(pattern, command) for pattern in durable.filters)
    assert not any(matches(pattern, other) for pattern in durable.filters)


def test_every_role_listens_on_an_inbox_of_its_own() -> None:
    roles = [
        *SERVICES.values(),
        *OPERATORS.values(),
        agent(ClusterId("lab")),
        agent(ClusterId("other")),
    ]
    inboxes = [rights.inbox for rights in roles]
    assert len(set(inboxes)) == len(inboxes)
    for rights in roles:
        assert f"{rights.inbox}.>" in rights.subscribe
        assert not any(
            matches(pattern, f"{other}.x")
            for other in inboxes
            if other != rights.inbox
            for pattern in rights.subscribe
        )


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.*.c", "a.b.c", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.b", "a.b", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_patterns_match_as_the_server_matches(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected
