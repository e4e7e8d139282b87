"""The rules of identity, without any effect: accounts, failed logins, refresh-token families."""
