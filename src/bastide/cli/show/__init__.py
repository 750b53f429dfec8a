"""How answers are shown: tables, templates, units, progress; nothing here speaks to the daemon."""
