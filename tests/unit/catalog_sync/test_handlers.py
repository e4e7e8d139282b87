"""Who may do what, and how refusals are worded."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from streamspace_catalog_sync.addresses import AddressRules
from streamspace_catalog_sync.handlers import CatalogHandlers, catalog_id, fitting
from streamspace_catalog_sync.ports import BuiltInError, CatalogExistsError, NewCatalog
from streamspace_catalog_sync.sealing import TokenVault
from streamspace_common.contracts.catalog import (
    Catalog,
    CatalogState,
    FileOutcome,
    FileReport,
    TemplateDetail,
)
from streamspace_common.contracts.identity import Actor, Principal, Role
from streamspace_common.contracts.ids import CatalogId, TemplateId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    SERVICE_METHODS,
    AddCatalog,
    CatalogRequest,
    GetTemplate,
    ListCatalogs,
    ListTemplates,
    TemplatePage,
)
from streamspace_common.testing.clock import FakeClock

KEY = SecretStr("a-key-of-more-than-thirty-two-characters")
MANAGERS = [Role.OPERATOR, Role.ADMIN]


def principal(role: Role) -> Principal:
    return Principal(user_id=UserId("usr-" + "0" * 32), username="ann", role=role)


class NoTemplates:
    async def search(self, request: ListTemplates) -> TemplatePage:
        return TemplatePage(items=(), total=0)

    async def get(self, id_: TemplateId) -> TemplateDetail | None:
        return None


class RememberedCatalogs:
    """Catalogs in memory, for handlers alone."""

    def __init__(self) -> None:
        self.known: dict[CatalogId, Catalog] = {}
        self.added: list[NewCatalog] = []

    async def list(self) -> Sequence[Catalog]:
        return list(self.known.values())

    async def get(self, id_: CatalogId) -> Catalog | None:
        return self.known.get(id_)

    async def report(self, id_: CatalogId) -> tuple[Catalog, Sequence[FileReport]] | None:
        return (self.known[id_], ()) if id_ in self.known else None

    async def add(self, new: NewCatalog, actor: Actor) -> Catalog:
        if new.id in self.known:
            raise CatalogExistsError
        self.added.append(new)
        self.known[new.id] = Catalog(
            id=new.id,
            name=new.name,
            url=new.url,
            state=CatalogState.SYNCING,
            created_at=FakeClock().now(),
            version=1,
        )
        return self.known[new.id]

    async def remove(self, id_: CatalogId, actor: Actor) -> bool:
        if id_ == "starter":
            raise BuiltInError
        return self.known.pop(id_, None) is not None

    async def request_sync(self, id_: CatalogId, actor: Actor) -> Catalog | None:
        return self.known.get(id_)


class Wakes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def catalogs() -> RememberedCatalogs:
    return RememberedCatalogs()


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def handlers(catalogs: RememberedCatalogs, wakes: Wakes) -> CatalogHandlers:
    return CatalogHandlers(
        NoTemplates(), catalogs, vault=TokenVault(KEY), rules=AddressRules(), wake=wakes
    )


def adding(role: Role = Role.OPERATOR, /, **fields: object) -> AddCatalog:
    values = {"name": "Lab", "url": "https://git.example/lab", **fields}
    return AddCatalog.model_validate({"principal": principal(role), **values})


def about(id_: str, role: Role = Role.OPERATOR) -> CatalogRequest:
    return CatalogRequest(principal=principal(role), catalog_id=CatalogId(id_))


def test_every_method_of_the_contract_is_served(handlers: CatalogHandlers) -> None:
    assert set(handlers.methods()) == set(SERVICE_METHODS["catalog"])


@pytest.mark.parametrize("role", MANAGERS)
async def test_operators_and_admins_add_catalogs_which_are_synced_at_once(
    handlers: CatalogHandlers, wakes: Wakes, role: Role
) -> None:
    catalog = await handlers.add_catalog(adding(role))
    assert (catalog.id, catalog.state) == ("lab", CatalogState.SYNCING)
    assert wakes.count == 1


async def test_users_only_look(handlers: CatalogHandlers) -> None:
    await handlers.add_catalog(adding())
    for refused in (
        handlers.add_catalog(adding(Role.USER, name="Other")),
        handlers.remove_catalog(about("lab", Role.USER)),
        handlers.sync_catalog(about("lab", Role.USER)),
    ):
        with pytest.raises(ProblemError) as caught:
            await refused
        assert caught.value.problem.code is Code.FORBIDDEN
    assert (await handlers.get_catalog(about("lab", Role.USER))).id == "lab"
    listed = await handlers.list_catalogs(ListCatalogs(principal=principal(Role.USER)))
    assert [catalog.id for catalog in listed.items] == ["lab"]


async def test_an_unknown_catalog_or_template_is_not_found(handlers: CatalogHandlers) -> None:
    for refused in (
        handlers.get_catalog(about("none")),
        handlers.remove_catalog(about("none")),
        handlers.sync_catalog(about("none")),
        handlers.sync_report(about("none")),
        handlers.get_template(
            GetTemplate(principal=principal(Role.USER), template_id=TemplateId("none_none"))
        ),
    ):
        with pytest.raises(ProblemError) as caught:
            await refused
        assert caught.value.problem.code is Code.NOT_FOUND


async def test_a_catalog_is_added_once(handlers: CatalogHandlers) -> None:
    await handlers.add_catalog(adding())
    with pytest.raises(ProblemError) as caught:
        await handlers.add_catalog(adding())
    assert caught.value.problem.code is Code.ALREADY_EXISTS


async def test_the_starter_catalog_is_not_removed(handlers: CatalogHandlers) -> None:
    with pytest.raises(ProblemError) as caught:
        await handlers.remove_catalog(about("starter"))
    assert caught.value.problem.code is Code.WRONG_STATE


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("url", {"url": "https://ann:hunter2@git.example/lab"}),
        ("url", {"url": "ftp://git.example/lab"}),
        ("branch", {"branch": "--upload-pack=touch"}),
        ("token", {"url": "/srv/lab", "token": "hunter2"}),
        ("name", {"name": " \t "}),
        ("name", {"name": "bell\a"}),
    ],
)
async def test_a_bad_field_is_named_and_no_secret_repeated(
    handlers: CatalogHandlers, catalogs: RememberedCatalogs, field: str, fields: dict[str, str]
) -> None:
    with pytest.raises(ProblemError) as caught:
        await handlers.add_catalog(adding(**fields))
    problem = caught.value.problem
    assert problem.code is Code.INVALID_REQUEST
    assert [error.pointer for error in problem.errors] == [f"/{field}"]
    assert "hunter2" not in problem.model_dump_json()
    assert catalogs.added == []


async def test_a_token_is_sealed_before_it_is_stored(
    handlers: CatalogHandlers, catalogs: RememberedCatalogs
) -> None:
    catalog = await handlers.add_catalog(adding(token="hunter2"))
    (new,) = catalogs.added
    assert new.sealed_token is not None
    assert b"hunter2" not in new.sealed_token
    assert b"hunter2" not in catalog.to_json()
    assert TokenVault(KEY).open(new.id, new.sealed_token).get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("name", "id_"), [("Lab", "lab"), ("Lab Images", "lab-images"), ("starter", "starter")]
)
def test_a_catalogs_id_is_its_name(name: str, id_: str) -> None:
    assert catalog_id(name) == id_


def test_names_that_hardly_differ_get_different_ids() -> None:
    assert len({catalog_id(name) for name in ("a.b", "a_b", "a:b", "ä b", "ö b", "a--b")}) == 6


def test_a_report_too_large_leaves_out_what_was_accepted_first() -> None:
    files = [
        FileReport(path=f"{number:03}.yaml", outcome=outcome)
        for number, outcome in enumerate([FileOutcome.ACCEPTED, FileOutcome.REFUSED] * 50)
    ]
    size = sum(len(file.to_json()) + 1 for file in files)
    assert fitting(files, size) == files
    kept = fitting(files, size // 2 + 200)
    assert [file for file in kept if file.outcome is FileOutcome.REFUSED] == files[1::2]
    assert len(kept) < len(files)
