"""The messages of StreamSpace and the names they travel under.

Every model here is the source of truth for what is on the wire: `proto/` is
generated from this package. It imports nothing but pydantic and the standard
library, so that a service's domain may use it without reaching a vendor.

Rules that keep old and new versions talking: a type name ends in `.v1`; fields
are only added, with defaults; readers ignore unknown fields; a new meaning is a
new type.
"""
