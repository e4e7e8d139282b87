"""HTTP parts every service shares: problems, health, metrics, the verified caller."""
