"""PostgreSQL: engine, migrations, outbox and inbox. The only place with engine set-up."""
