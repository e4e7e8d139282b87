"""What sessions are carried out with: one package or module per kind of platform."""
