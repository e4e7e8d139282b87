"""What a request for a session asks for, once its template is known: decided without effects."""

import hashlib

from streamspace_common.contracts.catalog import ResourceAmounts
from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError
from streamspace_common.contracts.requests import CreateSession
from streamspace_session.policy.quantities import Demand, QuantityError, demand
from streamspace_session.ports import TemplateRecord


def refuse_unprintable(request: CreateSession) -> None:
    """PostgreSQL keeps no NUL in a text, and no name or key has one."""
    if "\x00" in request.template:
        raise ProblemError.of(Code.NOT_FOUND, f"There is no template {request.template!r}.")
    if request.idempotency_key is not None and "\x00" in request.idempotency_key:
        raise ProblemError.of(
            Code.INVALID_REQUEST,
            "Use printable characters in the Idempotency-Key.",
            errors=(FieldProblem(pointer="Idempotency-Key", detail="it holds a NUL"),),
        )


def fingerprint(request: CreateSession) -> bytes:
    """The same for two requests that ask for the same thing."""
    asked = request.model_dump_json(
        exclude={"principal", "address", "request_id", "idempotency_key"}
    )
    return hashlib.sha256(asked.encode()).digest()


def usable(text: str, found: list[TemplateRecord]) -> TemplateRecord:
    if not found:
        raise ProblemError.of(Code.NOT_FOUND, f"There is no template {text!r}.")
    if len(found) > 1:
        ids = ", ".join(template.id for template in found)
        raise ProblemError.of(
            Code.TEMPLATE_AMBIGUOUS, f"Several catalogs have a template {text!r}. Name one: {ids}."
        )
    template = found[0]
    if template.unusable is not None:
        raise ProblemError.of(
            Code.TEMPLATE_UNUSABLE, f"Template {template.id} cannot be started: {template.unusable}"
        )
    return template


def resources_of(request: CreateSession, template: TemplateRecord) -> ResourceAmounts:
    """What is asked for, and the template's defaults for what is not."""
    asked = request.resources
    defaults = template.manifest.spec.default_resources
    if asked is None:
        return defaults
    return defaults.model_copy(
        update={"cpu": asked.cpu or defaults.cpu, "memory": asked.memory or defaults.memory}
    )


def demand_of(request: CreateSession, resources: ResourceAmounts) -> Demand:
    try:
        return demand(resources)
    except QuantityError as error:
        if getattr(request.resources, error.field, None):
            raise ProblemError.of(
                Code.INVALID_REQUEST,
                f"The {error.field} asked for cannot be used: {error.detail}.",
                errors=(FieldProblem(pointer=f"/resources/{error.field}", detail=error.detail),),
            ) from None
        raise ProblemError.of(
            Code.TEMPLATE_UNUSABLE,
            f"The template's default {error.field} cannot be used: {error.detail}. "
            "Give resources of your own, or have the template corrected.",
        ) from None
