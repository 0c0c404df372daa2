"""How well it works: metrics, the sandbox, statistics, the report."""
