"""Settings are checked once, before anything starts, and told in plain sentences."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from streamspace_common.runtime.settings import (
    DatabaseSettings,
    ServiceSettings,
    load,
    service_config,
)


class Settings(ServiceSettings, DatabaseSettings):
    model_config = service_config("catalog-sync")
    tries: int = Field(default=3, ge=1, description="How often.")
    signing_key: SecretStr | None = Field(default=None, description="A key.")


class PlainSettings(ServiceSettings):
    model_config = service_config("gateway")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("STREAMSPACE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_DATABASE_URL", "postgresql://a:s3cr3t@db/catalog")


def refused(capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        load(Settings)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err.splitlines()


def test_defaults_are_enough_for_a_service_without_a_database() -> None:
    assert load(PlainSettings).nats_url == "nats://127.0.0.1:4222"


def test_a_service_reads_its_own_variables(monkeypatch: pytest.MonkeyPatch, database: None) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_TRIES", "7")
    settings = load(Settings)
    assert settings.tries == 7
    assert settings.database_url.get_secret_value() == "postgresql://a:s3cr3t@db/catalog"


def test_what_all_services_share_needs_to_be_said_once(
    monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    monkeypatch.setenv("STREAMSPACE_NATS_URL", "nats://shared")
    assert load(Settings).nats_url == load(PlainSettings).nats_url == "nats://shared"


def test_a_services_own_variable_wins_over_the_shared_one(
    monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    monkeypatch.setenv("STREAMSPACE_NATS_URL", "nats://shared")
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_NATS_URL", "nats://own")
    assert load(Settings).nats_url == "nats://own"


def test_an_empty_variable_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_TRIES", "")
    assert load(Settings).tries == 3


def test_a_missing_setting_is_one_sentence_with_its_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [sentence] = refused(capsys)
    assert sentence == (
        "STREAMSPACE_CATALOG_SYNC_DATABASE_URL is not set: "
        "postgresql://user:password@host:port/database of this service."
    )


def test_each_wrong_setting_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: None
) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_TRIES", "0")
    monkeypatch.setenv("STREAMSPACE_LOG_FORMAT", "xml")
    assert sorted(refused(capsys)) == [
        "STREAMSPACE_CATALOG_SYNC_LOG_FORMAT is not valid: input should be 'json' or 'console'.",
        "STREAMSPACE_CATALOG_SYNC_TRIES is not valid: input should be greater than or equal to 1.",
    ]


@pytest.mark.parametrize("placeholder", ["changethis", "ChangeMe", "secret", "password"])
def test_a_placeholder_secret_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    database: None,
    placeholder: str,
) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_SIGNING_KEY", placeholder)
    [sentence] = refused(capsys)
    assert sentence.startswith("STREAMSPACE_CATALOG_SYNC_SIGNING_KEY is not valid: it is a place")


def test_a_placeholder_password_in_the_database_url_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_DATABASE_URL", "postgresql://a:changeme@db/x")
    [sentence] = refused(capsys)
    assert "password is a placeholder" in sentence
    assert "changeme" not in sentence


def test_a_wrong_secret_is_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSPACE_CATALOG_SYNC_DATABASE_URL", "mysql://a:s3cr3t@db/x")
    [sentence] = refused(capsys)
    assert sentence.endswith("is not valid: it does not begin with postgresql://.")


def test_a_secret_is_hidden_where_settings_are_printed(database: None) -> None:
    assert "s3cr3t" not in repr(load(Settings))


def test_a_secret_may_stand_in_a_file_named_like_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database_url").write_text("postgresql://a:s3cr3t@db/catalog\n")
    monkeypatch.setenv("STREAMSPACE_SECRETS_DIR", str(tmp_path))
    url = load(Settings).database_url.get_secret_value()
    assert url == "postgresql://a:s3cr3t@db/catalog"


def test_a_variable_wins_over_a_file(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database_url").write_text("postgresql://a:b1@elsewhere/catalog")
    monkeypatch.setenv("STREAMSPACE_SECRETS_DIR", str(tmp_path))
    assert "elsewhere" not in load(Settings).database_url.get_secret_value()


def test_a_missing_folder_of_secrets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMSPACE_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit):
        load(Settings)
    assert "STREAMSPACE_SECRETS_DIR" in capsys.readouterr().err
