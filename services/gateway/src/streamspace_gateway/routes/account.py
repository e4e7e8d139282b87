"""Signing in and out, one's own account, and users for administrators."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import UserIdText
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    ChangePassword,
    CreateUser,
    Empty,
    GetUser,
    KeySet,
    ListUsers,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    Tokens,
    UpdateUser,
    UserPage,
)
from streamspace_gateway.deps import (
    AdminOnly,
    ClientAddress,
    CurrentUser,
    IfMatch,
    State,
    StateDep,
    etag,
)
from streamspace_gateway.routes.answers import problems
from streamspace_gateway.routes.bodies import (
    CreateUserBody,
    LoginBody,
    PasswordBody,
    RefreshBody,
    TokenAnswer,
    UpdateUserBody,
)

COOKIE = "streamspace_refresh"
COOKIE_PATH = "/api/v1/auth"

router = APIRouter()

OwnRequest = Annotated[
    str | None,
    Header(
        alias="X-StreamSpace-Request",
        description="Any value; needed with the cookie, since no foreign page can send it.",
        max_length=10,
    ),
]


@router.post("/auth/login", tags=["account"], responses=problems(401, 403))
async def login(
    body: LoginBody, response: Response, state: StateDep, address: ClientAddress
) -> TokenAnswer:
    """Sign in with user name and password."""
    tokens = await state.services.call(
        AuthMethods.LOGIN,
        LoginRequest(username=body.username, password=body.password, address=address),
        timeout=10.0,
    )
    return _answer(tokens, response, state, cookie=body.delivery == "cookie")


@router.post("/auth/refresh", tags=["account"], responses=problems(401, 403))
async def refresh(
    request: Request,
    response: Response,
    state: StateDep,
    address: ClientAddress,
    body: RefreshBody | None = None,
    own_request: OwnRequest = None,
) -> TokenAnswer:
    """Get a fresh access token; the refresh token is replaced too."""
    token, from_cookie = _refresh_token(request, body, own_request)
    tokens = await state.services.call(
        AuthMethods.REFRESH,
        RefreshRequest.model_validate({"refreshToken": token, "address": address}),
    )
    return _answer(tokens, response, state, cookie=from_cookie)


@router.post("/auth/logout", tags=["account"], status_code=204, responses=problems(401, 403))
async def logout(
    request: Request,
    response: Response,
    state: StateDep,
    address: ClientAddress,
    body: RefreshBody | None = None,
    own_request: OwnRequest = None,
) -> None:
    """Sign out: the refresh token and its successors end at once."""
    token, _ = _refresh_token(request, body, own_request)
    response.delete_cookie(COOKIE, path=COOKIE_PATH)
    await state.services.call(
        AuthMethods.LOGOUT,
        LogoutRequest.model_validate({"refreshToken": token, "address": address}),
    )


@router.get("/auth/jwks", tags=["account"], responses=problems())
async def jwks(state: StateDep) -> KeySet:
    """The public keys that access tokens are verified with."""
    return await state.services.call(AuthMethods.JWKS, Empty())


@router.get("/users/me", tags=["account"], responses=problems(401))
async def me(user: CurrentUser, state: StateDep, response: Response) -> User:
    """Who is signed in."""
    found = await state.services.call(
        AuthMethods.GET_USER, GetUser(principal=user, user_id=user.user_id)
    )
    response.headers["ETag"] = etag(found.version)
    return found


@router.post("/users/me/password", tags=["account"], responses=problems(401, 403))
async def change_password(
    body: PasswordBody, user: CurrentUser, state: StateDep, address: ClientAddress
) -> User:
    """Change one's own password; other devices are signed out."""
    return await state.services.call(
        AuthMethods.CHANGE_PASSWORD,
        ChangePassword(
            principal=user,
            address=address,
            current_password=body.current_password,
            new_password=body.new_password,
        ),
        timeout=10.0,
    )


@router.get("/users", tags=["users"], responses=problems(401, 403))
async def list_users(
    user: AdminOnly,
    state: StateDep,
    search: Annotated[str | None, Query(max_length=255)] = None,
    role: Role | None = None,
    disabled: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> UserPage:
    """Users in the order of their names."""
    return await state.services.call(
        AuthMethods.LIST_USERS,
        ListUsers(
            principal=user, search=search, role=role, disabled=disabled, limit=limit, cursor=cursor
        ),
    )


@router.post("/users", tags=["users"], status_code=201, responses=problems(401, 403, 409))
async def create_user(
    body: CreateUserBody,
    user: AdminOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> User:
    """Create a local user."""
    created = await state.services.call(
        AuthMethods.CREATE_USER,
        CreateUser(
            principal=user,
            address=address,
            username=body.username,
            password=body.password,
            display_name=body.display_name,
            email=body.email,
            role=body.role,
        ),
        timeout=10.0,
    )
    response.headers["Location"] = f"/api/v1/users/{created.id}"
    response.headers["ETag"] = etag(created.version)
    return created


@router.get("/users/{user_id}", tags=["users"], responses=problems(401, 403, 404))
async def get_user(
    user_id: UserIdText, user: AdminOnly, state: StateDep, response: Response
) -> User:
    found = await state.services.call(
        AuthMethods.GET_USER, GetUser(principal=user, user_id=user_id)
    )
    response.headers["ETag"] = etag(found.version)
    return found


@router.patch("/users/{user_id}", tags=["users"], responses=problems(401, 403, 404, 409, 412))
async def update_user(
    user_id: UserIdText,
    body: UpdateUserBody,
    user: AdminOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
    if_version: IfMatch,
) -> User:
    """Change, disable or enable a user, or set a new password."""
    given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    changed = await state.services.call(
        AuthMethods.UPDATE_USER,
        UpdateUser(
            principal=user, address=address, user_id=user_id, if_version=if_version, **given
        ),
        timeout=10.0,
    )
    response.headers["ETag"] = etag(changed.version)
    return changed


def _refresh_token(
    request: Request, body: RefreshBody | None, own_request: str | None
) -> tuple[str, bool]:
    """The token and whether the cookie gave it.

    Raises:
        ProblemError: there is none, or a page elsewhere may have sent the cookie.
    """
    if body is not None and body.refresh_token is not None:
        return body.refresh_token.get_secret_value(), False
    cookie = request.cookies.get(COOKIE)
    if not cookie or len(cookie) > 512:
        raise ProblemError.of(Code.UNAUTHENTICATED, "There is no refresh token; sign in.")
    if own_request is None:
        raise ProblemError.of(
            Code.FORBIDDEN, "Send the header `X-StreamSpace-Request: 1` together with the cookie."
        )
    return cookie, True


def _answer(tokens: Tokens, response: Response, state: State, *, cookie: bool) -> TokenAnswer:
    response.headers["Cache-Control"] = "no-store"
    if cookie:
        response.set_cookie(
            COOKIE,
            tokens.refresh_token,
            max_age=tokens.refresh_expires_in,
            path=COOKIE_PATH,
            httponly=True,
            secure=state.settings.secure_cookies,
            samesite=state.settings.cookie_same_site,
        )
    return TokenAnswer(
        access_token=tokens.access_token,
        expires_in=tokens.expires_in,
        refresh_token=None if cookie else tokens.refresh_token,
        refresh_expires_in=tokens.refresh_expires_in,
        user=tokens.user,
    )
