"""Records to text, one module a format; the only place that knows Rich, and only for tables."""
